"""Arrays of an ``.npz`` file, checked before they are read; pickled ones are refused."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.loaders.folder import some

BLOCK_BYTES = 1 << 24
"""Read at a time where an array is narrowed, so that the wide one is never in memory."""
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
"""What zipfile and numpy raise on a file that is cut short, garbled, encrypted or no array."""
LAST_CHARACTER = 0x10FFFF
"""Of Unicode."""
BEYOND = 255
"""What a number that is no byte below this becomes in `StoredArray.read_bytes`."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array of an ``.npz`` file, of which the header alone is read.

    Attributes:
        path: of the file.
        name: of the array.
        shape: of the array.
        dtype: of the array; never of Python objects.
        by_columns: whether the first axis runs fastest (Fortran order).
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool

    def read(self) -> NDArray[Any]:
        """Return the whole array.

        Raises:
            InputError: when the file is damaged.
        """
        with _opened(self.path, self.name) as file:
            values = npy.read_array(file, allow_pickle=False)
            return valid_text(values) if self.dtype.kind == "U" else values

    def read_bytes(self) -> NDArray[np.uint8]:
        """Return an array of integers as uint8 of its shape, ``BEYOND`` for what is no byte.

        A wider array is read in blocks: memory is one byte a number.

        Raises:
            InputError: when the file is damaged.
        """
        if self.dtype == np.uint8 and not self.by_columns:
            return self.read()
        out = np.empty(self.shape, np.uint8, order="F" if self.by_columns else "C")
        flat = out.reshape(-1, order="A")
        step = max(1, BLOCK_BYTES // self.dtype.itemsize)
        with _opened(self.path, self.name) as file:
            _read_header(file)
            for start in range(0, flat.size, step):
                count = min(step, flat.size - start)
                block = np.frombuffer(file.read(count * self.dtype.itemsize), self.dtype)
                flat[start : start + count] = narrowed(block)
        return np.ascontiguousarray(out)


def narrowed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return integers as uint8, ``BEYOND`` where one is negative or ``BEYOND`` and above."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return np.where((values < 0) | (values > BEYOND), BEYOND, values).astype(np.uint8)


def valid_text(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array of text unchanged, once every character is found to be one.

    Numpy takes any 32 bits for a character, and Python gives up on what is none.

    Raises:
        ValueError: when a character is beyond the last one there is.
    """
    codes = np.frombuffer(values.tobytes(), values.dtype.byteorder.replace("|", "=") + "u4")
    if codes.max(initial=0) > LAST_CHARACTER:
        raise ValueError
    return values


def stored_arrays(path: Path, kinds: Mapping[str, str]) -> dict[str, StoredArray]:
    """Return the arrays that ``kinds`` names, whose values are the kinds of dtype allowed.

    A kind is a letter of ``numpy.dtype.kind``: ``"iu"`` allows integers.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when it is no ``.npz``, an array is missing, is pickled, is of another
            kind, or is cut short.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="an .npz of wafer maps", fix="check the path")
        )
    if not zipfile.is_zipfile(path):
        raise InputError(
            sentence(
                path,
                found="no .npz file, or a truncated one",
                wanted="a zip of numpy arrays",
                fix="download it again",
            )
        )
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        if absent := [name for name in kinds if name not in held]:
            raise InputError(
                sentence(
                    path,
                    found=f"arrays {some(held) or 'none'}",
                    wanted=f"also {', '.join(absent)}",
                    fix="use the publisher's file",
                )
            )
        return {name: _stored(archive, path, name, kinds[name]) for name in kinds}


def _stored(archive: zipfile.ZipFile, path: Path, name: str, kinds: str) -> StoredArray:
    """Return what the header of an array says, once its kind and size are found to fit."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        shape, by_columns, dtype = _read_header(file)
        left = info.file_size - file.tell()
    if dtype.hasobject:
        raise InputError(
            sentence(
                f"{path}:{name}",
                found="pickled Python objects, which can run code",
                wanted="an array of numbers or text",
                fix="save it again without objects",
            )
        )
    if dtype.kind not in kinds:
        words = {"i": "integers", "u": "integers", "b": "booleans", "U": "text"}
        raise InputError(
            sentence(
                f"{path}:{name}",
                found=f"an array of {dtype}",
                wanted=" or ".join(dict.fromkeys(words[kind] for kind in kinds)),
                fix="save it as such",
            )
        )
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if left != size:
        raise InputError(
            sentence(
                f"{path}:{name}",
                found=f"{left} bytes",
                wanted=f"{size}, as its header says",
                fix="download the file again",
            )
        )
    return StoredArray(path, name, shape, dtype, by_columns)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype; ``file`` is then at the first number."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    return npy.read_array_header_2_0(file)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    with _damage_named(path), zipfile.ZipFile(path) as archive:  # noqa: SIM117
        with archive.open(f"{name}.npy") as file:
            yield file


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what zipfile and numpy raise into one sentence."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            sentence(
                path,
                found=f"a damaged .npz ({type(error).__name__})",
                wanted="a whole file",
                fix="download it again",
            )
        ) from error
