"""From a model and an image to a verdict on its tiles: does cutting the image show?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.atomic import atomic_text
from domainseg.errors import InputError, UsageError, sentence
from domainseg.images import image_sha256, open_image
from domainseg.model_plane import ModelPlane, model_plane
from domainseg.models.model_file import model_sha256
from domainseg.records import Sample
from domainseg.segmenter import decode_options, open_segmenter
from domainseg.tiling.grid import Lattice
from domainseg.tiling.halo import FLIP_TOLERANCE, PROBABILITY_TOLERANCE
from domainseg.tiling.sensitivity import (
    Reading,
    Sensitivity,
    Setting,
    default_settings,
    measure_sensitivity,
)
from domainseg.verify_detection import WHOLE_MPX, DetectionVerification, object_readings

UNTILED_MPX = 24.0
"""Largest image that goes through the network in one piece, Mpx of the model grid."""
LEAST_MPX = 4.0
FOREGROUND = (0.1, 0.6)
"""Images that the tolerances are defined on: size, and least and largest share of foreground."""
HEADER = (
    "method",
    "core",
    "halo",
    "offset",
    "batch",
    "threads",
    "largest difference",
    "flipped",
    "objects",
    "changed",
    "IoU < .9",
    "within",
)

Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What a verification is told beside model and image.

    Attributes:
        cores: sides of the cores to try, px; empty = the model's, its half and its quarter.
        overrides: ``key=value`` changes of the model's recipe.
        select: how a stack is read, instead of the recipe's ``image.select``.
        spacing_um: pixel size of the image, instead of what the file says.
        diameter_px: median object diameter in the image, for models that work at one.
        untiled_mpx: largest part of the image that is run in one piece.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    cores: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    select: Mapping[str, object] | None = None
    spacing_um: float | None = None
    diameter_px: float | None = None
    untiled_mpx: float = UNTILED_MPX
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Verification:
    """What the tiles of a model change on one image.

    Attributes:
        model, image: the files, the image as it was named.
        model_sha256, image_sha256: of each, in hexadecimal digits.
        lattice: the model's.
        precision: ``fp32`` or ``bf16``, as it was run.
        region: the part of the model grid that was compared, ``((y0, x0), (y1, x1))``.
        sensitivity: every reading.
        warnings: what limits the verdict, one sentence each.
    """

    model: Path
    model_sha256: str
    image: str
    image_sha256: str
    lattice: Lattice
    precision: str
    region: Box
    sensitivity: Sensitivity
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every setting of the model's own tiles is within the tolerances."""
        return not self.sensitivity.beyond

    def refusal(self) -> str:
        """Return the sentence that says by how much the worst setting fails."""
        beyond = self.sensitivity.beyond
        worst = max(beyond, key=lambda reading: reading.difference)
        core, (y, x) = worst.setting.lattice.core_px, worst.setting.offset
        return sentence(
            self.image,
            found=f"{len(beyond)} settings that show, worst core {core} at offset {y} {x}: "
            f"{worst.difference:.4f} of probability, {worst.flipped:.1e} of pixels flipped",
            wanted=f"at most {PROBABILITY_TOLERANCE} and {FLIP_TOLERANCE:.0e}",
            fix=f"set tiling.halo_px above {self.lattice.halo_px}",
        )

    def summary(self) -> str:
        """Return what the settings are compared with."""
        seen = self.sensitivity
        return (
            f"against one piece of {seen.shape[0]} x {seen.shape[1]} px with {seen.objects} "
            f"objects, {100 * seen.foreground:.1f} % foreground, {self.precision}"
        )

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return header and one row for each setting."""
        return HEADER, tuple(_row(reading) for reading in self.sensitivity.readings)

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        found = self.sensitivity
        return {
            "model": {"path": str(self.model), "sha256": self.model_sha256},
            "image": {"path": self.image, "sha256": self.image_sha256},
            "precision": self.precision,
            "lattice": _lattice(self.lattice),
            "region": [list(corner) for corner in self.region],
            "foreground": found.foreground,
            "objects": found.objects,
            "tolerance": {"difference": PROBABILITY_TOLERANCE, "flipped": FLIP_TOLERANCE},
            "passed": self.passed,
            "readings": [_as_json(reading) for reading in found.readings],
            "warnings": list(self.warnings),
        }


def verify_tiling(
    model: Path | str,
    image: Path | str,
    *,
    options: VerifyOptions | None = None,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verification | DetectionVerification:
    """Run a model over an image in one piece and in tiles of many kinds, and compare.

    Of a model that finds objects one by one the objects are compared, of any other the maps.

    ``tell`` is called with passes done and passes in all.

    Raises:
        ModelFileError: the model cannot be used.
        InputError: the image cannot be read, does not fit the model, or fits into one core.
        UsageError: a core that the network or the image does not allow.
    """
    options = options or VerifyOptions()
    segmenter, _ = open_segmenter(
        Path(model),
        overrides=options.overrides,
        device=options.device,
        precision=options.precision,
    )
    lattice = segmenter.lattice
    select = segmenter.recipe.image.select if options.select is None else options.select
    with open_image(image, select=select) as opened:
        spacing = opened.spacing_um
        if options.spacing_um is not None:
            spacing = (options.spacing_um, options.spacing_um)
        plane = model_plane(
            segmenter.recipe,
            Sample(str(image), opened, opened.channels, spacing_um=spacing),
            diameter_px=options.diameter_px or segmenter.diameter_px,
        )
        most = options.untiled_mpx
        if segmenter.detector is not None:
            most = min(most, WHOLE_MPX)
        region = middle(plane.grid.model_shape, most)
        settings = _settings(lattice, region, options.cores, where=image)
        pixels = _pixels(plane, region)
        sha256 = image_sha256(opened.path)
    if segmenter.detector is not None:
        objects, readings = object_readings(
            segmenter, segmenter.detector, pixels, settings, tell=tell
        )
        return DetectionVerification(
            model=Path(model),
            model_sha256=model_sha256(Path(model)),
            image=str(image),
            image_sha256=sha256,
            lattice=lattice,
            precision=segmenter.detector.precision,
            region=region,
            objects=objects,
            readings=readings,
            warnings=_part_of(region, plane.grid.model_shape),
        )
    found = measure_sensitivity(
        segmenter.make_maps,
        pixels,
        settings,
        lattice=lattice,
        options=decode_options(segmenter.recipe, segmenter.classes),
        tell=tell,
    )
    return Verification(
        model=Path(model),
        model_sha256=model_sha256(Path(model)),
        image=str(image),
        image_sha256=sha256,
        lattice=lattice,
        precision=segmenter.make_maps.precision,
        region=region,
        sensitivity=found,
        warnings=_limits(found, region, plane.grid.model_shape, segmenter.whole_window_layers),
    )


def middle(shape: tuple[int, int], most_mpx: float) -> Box:
    """Return the box amid an image ``(H, W)``, of its proportions and at most so many Mpx."""
    shrink = min(1.0, math.sqrt(most_mpx * 1e6 / (shape[0] * shape[1])))
    height, width = (max(1, int(length * shrink)) for length in shape)
    y0, x0 = (shape[0] - height) // 2, (shape[1] - width) // 2
    return (y0, x0), (y0 + height, x0 + width)


def write_verification(found: Verification | DetectionVerification, path: Path) -> None:
    """Write every figure as JSON; raise OutputError when it cannot be written."""
    atomic_text(path, json.dumps(found.to_json(), indent=2) + "\n")


def _settings(
    lattice: Lattice, region: Box, cores: Sequence[int], *, where: object
) -> tuple[Setting, ...]:
    """Return the settings to try on a region, or raise where it cannot be cut as asked."""
    (y0, x0), (y1, x1) = region
    longest = max(y1 - y0, x1 - x0)
    for core in cores:
        if core < 1 or core % lattice.stride_px or core >= longest:
            raise UsageError(
                sentence(
                    "--core",
                    found=str(core),
                    wanted=f"a multiple of the network's stride {lattice.stride_px} below the "
                    f"image's {longest} px",
                    fix="change it",
                )
            )
    settings = default_settings(lattice, (y1 - y0, x1 - x0), cores=cores)
    if not settings:
        raise InputError(
            sentence(
                where,
                found=f"{y1 - y0} x {x1 - x0} px on the model grid, which one core holds",
                wanted=f"more than {lattice.stride_px} px, to be cut",
                fix="take a larger image",
            )
        )
    return settings


def _pixels(plane: ModelPlane, region: Box) -> np.ndarray[Any, np.dtype[np.float32]]:
    (y0, x0), (y1, x1) = region
    return plane[:, y0:y1, x0:x1]


def _limits(
    found: Sensitivity, region: Box, shape: tuple[int, int], blind: Sequence[str]
) -> tuple[str, ...]:
    """Return what the verdict does not cover."""
    said = list(_part_of(region, shape))
    (y0, x0), (y1, x1) = region
    mpx = (y1 - y0) * (x1 - x0) / 1e6
    if mpx < LEAST_MPX:
        said.append(
            f"the tolerances are defined on images of {LEAST_MPX:.0f} Mpx and more, this one has "
            f"{mpx:.2g}"
        )
    if not FOREGROUND[0] <= found.foreground <= FOREGROUND[1]:
        low, high = (f"{100 * share:.0f}" for share in FOREGROUND)
        said.append(
            f"the tolerances are defined on {low} to {high} % foreground, here it is "
            f"{100 * found.foreground:.3g} %"
        )
    if blind:
        said.append(f"{len(blind)} layers of the network see whole windows, {blind[0]} the first")
    return tuple(said)


def _part_of(region: Box, shape: tuple[int, int]) -> tuple[str, ...]:
    """Return what is said where not all of an image is compared."""
    (y0, x0), (y1, x1) = region
    if (y1 - y0, x1 - x0) == shape:
        return ()
    return (
        f"of {shape[0]} x {shape[1]} px the middle is compared, y {y0} to {y1} and x {x0} to "
        f"{x1}, because the untiled pass takes memory for every pixel",
    )


def _row(reading: Reading) -> tuple[str, ...]:
    setting = reading.setting
    lattice, (y, x) = setting.lattice, setting.offset
    verdict = ("yes" if reading.within else "NO") if setting.judged else "-"
    overlap = "" if setting.overlap is None else f" {100 * setting.overlap:.0f} %"
    return (
        setting.method + overlap,
        str(lattice.core_px),
        str(lattice.halo_px),
        f"{y} {x}",
        str(lattice.batch),
        "all" if setting.threads is None else str(setting.threads),
        f"{reading.difference:.4f}",
        f"{reading.flipped:.1e}",
        str(reading.objects),
        str(reading.changed),
        str(reading.changed_much),
        verdict,
    )


def _as_json(reading: Reading) -> dict[str, Any]:
    setting = reading.setting
    return {
        "method": setting.method,
        **_lattice(setting.lattice),
        "offset": list(setting.offset),
        "threads": setting.threads,
        "overlap": setting.overlap,
        "difference": reading.difference,
        "flipped": reading.flipped,
        "objects": reading.objects,
        "changed": reading.changed,
        "changed_much": reading.changed_much,
        "within": reading.within if setting.judged else None,
    }


def _lattice(lattice: Lattice) -> dict[str, int]:
    return {
        "core_px": lattice.core_px,
        "halo_px": lattice.halo_px,
        "stride_px": lattice.stride_px,
        "batch": lattice.batch,
    }
