"""A made-up wafer inspection image of any size that is computed where it is sliced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.images.image import Key, region_of
from domainseg.loaders.scene_cells import bell, kernel, key_of_column, key_of_row, mix, unit
from domainseg.loaders.wafer_defects import Defects, draw_defects
from domainseg.loaders.wafer_look import Range, WaferLook
from domainseg.loaders.wafer_pattern import FILM, circuit_of, lay_pattern
from domainseg.loaders.wafer_shapes import blur_margin, blurred, draw
from domainseg.quality.die_grid import DieGrid
from domainseg.records import Array, Spacing

READING = 0.04
"""Variance of the reading noise over that of the shot noise at full scale."""
GRAINS_PX = (60.0, 9.0)
"""Widths of the two octaves of the surface's grain."""
_GRAIN_SCALE = 1.0 / float(np.sqrt(0.58 / 12) * 26 / 35)
"""One over the deviation of 0.7 and 0.3 of two lattices: uniform nodes, smoothstep between them,
whose mean square weight is 26/35 along each axis."""


class WaferRegion(NamedTuple):
    """Pixels and truth of one region: image ``(1, h, w)``, int32 labels ``(h, w)``."""

    image: Array
    labels: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class WaferPlane:
    """A lazy plane ``(1, H, W)`` of a made-up wafer with exact truth.

    Every pixel and label is a function of these fields and its position alone:
    ``plane[:, a:b, c:d]`` equals that crop of the whole bit for bit, and costs memory
    for the crop only. The defects are drawn once, as geometry.

    Attributes:
        look: of the wafer, its defects and the camera.
        seed: of the defects, the grain and the noise, from 0 up.
        size: ``(H, W)``.
        wafer_center_px: ``(y, x)`` of the wafer's centre; the first pixel's centre is 0.0.
        circuit: seed of the dies' pattern, from 0 up.
        count: of the defects to place.
        contrast_to_noise: least and greatest, in place of the look's; None for the look's.
    """

    look: WaferLook
    seed: int
    size: tuple[int, int]
    wafer_center_px: tuple[float, float]
    circuit: int = 0
    count: int = 5
    contrast_to_noise: Range | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"a wafer image of {self.size[0]} x {self.size[1]} px has no pixel")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (1, *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(f"uint{self.look.bits}")

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """int32."""
        return np.dtype(np.int32)

    @property
    def channels(self) -> tuple[str, ...]:
        """The one channel."""
        return ("grey",)

    @property
    def spacing_um(self) -> Spacing:
        """Pixel size ``(y, x)``."""
        return (self.look.spacing_um, self.look.spacing_um)

    @property
    def die_grid(self) -> DieGrid:
        """The dies, and where the image lies on the wafer.

        The wafer's centre is the middle of die (0, 0).
        """
        pitch_y, pitch_x = self.look.die_um
        return DieGrid(
            pitch_um=(pitch_y, pitch_x),
            center_um=(0.5 * pitch_x, 0.5 * pitch_y),
            wafer_diameter_mm=self.look.wafer_diameter_mm,
            spacing_um=self.spacing_um,
            wafer_center_px=self.wafer_center_px,
        )

    @property
    def defects(self) -> Defects:
        """The defects in the order of their labels; row n has label n + 1."""
        return _defects(self)

    def __getitem__(self, key: Key, /) -> Array:
        """Return pixels as a new array; slices have step 1, integers drop their axis."""
        (channels, rows, columns), dropped = region_of(key, self.shape)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            size = (rows.stop - rows.start, columns.stop - columns.start)
            pixels = np.empty((1, *size), self.dtype)
        else:
            pixels = self.region(rows.start, rows.stop, columns.start, columns.stop).image
        return pixels[channels].squeeze(axis=dropped)

    def labels(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.int32]:
        """Return the label of the defect at each pixel of the half-open region, 0 for none.

        A label names one defect in the whole image, so neighbouring regions agree on it.
        """
        return draw(self.defects.shapes, self._inside(y0, y1, x0, x1), grid=self.die_grid)[0]

    def region(self, y0: int, y1: int, x0: int, x1: int) -> WaferRegion:
        """Return pixels and labels of the half-open region, computed together."""
        self._inside(y0, y1, x0, x1)
        look, grid = self.look, self.die_grid
        margin = blur_margin(look.blur_px)
        wide = (y0 - margin, y1 + margin, x0 - margin, x1 + margin)
        circuit = None
        if look.pattern == "circuit":
            circuit = circuit_of(look.die_um, look.street_um, look.line_um, seed=self.circuit)
        light = lay_pattern(grid, circuit, wide, edge_exclusion_mm=look.edge_exclusion_mm)
        labels, change = draw(self.defects.shapes, wide, grid=grid)
        light += change
        core = (slice(margin, margin + y1 - y0), slice(margin, margin + x1 - x0))
        image = _exposed(self, (y0, x0), blurred(light, look.blur_px, margin)[core])
        return WaferRegion(image[None], np.ascontiguousarray(labels[core]))

    def _inside(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, int, int]:
        height, width = self.size
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise IndexError(
                f"region {y0}:{y1}, {x0}:{x1} is empty or not inside a wafer image of "
                f"{height} x {width}"
            )
        return y0, y1, x0, x1


@lru_cache(maxsize=8)
def _defects(plane: WaferPlane) -> Defects:
    look = plane.look
    circuit = None
    if look.pattern == "circuit":
        circuit = circuit_of(look.die_um, look.street_um, look.line_um, seed=plane.circuit)
    return draw_defects(
        look,
        grid=plane.die_grid,
        size=plane.size,
        circuit=circuit,
        count=plane.count,
        contrast_to_noise=plane.contrast_to_noise or look.contrast_to_noise,
        seed=plane.seed,
    )


@kernel
def _key(seed: Any, number: int) -> Any:
    """Return the key of one of a plane's streams."""
    return mix(seed + np.uint64(number))


@kernel
def _nodes(seed: Any, scale: float, corner: Any, shape: Any) -> NDArray[np.float64]:
    """Return the hashed values at the lattice's nodes that a region looks at."""
    row0, column0 = int(np.floor(corner[0] / scale)), int(np.floor(corner[1] / scale))
    rows = int(np.floor((corner[0] + shape[0] - 1) / scale)) - row0 + 2
    columns = int(np.floor((corner[1] + shape[1] - 1) / scale)) - column0 + 2
    nodes = np.empty((rows, columns))
    for i in range(rows):
        row = key_of_row(seed, row0 + i)
        for j in range(columns):
            nodes[i, j] = unit(key_of_column(row, column0 + j))
    return nodes


@kernel
def _add_grain(seed: Any, scale: float, weight: float, corner: Any, out: Any) -> None:
    """Add ``weight`` times smooth noise in [0, 1) about one half, smoothstep between nodes."""
    nodes = _nodes(seed, scale, corner, out.shape)
    row0, column0 = int(np.floor(corner[0] / scale)), int(np.floor(corner[1] / scale))
    for i in range(out.shape[0]):
        y = (corner[0] + i) / scale
        row = int(np.floor(y))
        v = y - row
        v = v * v * (3.0 - 2.0 * v)
        for j in range(out.shape[1]):
            x = (corner[1] + j) / scale
            column = int(np.floor(x))
            u = x - column
            u = u * u * (3.0 - 2.0 * u)
            a, b = nodes[row - row0, column - column0], nodes[row - row0, column - column0 + 1]
            c = nodes[row - row0 + 1, column - column0]
            d = nodes[row - row0 + 1, column - column0 + 1]
            top = a + (b - a) * u
            out[i, j] += weight * (top + (c + (d - c) * u - top) * v - 0.5)


@kernel
def _expose(
    seed: Any, corner: Any, size: Any, camera: Any, light: Any, grain: Any, out: Any
) -> None:
    """Fill ``out (h, w)`` with what the camera reads: uneven light, shot and reading noise.

    Shot noise is the normal limit of the Poisson law: its variance grows with the light.
    ``camera`` holds the noise on film, the unevenness and full scale.
    """
    noise, unevenness, full = camera
    for i in range(out.shape[0]):
        y = corner[0] + i
        row = key_of_row(seed, y)
        v = 2.0 * y / size[0] - 1.0
        for j in range(out.shape[1]):
            x = corner[1] + j
            u = 2.0 * x / size[1] - 1.0
            even = 1.0 - unevenness * (0.38 * (v * v + u * u) + 0.12 * (v - u + 2.0) * 0.5)
            value = max(light[i, j], 0.0) * even * (1.0 + grain[i, j])
            spread = noise * np.sqrt((max(value, 0.0) + READING) / (FILM + READING))
            share = min(max(value + spread * bell(key_of_column(row, x)), 0.0), 1.0)
            out[i, j] = np.floor(share * full + 0.5)


def _exposed(plane: WaferPlane, corner: tuple[int, int], light: Array) -> Array:
    """Return the image ``(h, w)`` of blurred light."""
    look = plane.look
    grain = np.zeros(light.shape, np.float32)
    seed = np.uint64(plane.seed & 0xFFFFFFFFFFFFFFFF)
    if look.texture:
        for n, scale, share in ((1, GRAINS_PX[0], 0.7), (2, GRAINS_PX[1], 0.3)):
            weight = look.texture * share * _GRAIN_SCALE
            _add_grain(np.uint64(_key(seed, n)), scale, weight, corner, grain)
    out = np.empty(light.shape, plane.dtype)
    camera = (look.noise, look.unevenness, float(np.iinfo(plane.dtype).max))
    _expose(np.uint64(_key(seed, 3)), corner, plane.size, camera, light, grain, out)
    return out
