"""Decoders of the strips and tiles of a TIFF page: tifffile's, made strict, and Aperio's own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.images.jpeg_stream import check_jpeg
from domainseg.records import Array

AnyPage = tifffile.TiffPage | tifffile.TiffFrame
Decode = Callable[[bytes, int], Array]
"""From the bytes of a segment and its index to ``(h, w, samples)`` in native byte order."""

Verify = Callable[[bytes], None]
"""Raises one of ``files.DAMAGE`` for the bytes of a segment that is not whole."""

COMPRESSION = tifffile.COMPRESSION
JPEG = (COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY, COMPRESSION.ALT_JPEG)
TABLED = (COMPRESSION.OJPEG, *JPEG)
"""Compressions whose segments share tables that stand beside them."""
JPEG_2000 = (
    COMPRESSION.JPEG2000,
    COMPRESSION.APERIO_JP2000_YCBC,
    COMPRESSION.JPEG_2000_LOSSY,
    COMPRESSION.APERIO_JP2000_RGB,
)


def check_codec(path: Path, frame: tifffile.TiffPage) -> None:
    """Refuse a page whose samples would not come out as grey, RGB or what the file says.

    Raises:
        InputError: when the compression, or YCbCr in it, cannot be decoded here.
    """
    kind = frame.compression
    name = getattr(kind, "name", kind)
    try:
        known = kind == COMPRESSION.NONE or tifffile.TIFF.DECOMPRESSORS[kind] is not None
    except KeyError:
        known = False
    if not known:
        raise _refused(path, f"compression {name}")
    if frame.photometric != tifffile.PHOTOMETRIC.YCBCR:
        return
    if frame.planarconfig != tifffile.PLANARCONFIG.CONTIG:
        raise _refused(path, "YCbCr samples in separate planes")
    if kind not in (*TABLED, *JPEG_2000):
        raise _refused(path, f"YCbCr samples in compression {name}")
    if kind in JPEG_2000 and (frame.samplesperpixel, frame.bitspersample) != (3, 8):
        raise _refused(path, f"{frame.samplesperpixel} YCbCr samples of {frame.bitspersample} bits")


def decoder_of(page: AnyPage, frame: tifffile.TiffPage) -> Decode:
    """Return the decoder of ``page``, whose layout is that of its key frame ``frame``.

    It raises one of ``files.DAMAGE`` for bytes that are not a whole segment.
    """
    kind = frame.compression
    ycbcr = frame.photometric == tifffile.PHOTOMETRIC.YCBCR
    if kind == COMPRESSION.APERIO_JP2000_YCBC or (ycbcr and kind in JPEG_2000):
        return _decode_ycbcr_jpeg2000
    if kind in TABLED:
        return _jpeg_decoder(page, frame)
    decode = frame.decode

    def decode_segment(data: bytes, index: int) -> Array:
        values: Array = np.asarray(decode(data, index)[0])[0]
        return values

    return decode_segment


def verifier_of(page: AnyPage, frame: tifffile.TiffPage) -> Verify | None:
    """Return what tells whether a segment of ``page`` is whole without decoding it, or None.

    Only JPEG needs it: every other decoder refuses what is not whole. With a header of its own
    (NDPI) a JPEG segment is a part of a scan, without an end to look for.
    """
    if frame.compression not in JPEG or frame.jpegheader is not None:
        return None
    return partial(check_jpeg, tables=page.jpegtables)


def _jpeg_decoder(page: AnyPage, frame: tifffile.TiffPage) -> Decode:
    decode, tables, header = frame.decode, page.jpegtables, frame.jpegheader
    verify = verifier_of(page, frame)

    def decode_segment(data: bytes, index: int) -> Array:
        if verify is not None:
            verify(data)
        values = np.asarray(decode(data, index, jpegtables=tables, jpegheader=header)[0])
        part: Array = values[0]
        return part

    return decode_segment


def _decode_ycbcr_jpeg2000(data: bytes, _index: int) -> Array:
    """Return RGB of a JPEG 2000 code stream in YCbCr that does not say so (Aperio 33003).

    The library takes subsampled components for YCbCr, as only they are subsampled, and
    converts them; components of one size it leaves.
    """
    values = np.asarray(imagecodecs.jpeg2k_decode(data))
    return values if _is_subsampled(data) else rgb_of_ycbcr(values)


def rgb_of_ycbcr(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 ``(..., 3)`` YCbCr of full range as RGB (ITU-T T.871)."""
    y, blue, red = np.moveaxis(values.astype(np.float32), -1, 0)
    blue -= 128
    red -= 128
    colours = (y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue)
    return np.asarray(np.clip(np.rint(np.stack(colours, axis=-1)), 0, 255), np.uint8)


def _is_subsampled(stream: bytes) -> bool:
    """Tell whether components of a JPEG 2000 code stream have sizes of their own.

    Their steps stand in the SIZ segment, which comes first (ITU-T T.800, A.5.1).
    """
    if not stream.startswith(b"\xff\x4f\xff\x51"):
        return False
    (count,) = struct.unpack_from(">H", stream, 40)
    return any(step != 1 for i in range(count) for step in stream[43 + 3 * i : 45 + 3 * i])


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        sentence(
            path,
            found=found,
            wanted="strips or tiles of a common compression (none, LZW, Deflate, Zstd, JPEG, "
            "JPEG 2000) in grey or RGB",
            fix="export it again",
        )
    )
