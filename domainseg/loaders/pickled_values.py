"""What arrays, dtypes and text of a pickle stand for: inert, read on demand.

Each class holds what the pickle said and computes nothing until it is asked; so a value
that nobody asks for costs no more than its bytes. Each has a ``__setstate__``: without one
a pickle could set attributes of the class itself.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.loaders.npz import valid_text

_CODE = re.compile(r"[biufOSU][0-9]{1,6}")
_WIDTHS = {"string": 4, "utf8": 4, "large_string": 8, "large_utf8": 8}
"""Bytes of an offset, by what Arrow calls its types of text."""


class PickledType:
    """Stands for ``numpy.dtype``: booleans, numbers, text, bytes or objects, and no records.

    Attributes:
        dtype: of numpy.
    """

    __slots__ = ("_code", "dtype")

    def __init__(self, code: str, *_: Any) -> None:
        if not _CODE.fullmatch(code):
            raise TypeError
        self._code = code
        self.dtype: np.dtype[Any] = np.dtype(object if code[0] == "O" else code)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise TypeError
        if self.dtype.kind != "O":
            self.dtype = np.dtype(order + self._code)


class PickledArray:
    """Stands for ``numpy.ndarray``.

    Attributes:
        shape: of the array.
        type: of a value.
        by_columns: whether its bytes are in Fortran order.
        raw: its bytes, or latin-1 text of them; the list of its objects.
    """

    __slots__ = ("by_columns", "raw", "shape", "type")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.type = PickledType("f8")
        self.by_columns = False
        self.raw: bytes | str | list[Any] = b""

    def __setstate__(self, state: Any) -> None:
        # An index of pandas before 0.15 was an array, with a state of its own behind.
        if len(state) == 2:
            state = state[0]
        _, shape, kind, by_columns, raw = state
        if not isinstance(kind, PickledType) or not isinstance(raw, bytes | str | list):
            raise TypeError
        objects = kind.dtype.kind == "O"
        size = math.prod(shape) * (1 if objects else kind.dtype.itemsize)
        if isinstance(raw, list) != objects or len(raw) != size or min(shape, default=0) < 0:
            raise ValueError
        self.shape, self.type, self.by_columns, self.raw = tuple(shape), kind, by_columns, raw

    def array(self) -> NDArray[Any]:
        """Return the numpy array, in its own bytes where they are bytes."""
        if isinstance(self.raw, list):
            # Objects are listed row by row whatever the order.
            out = np.empty(len(self.raw), object)
            out[:] = self.raw
            return out.reshape(self.shape)
        flat = np.frombuffer(as_bytes(self.raw), self.type.dtype)
        return flat.reshape(self.shape, order="F" if self.by_columns else "C")

    def items(self) -> list[Any] | NDArray[Any]:
        """Return all values row by row: a list of objects or of text, an array of numbers."""
        if isinstance(self.raw, list):
            return self.raw
        flat = self.array().reshape(-1)
        if flat.dtype.kind == "S":
            return [value.decode("latin-1") for value in flat.tolist()]
        return valid_text(flat).tolist() if flat.dtype.kind == "U" else flat


class PickledText:
    """Stands for a column of text of its own type, in Arrow's layout or an array's."""

    __slots__ = ("_values",)

    def __init__(self, values: list[str | None] | None = None) -> None:
        self._values: Any = values

    def __setstate__(self, state: Any) -> None:
        parts = state.values() if isinstance(state, dict) else state
        inner = [part for part in parts if isinstance(part, PickledArray | PickledText)]
        (self._values,) = inner

    def items(self) -> list[Any]:
        """Return the text of each row, None where there is none."""
        values = self._values
        if isinstance(values, PickledArray | PickledText):
            values = values.items()
        return list(values)

    @classmethod
    def of_arrow(cls, state: Any) -> PickledText:
        """Return an Arrow array of text: ends of each in ``buffers[1]``, UTF-8 in the next."""
        alias, length, _, offset, buffers = state[:5]
        validity, ends, text = buffers
        width = _WIDTHS[alias]
        limits = np.frombuffer(ends, f"<i{width}")[offset : offset + length + 1].tolist()
        if len(limits) != length + 1 or any(b < a for a, b in pairwise(limits)):
            raise ValueError
        pieces: list[str | None] = [bytes(text[a:b]).decode() for a, b in pairwise(limits)]
        if validity is not None:
            bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
            valid = bits[offset : offset + length].tolist()
            pieces = [piece if ok else None for piece, ok in zip(pieces, valid, strict=True)]
        return cls(pieces)

    @classmethod
    def of_chunks(cls, chunks: Any, *_: Any) -> PickledText:
        """Return the text of several such arrays, one after another."""
        return cls([item for chunk in chunks for item in chunk.items()])


def latin1(text: str, encoding: str) -> str:
    """Return text that stands for its latin-1 bytes as it is: `as_bytes` encodes it."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError
    return text


def as_bytes(source: Any = b"", *_: Any) -> bytes:
    """Return the bytes that bytes, or text of Python 2, stand for."""
    if isinstance(source, str):
        return source.encode("latin-1")
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray):
        return bytes(source)
    raise TypeError


def reconstruct(*_: Any) -> PickledArray:
    """Return an array that waits for its state."""
    return PickledArray()


def frombuffer(buffer: Any, kind: PickledType, shape: Any, order: str) -> PickledArray:
    """Return an array of protocol 5."""
    array = PickledArray()
    array.__setstate__((1, shape, kind, order == "F", as_bytes(buffer)))
    return array


def scalar(kind: PickledType, raw: Any) -> Any:
    """Return a numpy scalar as a plain value."""
    array = PickledArray()
    array.__setstate__((1, (1,), kind, False, as_bytes(raw)))
    (value,) = array.items()
    return value.item() if isinstance(value, np.generic) else value
