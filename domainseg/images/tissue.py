"""Where a brightfield slide has tissue: a coarse mask, so that empty glass is not searched.

The slide is seen as cells, the mean colours of squares of about ``CELL_PX`` pixels. A cell
is tissue where it is darker or more coloured than the glass:

- *density*: mean over red, green and blue of ``-log10(intensity / white)``, the optical
  density; white is the largest value of the pixel type;
- *saturation*: ``(max - min) / max`` over red, green and blue.

For each of the two, Otsu's threshold (IEEE Trans. SMC 9(1), 1979) parts the cells into a
lower and an upper class. The lower is taken for glass only where it is bright and without
colour, and where the classes lie further apart than noise and uneven light take them. Then
the threshold is set anew just above the glass, because Otsu's lies half way to the darkest
stain or pen mark and would leave pale tissue out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.errors import InputError, sentence
from domainseg.images.channels import RGB
from domainseg.images.image import Image
from domainseg.images.levels import overview
from domainseg.records import Array

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

CELL_PX = 16
"""Side of a cell in pixels of the full resolution, unless there would be too many."""
MOST_CELLS = 2048
"""Cells along the longer side: beyond 32,768 px cells grow with the slide."""
MARGIN_CELLS = 3
"""Cells that tissue is widened by on every side."""
SPECK_CELLS = 4
"""Tissue of fewer connected cells is dust."""
HOLE_CELLS = 64
"""Glass of fewer connected cells enclosed by tissue (vessels, glands, tears) counts as it."""
DARK = 1.0
"""Density of a picture that is not brightfield: a tenth of the light, in the median cell."""

_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class _Feature:
    """What of glass and tissue is known about one feature of a cell.

    Attributes:
        glass: largest median of the lower class for it to be glass.
        apart: least distance between the medians of the two classes.
        above: least distance of the threshold above the glass.
    """

    glass: float
    apart: float
    above: float


DENSITY = _Feature(glass=0.12, apart=0.03, above=0.02)
SATURATION = _Feature(glass=0.08, apart=0.04, above=0.03)


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """Where a slide has tissue.

    Attributes:
        cells: bool ``(h, w)``, True for tissue, its margin included.
        downsample: pixels of the full resolution per cell, ``(y, x)``.
        shape: ``(H, W)`` of the slide, px.
        assumed: what was assumed where tissue and glass could not be told apart, else None.
    """

    cells: Mask
    downsample: tuple[float, float]
    shape: tuple[int, int]
    assumed: str | None = None

    @property
    def share(self) -> float:
        """Share of the cells that are tissue."""
        return float(self.cells.mean())

    def at(self, rows: Ints, columns: Ints) -> Mask:
        """Return which pixels of these rows and columns are tissue, bool ``(h, w)``.

        Each pixel takes the value of the cell that its centre lies in.
        """
        picked = []
        for pixels, step, count in zip(
            (rows, columns), self.downsample, self.cells.shape, strict=True
        ):
            index = np.floor((pixels + 0.5) / step).astype(np.int64)
            picked.append(np.clip(index, 0, count - 1))
        return self.cells[np.ix_(*picked)]

    def inside(self, box: tuple[tuple[int, int], tuple[int, int]]) -> Mask:
        """Return which pixels of a half-open box are tissue, bool ``(h, w)``."""
        (y0, x0), (y1, x1) = box
        return self.at(np.arange(y0, y1), np.arange(x0, x1))

    def to_record(self) -> dict[str, Any]:
        """Return cell size, share and what was assumed, for a run's record."""
        return {
            "downsample": list(self.downsample),
            "share": self.share,
            "assumed": self.assumed,
        }


