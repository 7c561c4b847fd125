"""Writes frames as pandas 0.13 to 0.18 on Python 2 pickled them: protocol 2, byte strings.

Nothing of pandas is needed: names are written as text. Also writes pickles that call what
they should not.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Name:
    """A class or function by module and name."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Made:
    """What a call, or a class without a call, returns, then given a state."""

    maker: Name
    arguments: tuple[Any, ...] | None
    state: Any = None


NDARRAY = Name("numpy", "ndarray")
RECONSTRUCT = Name("numpy.core.multiarray", "_reconstruct")


class Writer:
    """Writes one pickle; every string, container and object is put into the memo."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.memo: dict[Any, int] = {}
        self.count = 0
        self.types: dict[str, Made] = {}
        self.arrays: dict[int, tuple[NDArray[Any], Made]] = {}

    def dump(self, value: Any) -> bytes:
        """Return the pickle of a value."""
        self.save(value)
        return bytes(self.out + b".")

    def put(self, key: Any = None) -> None:
        if key is not None:
            self.memo[key] = self.count
        short = self.count < 256
        self.out += b"q" + bytes([self.count]) if short else b"r" + struct.pack("<I", self.count)
        self.count += 1

    def get(self, key: Any) -> bool:
        if (place := self.memo.get(key)) is None:
            return False
        self.out += b"h" + bytes([place]) if place < 256 else b"j" + struct.pack("<I", place)
        return True

    def save(self, value: Any) -> None:
        if value is None or isinstance(value, bool):
            self.out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            short = b"K" + bytes([value]) if 0 <= value < 256 else None
            self.out += short or b"\x8a\x08" + struct.pack("<q", value)
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str | bytes):
            self.text(value if isinstance(value, bytes) else value.encode("latin-1"))
        elif isinstance(value, np.ndarray):
            self.save(self.array(value))
        else:
            self.compound(value)

    def text(self, raw: bytes) -> None:
        short = len(raw) < 256
        self.out += b"U" + bytes([len(raw)]) if short else b"T" + struct.pack("<i", len(raw))
        self.out += raw
        self.put()

    def compound(self, value: Any) -> None:
        if isinstance(value, Name):
            if not self.get(value):
                self.out += b"c%s\n%s\n" % (value.module.encode(), value.name.encode())
                self.put(value)
        elif isinstance(value, Made):
            self.made(value)
        elif isinstance(value, tuple) and not value:
            self.out += b")"
        elif isinstance(value, dict):
            self.out += b"}"
            self.put()
            self.out += b"("
            for pair in value.items():
                for part in pair:
                    self.save(part)
            self.out += b"u"
        else:
            listed = isinstance(value, list)
            if listed:
                self.out += b"]"
                self.put()
            self.out += b"("
            for part in value:
                self.save(part)
            self.out += b"e" if listed else b"t"
            if not listed:
                self.put()

    def made(self, value: Made) -> None:
        if self.get(id(value)):
            return
        self.save(value.maker)
        self.save(value.arguments or ())
        self.out += b"\x81" if value.arguments is None else b"R"
        self.put(id(value))
        if value.state is not None:
            self.save(value.state)
            self.out += b"b"

    def array(self, values: NDArray[Any]) -> Made:
        """Return what makes an array; its state is text, or the list of its objects."""
        # An array that stands in two places is written once, and referred to.
        if id(values) in self.arrays:
            return self.arrays[id(values)][1]
        is_object, kind = values.dtype == object, values.dtype
        code = "O8" if is_object else kind.str[1:]
        if code not in self.types:
            order = "|" if is_object else kind.str[0]
            sizes = (kind.itemsize, kind.alignment) if kind.kind in "SU" else (-1, -1)
            of_type = (3, order, None, None, None, *sizes, 63 if is_object else 0)
            self.types[code] = Made(Name("numpy", "dtype"), (code, 0, 1), of_type)
        by_columns = values.flags.f_contiguous and not values.flags.c_contiguous
        raw = values.ravel().tolist() if is_object else values.tobytes("A")
        state = (1, values.shape, self.types[code], bool(by_columns), raw)
        made = Made(RECONSTRUCT, (NDARRAY, (0,), "b"), state)
        # Both are kept, so that no other object gets the id of one.
        self.arrays[id(values)] = values, made
        return made


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return an array ``(1, N)`` of objects, arrays among them."""
    out = np.empty((1, len(values)), object)
    for place, value in enumerate(values):
        out[0, place] = value
    return out


Layout = Literal["0.13", "0.16", "0.18"]


def legacy_frame(columns: Mapping[str, Sequence[Any]], layout: Layout = "0.18") -> bytes:
    """Return the pickle of a frame: floats in one block, objects in another.

    ``0.18`` names ``pandas.indexes``, ``0.16`` ``pandas.core.index``, both with the state
    of 0.14.1; ``0.13`` has blocks with their items and an index that is an array.
    """
    floats = [k for k, v in columns.items() if all(isinstance(one, float) for one in v)]
    others = [k for k in columns if k not in floats]
    names, rows = list(columns), len(next(iter(columns.values())))
    blocks = [
        (np.concatenate([objects(columns[name]) for name in others]), others),
        (np.array([columns[name] for name in floats], float), floats),
    ]
    blocks = [(values, held) for values, held in blocks if held]
    axes = [_index(names, layout), _range(rows, layout)]
    state: tuple[Any, ...] = (
        axes,
        [values for values, _ in blocks],
        [_index(held, layout) for _, held in blocks],
    )
    if layout != "0.13":
        places = [np.array([names.index(name) for name in held]) for _, held in blocks]
        kept: list[dict[str, Any]] = [
            {"values": values, "mgr_locs": _slice(place) if len(place) == 2 else place}
            for (values, _), place in zip(blocks, places, strict=True)
        ]
        state = (*state, {"0.14.1": {"axes": axes, "blocks": kept}})
    manager = Made(Name("pandas.core.internals", "BlockManager"), None, state)
    said = {"_metadata": [], "_typ": "dataframe", "_data": manager}
    return Writer().dump(Made(Name("pandas.core.frame", "DataFrame"), None, said))


def _slice(places: NDArray[Any]) -> Made:
    first, second = places.tolist()
    step = second - first
    return Made(Name("__builtin__", "slice"), (first, second + 1, step))


def _index(names: Sequence[str], layout: Layout) -> Made:
    home = "pandas.indexes.base" if layout == "0.18" else "pandas.core.index"
    data = objects(names)[0]
    if layout == "0.13":
        own = Writer().array(data).state
        return Made(RECONSTRUCT, (Name(home, "Index"), (0,), "b"), (own, (None,)))
    said = {"data": data, "name": None}
    return Made(Name(home, "_new_Index"), (Name(home, "Index"), said))


def _range(rows: int, layout: Layout) -> Made:
    if layout == "0.18":
        home, said = "pandas.indexes.range", {"start": 0, "stop": rows, "step": 1, "name": None}
        maker = Name("pandas.indexes.base", "_new_Index")
        return Made(maker, (Name(home, "RangeIndex"), said))
    numbers = Name("pandas.core.index", "Int64Index")
    if layout == "0.13":
        own = Writer().array(np.arange(rows)).state
        return Made(RECONSTRUCT, (numbers, (0,), "b"), (own, (None,)))
    numbered = {"data": np.arange(rows), "name": None}
    return Made(Name("pandas.core.index", "_new_Index"), (numbers, numbered))
