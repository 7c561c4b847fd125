"""What a made-up wafer, its defects and the camera are like: the options and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from domainseg.errors import RecipeError, sentence

DefectClass = Literal[
    "particle", "scratch", "bridge", "open", "missing_via", "pit", "residue", "edge_chip"
]
CLASSES: tuple[DefectClass, ...] = get_args(DefectClass)
IN_PATTERN: tuple[DefectClass, ...] = ("bridge", "open", "missing_via")
"""Classes that sit on the lines and vias they concern."""
Law = Literal["random", "cluster", "ring", "sector", "line"]
LAWS: tuple[Law, ...] = get_args(Law)
RESOLVED_PX = 2.0
"""Width in px that a line needs for a defect in it to have a mask."""

Range = tuple[float, float]

_LIMITS = {
    "spacing_um": (0.001, 1000.0),
    "wafer_diameter_mm": (5.0, 450.0),
    "street_um": (0.0, 1000.0),
    "edge_exclusion_mm": (0.0, 20.0),
    "line_um": (0.005, 100.0),
    "blur_px": (0.0, 8.0),
    "noise": (0.001, 0.2),
    "unevenness": (0.0, 1.0),
    "texture": (0.0, 0.3),
    "irregularity": (0.0, 0.5),
    "stray": (0.0, 1.0),
}
_RANGES = (
    "contrast_to_noise",
    "particle_um",
    "scratch_um",
    "scratch_width_um",
    "bridge_um",
    "pit_um",
    "residue_um",
    "chip_um",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaferLook:
    """What the wafer, the defects and the camera of a made-up inspection image are like.

    Sizes are drawn evenly in their logarithm between the two ends. No particle, pit,
    residue or chip is drawn less than two pixels across and no scratch less than one
    wide, so that each has a mask; the table tells what was drawn.

    Attributes:
        spacing_um: size of a pixel.
        wafer_diameter_mm: of the disc; the notch is down.
        die_um: ``(y, x)`` from one die to the next, street included.
        street_um: width of the streets between the dies.
        edge_exclusion_mm: width of the ring at the wafer's edge that has no film.
        pattern: ``circuit``, or ``bare`` for film without dies.
        line_um: width of the finest lines and of the spaces between them.
        blur_px: standard deviation of the optics' blur.
        noise: standard deviation of the noise on bare film at full light, as a share of
            full scale; it grows with the root of the light.
        unevenness: share of the light that is lost where the image is darkest.
        texture: standard deviation of the surface's own slow grain, as a share of the light.
        bits: of a pixel.
        contrast_to_noise: least and greatest contrast of a defect: what it adds to or takes
            from the light in the mean over its pixels, at full light, after the blur,
            over ``noise``.
        classes: of the defects, each as likely as any other that has a place in the image;
            null for all that the pattern has and the pixel size shows.
        particle_um: least and greatest diameter of a particle.
        scratch_um: least and greatest length of a scratch.
        scratch_width_um: least and greatest width of a scratch.
        scratch_gaps: most gaps in a scratch; a scratch with gaps is one object.
        bridge_um: least and greatest extent of a bridge or open along its line.
        pit_um: least and greatest diameter of a pit.
        residue_um: least and greatest diameter of a residue.
        chip_um: least and greatest diameter of the bite at a die's or the wafer's edge.
        irregularity: size of the low harmonics of the outlines; 0 gives ellipses.
        placement: how defects are spread; each image takes one of these.
        stray: share of the defects that fall at random under any placement.
    """

    spacing_um: float = 0.5
    wafer_diameter_mm: float = 300.0
    die_um: Range = (2000.0, 2400.0)
    street_um: float = 80.0
    edge_exclusion_mm: float = 3.0
    pattern: Literal["circuit", "bare"] = "circuit"
    line_um: float = 2.0
    blur_px: float = 1.0
    noise: float = 0.02
    unevenness: float = 0.25
    texture: float = 0.015
    bits: Literal[8, 16] = 8
    contrast_to_noise: Range = (2.0, 6.0)
    classes: tuple[DefectClass, ...] | None = None
    particle_um: Range = (1.5, 8.0)
    scratch_um: Range = (20.0, 250.0)
    scratch_width_um: Range = (0.5, 3.0)
    scratch_gaps: int = 2
    bridge_um: Range = (1.5, 6.0)
    pit_um: Range = (1.5, 6.0)
    residue_um: Range = (20.0, 90.0)
    chip_um: Range = (6.0, 40.0)
    irregularity: float = 0.3
    placement: tuple[Law, ...] = ("random",)
    stray: float = 0.25

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise _refused(name, f"{value:g}", f"a number from {low:g} to {high:g}")
        for name in _RANGES:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise _refused(name, f"{low:g}, {high:g}", "two numbers above 0, the least first")
        if min(self.die_um) < (least := 2 * self.street_um + 40 * self.line_um):
            raise _refused(
                "die_um",
                f"{min(self.die_um):g}",
                f"at least two streets and forty lines: {least:g}",
            )
        if self.scratch_gaps < 0:
            raise _refused("scratch_gaps", f"{self.scratch_gaps}", "an integer from 0 up")
        for name, known in (("classes", CLASSES), ("placement", LAWS)):
            self._check_names(name, known)
        self._check_pattern()

    def _check_names(self, name: str, known: tuple[str, ...]) -> None:
        named: Any = getattr(self, name)
        if named is None:
            return
        if not named:
            raise _refused(name, "an empty list", f"some of {', '.join(known)}")
        if unknown := sorted(set(named) - set(known)):
            raise _refused(name, ", ".join(map(repr, unknown)), f"some of {', '.join(known)}")
        if name == "classes" and len(set(named)) < len(named):
            raise _refused(name, ", ".join(named), "each class once")

    def _check_pattern(self) -> None:
        """Raise where a class is asked for that the pattern lacks or the pixels do not show."""
        for name in self.classes or ():
            if name not in IN_PATTERN or self.has_lines:
                continue
            width = self.line_um / self.spacing_um
            raise RecipeError(
                sentence(
                    "classes",
                    found=f"{name} on a bare wafer"
                    if self.pattern == "bare"
                    else f"{name} with lines of {width:g} px",
                    wanted=f"pattern: circuit and lines of at least {RESOLVED_PX:g} px",
                    fix="change pattern, line_um or spacing_um, or leave the class out",
                )
            )

    @property
    def has_lines(self) -> bool:
        """Whether there are lines and a pixel shows them."""
        return self.pattern == "circuit" and self.line_um >= RESOLVED_PX * self.spacing_um

    @property
    def class_names(self) -> tuple[DefectClass, ...]:
        """The classes in the order of their indices."""
        if self.classes is not None:
            return self.classes
        return tuple(name for name in CLASSES if self.has_lines or name not in IN_PATTERN)


def _refused(where: str, found: str, wanted: str) -> RecipeError:
    return RecipeError(sentence(where, found=found, wanted=wanted, fix="change it"))