def find_tissue(image: Image) -> Tissue:
    """Return where a brightfield slide has tissue.

    The slide is read once, by bands, from the coarsest of its levels that suffices. Specks
    and small holes are seen to, then tissue is widened by ``MARGIN_CELLS``. Where glass and
    tissue cannot be told apart (a field full of tissue, a blank slide, a stain too pale),
    nothing is left out: all cells count as tissue and ``assumed`` says so.

    Raises:
        InputError: the image is not red, green and blue of 8 or 16 bits (an alpha channel
            is not looked at), or dark where nothing is (fluorescence).
    """
    colours = _colours(image.channels, image.dtype, image.path)
    height, width = image.shape[1:]
    longest = max(height, width)
    picture, downsample = overview(image, longest_px=min(MOST_CELLS, -(-longest // CELL_PX)))
    light = np.asarray(picture, np.float32)[colours] / np.float32(np.iinfo(image.dtype).max)
    density, saturation = _features(light)
    if np.median(density) > DARK:
        raise InputError(
            sentence(
                image.path,
                found=f"a dark picture (median density {np.median(density):.2f})",
                wanted="a brightfield slide, bright where nothing is, to find tissue in",
                fix="set tiling.tissue=false",
            )
        )
    cells, assumed = tissue_cells(density, saturation)
    return Tissue(cells, downsample, (height, width), assumed)


def tissue_cells(density: Array, saturation: Array) -> tuple[Mask, str | None]:
    """Return which cells are tissue, and what was assumed; both features float ``(h, w)``."""
    dark = _above_glass(density, DENSITY, saturation, SATURATION)
    coloured = _above_glass(saturation, SATURATION, density, DENSITY)
    if dark is None and coloured is None:
        blank = np.median(density) <= DENSITY.glass and np.median(saturation) <= SATURATION.glass
        seen = "no tissue stands out from the glass" if blank else "no glass is seen"
        return np.ones(density.shape, bool), f"{seen}: the whole image is taken for tissue"
    found = np.zeros(density.shape, bool)
    for part in (dark, coloured):
        if part is not None:
            found |= part
    found &= ~_small(found, SPECK_CELLS, structure=_EIGHT)
    if not found.any():
        dust = "only specks stand out from the glass: the whole image is taken for tissue"
        return np.ones(density.shape, bool), dust
    found |= _small(~found, HOLE_CELLS, structure=None) & ~_reaching_border(~found)
    widened: Mask = ndimage.binary_dilation(found, _EIGHT, iterations=MARGIN_CELLS)
    return widened, None


def _colours(channels: tuple[str, ...], dtype: np.dtype[Any], where: object) -> list[int]:
    """Return where red, green and blue lie."""
    opaque = tuple(name for name in channels if name != "alpha")
    if dtype.kind != "u" or dtype.itemsize > 2:
        found = f"pixels of {dtype}"
    elif set(opaque) == set(RGB) and len(opaque) == 3:
        return [channels.index(name) for name in RGB]
    elif channels == ("c0", "c1", "c2"):
        return [0, 1, 2]
    else:
        found = f"channels {', '.join(channels)}"
    raise InputError(
        sentence(
            where,
            found=found,
            wanted="a brightfield slide in red, green and blue of 8 or 16 bits to find tissue in",
            fix="set tiling.tissue=false",
        )
    )


def _features(light: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return density and saturation ``(h, w)`` of colours ``(3, h, w)`` in [0, 1]."""
    lit = np.maximum(light, np.float32(1 / 255))
    high, low = lit.max(axis=0), lit.min(axis=0)
    return -np.log10(lit).mean(axis=0), (high - low) / high


def _above_glass(values: Array, known: _Feature, others: Array, other: _Feature) -> Mask | None:
    """Return which cells lie above the glass, None where no glass can be told apart.

    The lower class must be glass by both features: stroma may be as bright as glass.
    """
    threshold = otsu(values)
    low = values <= threshold
    if low.all():
        return None
    glass = float(np.median(values[low]))
    clear = glass <= known.glass and np.median(others[low]) <= other.glass
    if not clear or np.median(values[~low]) - glass < known.apart:
        return None
    # 1.4826 times the median deviation is the standard deviation of a normal distribution.
    spread = 1.4826 * float(np.median(np.abs(values[low] - glass)))
    return np.asarray(values > min(threshold, glass + max(known.above, 6 * spread)))


def otsu(values: Array) -> float:
    """Return Otsu's threshold of float values: the lower class is at or below it.

    The largest value where all are equal.
    """
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * middles)
    between = np.zeros(255)
    parted = (below > 0) & (above > 0)
    means = sums[:-1][parted] / below[parted], (sums[-1] - sums[:-1][parted]) / above[parted]
    between[parted] = below[parted] * above[parted] * (means[1] - means[0]) ** 2
    if not parted.any():
        return float(values.max())
    return float(edges[1 + int(between.argmax())])


def _small(cells: Mask, least: int, *, structure: Array | None) -> Mask:
    """Return the cells that lie in connected groups of fewer than ``least``."""
    groups, count = ndimage.label(cells, structure)
    small = np.bincount(groups.ravel(), minlength=count + 1) < least
    small[0] = False
    return np.asarray(small[groups])


def _reaching_border(cells: Mask) -> Mask:
    """Return the cells of 4-connected groups that touch the border of the picture."""
    groups, count = ndimage.label(cells)
    touched = np.zeros(count + 1, bool)
    for line in (groups[0], groups[-1], groups[:, 0], groups[:, -1]):
        touched[line] = True
    touched[0] = False
    return np.asarray(touched[groups])
