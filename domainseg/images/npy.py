"""NumPy ``.npy`` files: mapped for the length of one read, so that memory stays small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from domainseg.errors import InputError, sentence
from domainseg.images.files import Location, refusing_damage
from domainseg.images.image import Box, Header, Image
from domainseg.images.select import pick_flat
from domainseg.records import Array

_COLOURS = ("red", "green", "blue", "alpha")


def open_npy(path: Path, select: Mapping[str, object], *, skip_damaged: bool = False) -> Image:
    """Return the array of a ``.npy`` file as an Image of one level without a pixel size.

    ``skip_damaged`` changes nothing: a file of another size than its header says is refused.

    ``(H, W)`` is one grey channel. Of three axes, the channels are the first where it is
    shorter than both others, and the last where that is shorter than both others and at most
    4 long (RGB, RGBA as Pillow and OpenCV hold them); anything else is refused.

    Raises:
        InputError: when the file is damaged, its shape or dtype cannot be an image, or
            ``select`` does not fit.
    """
    array = mapped_array(path)
    names, channels_last = _layout(path, array.shape)
    dtype = image_dtype(path, array.dtype)
    picked = pick_flat(path, names, select)
    height, width = array.shape[:2] if channels_last else array.shape[-2:]
    return Image(
        Header(
            path=path,
            format="NumPy",
            dtype=dtype,
            channels=tuple(names[i] for i in picked),
            sizes=((int(height), int(width)),),
        ),
        NpyReader(path, dtype, picked, channels_last, int(width)),
        reopen=partial(open_npy, path, select, skip_damaged=skip_damaged),
    )


def mapped_array(path: Path) -> Array:
    """Return the array of the file as a read-only map of it.

    Raises:
        InputError: when the file is cut, is no ``.npy``, or holds pickled objects.
    """
    with refusing_damage(path, "NumPy .npy"):
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))


def image_dtype(path: Location, dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Return the native dtype pixels are read as: uint8 for bool, else the same.

    Raises:
        InputError: when it is no real number.
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "uif":
        return dtype.newbyteorder("=")
    raise InputError(
        sentence(
            path,
            found=f"{dtype} pixels",
            wanted="integers or real numbers",
            fix="save the magnitude or another real quantity",
        )
    )


@dataclass(frozen=True, slots=True)
class NpyReader:
    """Regions of a ``.npy`` file; nothing stays open between reads."""

    path: Path
    dtype: np.dtype[np.generic]
    picked: tuple[int, ...]
    channels_last: bool
    width: int

    def read(self, level: int, box: Box) -> Array:
        """Return a copy of the region in native byte order."""
        array = mapped_array(self.path)
        planes = array[None] if array.ndim == 2 else array
        if self.channels_last:
            planes = np.moveaxis(planes, -1, 0)
        region = planes[:, box[1], box[2]][list(self.picked[box[0]])]
        return np.array(region, self.dtype, order="C", subok=False)

    def segment(self, level: int) -> tuple[int, int]:
        """Return one row: nothing is decoded."""
        return (1, self.width)

    def close(self) -> None:
        """Nothing is held."""


def _layout(path: Path, shape: tuple[int, ...]) -> tuple[tuple[str, ...], bool]:
    """Return channel names and whether the channel axis is the last."""
    if len(shape) == 2 and min(shape) > 0:
        return ("grey",), False
    if len(shape) == 3 and min(shape) > 0:
        if shape[0] < min(shape[1:]):
            names = tuple(f"c{i}" for i in range(shape[0]))
            return (("grey",) if shape[0] == 1 else names), False
        if shape[2] < min(shape[:2]) and shape[2] in (1, 3, 4):
            return (("grey",) if shape[2] == 1 else _COLOURS[: shape[2]]), True
    raise InputError(
        sentence(
            path,
            found=f"an array of shape {tuple(shape)}",
            wanted="(H, W), (C, H, W) with C the shortest axis, or (H, W, 3) or (H, W, 4)",
            fix="save one plane with its channels first",
        )
    )
