"""A made-up micrograph of any size that is computed where it is sliced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.errors import RecipeError, sentence
from domainseg.images.image import Key, region_of
from domainseg.loaders.scene_cells import SLOTS, Cells, cells_near, cover, grid_across
from domainseg.loaders.scene_stains import CHANNELS, Stain, dye, expose
from domainseg.records import Array, Spacing

_LIMITS = {
    "diameter_px": (4.0, 512.0),
    "spread": (0.0, 1.0),
    "density": (0.0, 0.9),
    "clumping": (0.0, 1.0),
    "elongation": (0.0, 1.5),
    "irregularity": (0.0, 0.5),
    "unevenness": (0.0, 1.0),
    "blur_px": (0.0, 8.0),
    "noise": (0.0, 0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the cells and the camera of a made-up scene are like.

    Attributes:
        diameter_px: mean diameter of a cell.
        spread: standard deviation of the logarithm of the diameter.
        density: share of the plane that cells would cover before crowding thins them.
        clumping: share of the cells that are put in contact with another.
        elongation: largest surplus of the long axis over the short; 0 gives discs.
        irregularity: size of the low harmonics of the outline; 0 gives ellipses.
        unevenness: share of the light that is lost where the field is darkest.
        blur_px: standard deviation of the optics' blur.
        noise: standard deviation of the noise at full light, as a share of full scale.
        bits: of a pixel.
        spacing_um: size of a pixel in micrometres, None for unknown.
    """

    diameter_px: float = 24.0
    spread: float = 0.18
    density: float = 0.45
    clumping: float = 0.6
    elongation: float = 0.6
    irregularity: float = 0.2
    unevenness: float = 0.35
    blur_px: float = 1.2
    noise: float = 0.035
    bits: Literal[8, 16] = 8
    spacing_um: float | None = 0.5

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise RecipeError(
                    sentence(
                        name,
                        found=f"{value:g}",
                        wanted=f"a number from {low:g} to {high:g}",
                        fix="change it",
                    )
                )
        if self.spacing_um is not None and not self.spacing_um > 0:
            raise RecipeError(
                sentence(
                    "spacing_um",
                    found=f"{self.spacing_um:g}",
                    wanted="micrometres above 0, or null for unknown",
                    fix="change it",
                )
            )


class Region(NamedTuple):
    """Pixels and truth of one region: image ``(C, h, w)``, integer labels ``(h, w)``."""

    image: Array
    labels: NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scene:
    """A lazy plane ``(C, H, W)`` of made-up cells with exact truth.

    Every pixel and label is a function of (look, seed, shape, stain, position) alone:
    ``scene[:, a:b, c:d]`` equals that crop of the whole scene bit for bit, and costs
    memory for the crop only.
    """

    look: Look
    seed: int
    size: tuple[int, int]
    stain: Stain = "fluorescence"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"a scene of {self.size[0]} x {self.size[1]} px has no pixel")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (len(self.channels), *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(f"uint{self.look.bits}")

    @property
    def channels(self) -> tuple[str, ...]:
        """One name per channel."""
        return CHANNELS[self.stain]

    @property
    def spacing_um(self) -> Spacing | None:
        """Pixel size ``(y, x)``, None when the look leaves it unknown."""
        spacing = self.look.spacing_um
        return None if spacing is None else (spacing, spacing)

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """int32, or int64 where the scene has too many grid cells for it."""
        rows, columns = (grid_across(side, self.look.diameter_px) for side in self.size)
        fits = rows * columns * SLOTS <= np.iinfo(np.int32).max
        return np.dtype(np.int32 if fits else np.int64)

    def __getitem__(self, key: Key, /) -> Array:
        """Return pixels as a new array; slices have step 1, integers drop their axis."""
        (channels, rows, columns), dropped = region_of(key, self.shape)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            size = (rows.stop - rows.start, columns.stop - columns.start)
            pixels = np.empty((self.shape[0], *size), self.dtype)
        else:
            pixels = self.region(rows.start, rows.stop, columns.start, columns.stop).image
        return pixels[channels].squeeze(axis=dropped)

    def labels(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.int32] | NDArray[np.int64]:
        """Return the id of the cell at each pixel of the half-open region, 0 for background.

        An id names one cell in the whole scene, so neighbouring regions agree on it.
        """
        region = self._inside(y0, y1, x0, x1)
        return np.asarray(cover(self._cells(region), region).labels.astype(self.label_dtype))

    def region(self, y0: int, y1: int, x0: int, x1: int) -> Region:
        """Return pixels and labels of the half-open region, computed together."""
        self._inside(y0, y1, x0, x1)
        margin = int(np.ceil(3 * self.look.blur_px))
        wide = (y0 - margin, y1 + margin, x0 - margin, x1 + margin)
        planes = cover(self._cells(wide), wide)
        layers = dye(
            self.stain,
            self.seed,
            corner=(wide[0], wide[2]),
            diameter=self.look.diameter_px,
            cover=planes,
        )
        core = (slice(margin, margin + y1 - y0), slice(margin, margin + x1 - x0))
        image = expose(
            self.stain,
            self.seed,
            corner=(y0, x0),
            field=(*self.size, self.look.unevenness, self.look.diameter_px),
            camera=(self.look.noise, float(np.iinfo(self.dtype).max)),
            blurred=_blurred(layers, self.look.blur_px, margin)[:, *core],
            dtype=self.dtype,
        )
        return Region(image, np.asarray(planes.labels[core].astype(self.label_dtype)))

    def _inside(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, int, int]:
        height, width = self.size
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise IndexError(
                f"region {y0}:{y1}, {x0}:{x1} is empty or not inside a scene of {height} x {width}"
            )
        return y0, y1, x0, x1

    def _cells(self, region: tuple[int, int, int, int]) -> Cells:
        look = self.look
        return cells_near(
            self.seed,
            region,
            width=self.size[1],
            style=(look.diameter_px, look.spread, look.density, look.clumping),
            shape=(look.elongation, look.irregularity),
        )


def _blurred(layers: Array, sigma: float, margin: int) -> Array:
    """Return float32 ``layers (P, h, w)`` after a Gaussian of ``margin`` px to each side.

    The outermost ``margin`` pixels are wrong, having seen the end of the array.
    """
    if margin == 0:
        return layers
    out = layers
    for axis in (1, 2):
        out = ndimage.gaussian_filter1d(out, sigma, axis=axis, radius=margin, mode="nearest")
    return np.asarray(out)
