"""PNG, JPEG and BMP: decoded whole on the first read.

Pixels come as they are stored: an EXIF orientation is not applied, because masks and
annotations belong to the stored rows. Bilevel images give uint8 0 and 1, palette images
their colours (label images their indices, see ``stored_values``).
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin

from domainseg.errors import InputError, sentence
from domainseg.images.files import damaged, refusing_damage
from domainseg.images.image import Box, Header, Image
from domainseg.images.pixel_size import spacing_from_resolution
from domainseg.images.select import pick_flat
from domainseg.records import Array

MAX_PIXELS = 1 << 30
"""Largest image decoded whole; a header that claims more is refused before memory is taken."""

CHANNELS = {
    "1": ("grey",),
    "L": ("grey",),
    "LA": ("grey", "alpha"),
    "I;16": ("grey",),
    "I": ("grey",),
    "RGB": ("red", "green", "blue"),
    "RGBA": ("red", "green", "blue", "alpha"),
}
DTYPES: dict[str, type[np.generic]] = {"I;16": np.uint16, "I": np.int32}
_PNG_COLOUR_MODES = {2: "RGB", 4: "LA", 6: "RGBA"}


@dataclass(frozen=True, slots=True)
class RasterHeader:
    """What a PNG, JPEG or BMP says before its pixels.

    Attributes:
        format: "PNG", "JPEG" or "BMP", by the first bytes and not by the file's name.
        mode: Pillow's mode; the mode after palette look-up for palette images.
        size: ``(H, W)``.
        bits: bits per sample.
        palette: whether the stored samples are palette indices.
        dpi: ``(x, y)`` dots per inch, or None.
    """

    format: str
    mode: str
    size: tuple[int, int]
    bits: int
    palette: bool
    dpi: tuple[float, float] | None

    @property
    def deep_colour(self) -> bool:
        """Whether Pillow would cut the samples to 8 bits: 16-bit PNG of several samples."""
        return self.bits == 16 and self.mode in _PNG_COLOUR_MODES.values()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return np.dtype(np.uint16 if self.deep_colour else DTYPES.get(self.mode, np.uint8))


def open_raster(path: Path, select: Mapping[str, object], *, skip_damaged: bool = False) -> Image:
    """Return the PNG, JPEG or BMP file as an Image of one level.

    ``skip_damaged`` changes nothing: it is decoded whole, and refused where it is damaged.

    The pixel size is that of the resolution tag where it cannot be a printer's (see
    ``pixel_size.PRINT_DPI``), else None.

    Raises:
        InputError: when the file is damaged, animated, above MAX_PIXELS or of a colour
            space without channels of its own (CMYK), or ``select`` does not fit.
    """
    header = read_header(path)
    names = CHANNELS[header.mode]
    picked = pick_flat(path, names, select)
    spacing = None
    if header.dpi is not None:
        spacing = spacing_from_resolution(header.dpi[1], header.dpi[0], "inch")
    return Image(
        Header(
            path=path,
            format=header.format,
            dtype=header.dtype,
            channels=tuple(names[i] for i in picked),
            sizes=(header.size,),
            spacing_um=spacing,
        ),
        RasterReader(path, header, picked),
        reopen=partial(open_raster, path, select, skip_damaged=skip_damaged),
    )


def stored_values(path: Path) -> Array:
    """Return the samples as stored, ``(H, W)`` or ``(H, W, samples)``: what a label image holds.

    Palette images give their indices; samples of 1, 2 and 4 bits are not stretched to 8.

    Raises:
        InputError: when the file is damaged.
    """
    header = read_header(path)
    if header.deep_colour:
        return _decode(path, header)
    with refusing_damage(path, header.format), path.open("rb") as file:
        values = np.asarray(_pillow(path, file))
    if values.dtype == bool:
        return values.astype(np.uint8)
    if header.bits < 8 and not header.palette:
        return np.asarray(values // (255 // ((1 << header.bits) - 1)))
    return values


class RasterReader:
    """Regions of an image that is decoded whole and kept until it is closed."""

    def __init__(self, path: Path, header: RasterHeader, picked: tuple[int, ...]) -> None:
        self._path = path
        self._header = header
        self._picked = picked
        self._lock = threading.Lock()
        self._pixels: Array | None = None

    def read(self, level: int, box: Box) -> Array:
        """Return a copy of the region."""
        with self._lock:
            if self._pixels is None:
                pixels = _decode(self._path, self._header)
                planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
                self._pixels = planes[list(self._picked)]
            return np.array(self._pixels[box], order="C")

    def segment(self, level: int) -> tuple[int, int]:
        """Return the size of the image, which is decoded whole."""
        return self._header.size

    def close(self) -> None:
        """Let the decoded pixels go."""
        with self._lock:
            self._pixels = None


def read_header(path: Path) -> RasterHeader:
    """Return what the file says before its pixels.

    Raises:
        InputError: when it is damaged, is no PNG, JPEG or BMP, or cannot be an image here.
    """
    with refusing_damage(path, "PNG, JPEG or BMP"), path.open("rb") as file:
        with _pillow(path, file) as image:
            mode, size, dpi = image.mode, (image.height, image.width), image.info.get("dpi")
            palette = mode == "P"
            if palette:
                mode = "RGBA" if "transparency" in image.info else "RGB"
            kind = str(image.format)
        bits = 8
        if kind == "PNG":
            bits, colour, animated = _walk_png(path, file)
            mode = _PNG_COLOUR_MODES.get(colour, mode)
            if animated:
                raise _refused(path, "an animated PNG", "save the frame you mean as its own file")
    if mode not in CHANNELS:
        raise _refused(path, f"{mode} pixels", "convert the image to RGB or grey")
    if size[0] * size[1] > MAX_PIXELS:
        raise _refused(
            path,
            f"{size[0] * size[1]} pixels in a {kind}, which is decoded whole "
            f"(at most {MAX_PIXELS})",
            "convert it to a tiled TIFF, which is read by region",
        )
    return RasterHeader(kind, mode, size, bits, palette, _dpi(dpi))


def _refused(path: Path, found: str, fix: str) -> InputError:
    return InputError(sentence(path, found=found, wanted="a grey, RGB or RGBA image", fix=fix))


def _dpi(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    return (float(value[0]), float(value[1]))


def _pillow(path: Path, file: BinaryIO) -> ImageFile.ImageFile:
    """Return Pillow's image of an open file, its format found by the first bytes.

    The plug-ins are called directly: ``PIL.Image.open`` warns above 89 Mpx and fails above
    179 Mpx, which are ordinary sizes here.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(file)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(file)
    if start.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(file)
    raise damaged(path, "PNG, JPEG or BMP")


def _walk_png(path: Path, file: BinaryIO) -> tuple[int, int, bool]:
    """Return bit depth, colour type and whether the PNG is animated; its chunks are walked.

    Pillow reads the pixels of a PNG whose end is missing without a word when the cut lies
    behind the last compressed byte; the missing end chunk shows it.
    """
    file.seek(8)
    bits = colour = 0
    animated = False
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise damaged(path, "PNG")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return bits, colour, animated
        body = file.read(length) if kind == b"IHDR" else b""
        if kind == b"IHDR":
            bits, colour = body[8], body[9]
        animated = animated or kind == b"acTL"
        file.seek(length - len(body) + 4, io.SEEK_CUR)


def _decode(path: Path, header: RasterHeader) -> Array:
    """Return the pixels ``(H, W)`` or ``(H, W, C)``."""
    with refusing_damage(path, header.format), path.open("rb") as file:
        if header.deep_colour:
            return np.asarray(imagecodecs.png_decode(file.read()))
        image = _pillow(path, file)
        pixels = np.asarray(image.convert(header.mode) if header.palette else image)
    return pixels.astype(header.dtype, copy=False)
