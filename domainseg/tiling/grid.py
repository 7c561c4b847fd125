"""The tile grid: cores that partition the image, windows of one shape around them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Plane, Tile


@dataclass(frozen=True, slots=True)
class Lattice:
    """How an image is cut; it belongs to the model and is recorded with every run.

    Attributes:
        core_px: largest side of a core, a multiple of ``stride_px``.
        halo_px: context on each side of a core, a multiple of ``stride_px``.
        stride_px: coarsest stride of the network.
        batch: windows per forward pass where there are several.
    """

    core_px: int
    halo_px: int
    stride_px: int
    batch: int = 1

    def __post_init__(self) -> None:
        for name, value in (("core_px", self.core_px), ("halo_px", self.halo_px)):
            if value % self.stride_px or value < 0 or (name == "core_px" and value == 0):
                raise ValueError(
                    f"{name} is {value}, wanted a multiple of the network's stride {self.stride_px}"
                )

    def to_json(self) -> dict[str, int]:
        """Return the lattice as plain values."""
        return asdict(self)


def core_shape(shape: tuple[int, int], lattice: Lattice) -> tuple[int, int]:
    """Return the shape of the cores of an image of ``(H, W)`` pixels, multiples of the stride.

    As few cores as ``core_px`` allows, of equal size: the last of a row would else be a strip
    that costs a whole window.
    """
    stride = lattice.stride_px
    counts = (-(-length // lattice.core_px) for length in shape)
    y, x = (-(-length // (n * stride)) * stride for length, n in zip(shape, counts, strict=True))
    return y, x


def tiles(
    shape: tuple[int, int], lattice: Lattice, *, offset: tuple[int, int] = (0, 0)
) -> tuple[Tile, ...]:
    """Return the tiles of an image of ``(H, W)`` pixels, in raster order.

    Cores partition the image (`core_shape`). Where one core holds the whole image, the single
    window is the image padded to the stride; otherwise every window has the same shape, core
    + 2 halos.

    An ``offset`` ``(y, x)``, multiples of the stride below ``core_px``, moves the borders
    between cores: they lie at the offset and every ``core_px`` from there on, so the first
    cores are smaller, and an image that one core would hold may be cut. Windows are of one
    shape and start at multiples of the stride. It serves to measure what the place of the
    borders changes; results are made without it.

    Raises:
        ValueError: an offset that the windows could not keep.
    """
    height, width = shape
    stride, core, halo = lattice.stride_px, lattice.core_px, lattice.halo_px
    if any(not 0 <= start < core or start % stride for start in offset):
        raise ValueError(
            f"offset is {offset}, wanted multiples of the network's stride {stride} below {core}"
        )
    if max(height, width) <= core and offset == (0, 0):
        padded = (-(-height // stride) * stride, -(-width // stride) * stride)
        return (Tile((0, 0), padded, ((0, 0), (height, width))),)
    sides = core_shape(shape, lattice) if offset == (0, 0) else (core, core)
    rows, columns = (
        range(start - side if start else 0, length, side)
        for start, length, side in zip(offset, shape, sides, strict=True)
    )
    return tuple(
        Tile(
            origin=(y - halo, x - halo),
            shape=(sides[0] + 2 * halo, sides[1] + 2 * halo),
            core=((max(y, 0), max(x, 0)), (min(y + sides[0], height), min(x + sides[1], width))),
        )
        for y in rows
        for x in columns
    )


def reflected(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Return the image index of each of ``length`` positions from ``start`` on.

    Outside ``[0, size)`` the image is mirrored about its border pixels, as often as it takes
    (numpy's ``reflect``); an axis of one pixel repeats it.
    """
    if size == 1:
        return np.zeros(length, np.int64)
    period = 2 * (size - 1)
    position = np.arange(start, start + length) % period
    return np.minimum(position, period - position)


def read_window(plane: Plane, tile: Tile) -> NDArray[Any]:
    """Return the pixels ``(C, h, w)`` of a window, mirrored at the image's border."""
    rows = reflected(tile.origin[0], tile.shape[0], plane.shape[1])
    columns = reflected(tile.origin[1], tile.shape[1], plane.shape[2])
    y0, y1 = int(rows.min()), int(rows.max()) + 1
    x0, x1 = int(columns.min()), int(columns.max()) + 1
    region = np.asarray(plane[:, y0:y1, x0:x1])
    if (y0, x0) == tile.origin and region.shape[1:] == tile.shape:
        return region
    return np.asarray(region[:, rows - y0][:, :, columns - x0])


def covers(tile: Tile, plane: Plane) -> bool:
    """Tell whether the core of a tile is the whole plane ``(C, H, W)``."""
    return tile.core == ((0, 0), (plane.shape[1], plane.shape[2]))


def core_in_window(tile: Tile) -> tuple[slice, slice]:
    """Return where the core lies inside its own window."""
    (y0, x0), (y1, x1) = tile.core
    oy, ox = tile.origin
    return slice(y0 - oy, y1 - oy), slice(x0 - ox, x1 - ox)
