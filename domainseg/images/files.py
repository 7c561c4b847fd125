"""What every format asks of a file before it reads one: that it is there, whole and finite."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from domainseg.errors import DomainsegError, InputError, MissingInputError, sentence
from domainseg.records import Array

Location = Path | str
"""Where an image lies: a path, or a URL as text."""

# What decoders raise on damaged bytes: Pillow SyntaxError and OSError, tifffile ValueError
# and struct.error, imagecodecs RuntimeError, zlib its own, and lookups and sums over
# nonsense headers.
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
)


def location_of(path: str | os.PathLike[str]) -> Location:
    """Return the URL as it is, or a path; ``file:`` URLs are paths.

    A scheme has two letters or more: one letter is a drive.
    """
    text = os.fspath(path)
    if isinstance(path, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        url = urlsplit(text)
        return Path(url2pathname(url.path)) if url.scheme.lower() == "file" else text
    return Path(text)


def existing_file(path: Path) -> Path:
    """Return ``path`` if it is a file with something in it.

    Raises:
        MissingInputError: when nothing is there, or the file has no bytes.
        InputError: when it is a folder, or may not be read.
    """
    if path.is_dir():
        raise InputError(
            sentence(path, found="a folder", wanted="an image file", fix="name a file inside it")
        )
    if not path.exists():
        raise MissingInputError(
            sentence(path, found="nothing", wanted="an image file", fix="check the path")
        )
    if path.stat().st_size == 0:
        raise MissingInputError(
            sentence(
                path,
                found="an empty file (0 bytes)",
                wanted="an image",
                fix="export or copy it again",
            )
        )
    if not os.access(path, os.R_OK):
        raise InputError(
            sentence(
                path,
                found="a file that may not be read",
                wanted="read permission",
                fix="change its permission",
            )
        )
    return path


@contextmanager
def reading(path: Path) -> Iterator[int]:
    """Yield the size in bytes of a file that is read inside the block.

    Raises:
        MissingInputError: when the file is gone or empty.
        InputError: when the system cannot read it.
    """
    size = existing_file(path).stat().st_size
    with naming_system_errors(path):
        yield size


@contextmanager
def naming_system_errors(path: Path) -> Iterator[None]:
    """Turn what the system raises inside the block into one InputError naming ``path``.

    A disk that fails, or a file that went away, is no damage of the image: it must not be
    taken for a tile that can be left out.
    """
    try:
        yield
    except DomainsegError:
        raise
    except OSError as error:
        raise InputError(
            sentence(
                path,
                found=f"an error of the system ({error.strerror or type(error).__name__})",
                wanted="a file that can be read",
                fix="check the disk or the network share it lies on",
            )
        ) from error


@contextmanager
def refusing_damage(path: Location, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises inside the block into one InputError naming ``path``.

    The decoder's own exception stays attached as the cause.
    """
    try:
        yield
    except DomainsegError:
        raise
    except DAMAGE as error:
        raise damaged(path, kind) from error


def damaged(path: Location, kind: str) -> InputError:
    """Return the error for bytes that are not a complete ``kind`` file."""
    return InputError(
        sentence(
            path,
            found=f"a truncated or corrupt {kind} file",
            wanted=f"a complete {kind} file",
            fix="export, copy or download it again",
        )
    )


def check_finite(path: Location, region: Array, *, origin: tuple[int, int, int]) -> None:
    """Refuse NaN and infinite pixels of ``region`` ``(C, h, w)``, read at ``origin`` (c, y, x).

    One such pixel spreads through every convolution, percentile and sum that meets it.

    Raises:
        InputError: naming the file, how many of the values read, and where the first lies.
    """
    if region.dtype.kind != "f":
        return
    finite = np.isfinite(region)
    if finite.all():
        return
    channel, y, x = np.unravel_index(int(np.argmin(finite)), region.shape)
    first = (int(channel) + origin[0], int(y) + origin[1], int(x) + origin[2])
    raise InputError(
        sentence(
            path,
            found=f"{np.count_nonzero(~finite)} NaN or infinite of {region.size} values read, "
            f"the first at channel {first[0]}, y {first[1]}, x {first[2]}",
            wanted="finite pixels",
            fix="replace them before segmenting, for example with numpy.nan_to_num",
        )
    )
