"""A pickled pandas frame read without pandas, and without running anything it names.

A pickle is a program: it calls what it names. Here every name it may use is one of a short
list, each stands for an inert object of this file or of ``pickled_values``, and no other is
looked up. Numpy's own reconstructors are not called either: a forged dtype state can make
them take bytes for addresses. Layouts understood: those pandas has written from 0.14
(Python 2, protocol 2) to 3, with columns of numbers, objects and text.

What is not kept from a forged file is to ask for more memory than there is.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.loaders.folder import some
from domainseg.loaders.pickled_values import (
    PickledArray,
    PickledText,
    PickledType,
    as_bytes,
    frombuffer,
    latin1,
    reconstruct,
    scalar,
)

Column = list[Any] | NDArray[Any]
"""Numbers, or one object per row: text, None, a float, or a `PickledArray`."""
DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a truncated or forged pickle makes the unpickler and the stand-ins raise."""


def read_frame(path: Path) -> dict[str, Column]:
    """Return the columns of the pickled frame ``path`` by name, all of one length.

    Text of Python 2 is read as latin-1.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when it is no pickle of a frame, is truncated, or names anything that a
            frame of arrays, numbers and text does not need.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a pickled frame", fix="check the path")
        )
    with damage_named(path):
        with path.open("rb") as file:
            loaded = _Unpickler(path, file).load()
        if not isinstance(loaded, _Frame):
            raise TypeError
        return _columns(loaded.manager)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what a forged or truncated pickle, or what it holds, raises into one sentence."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            sentence(
                path,
                found=f"no pickled data frame, or a damaged one ({type(error).__name__})",
                wanted="a pandas frame as to_pickle writes it",
                fix="get the file again from its publisher",
            )
        ) from error


class _Frame:
    """Stands for ``pandas.DataFrame``; only its block manager is kept."""

    __slots__ = ("manager",)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            state = state["_mgr"] if "_mgr" in state else state["_data"]
        if not isinstance(state, _Manager):
            raise TypeError
        self.manager = state


class _Manager:
    """Stands for ``BlockManager``: the names of the columns, and blocks of some of them."""

    __slots__ = ("blocks", "names")

    def __init__(self, blocks: Any = (), axes: Any = ((),), *_: Any) -> None:
        self.names = _items(axes[0])
        self.blocks = [block for block in blocks if isinstance(block, _Block)]

    def __setstate__(self, state: Any) -> None:
        """Take the state of pandas before 1.3, or before 0.14 (three parts)."""
        if len(state) > 3 and "0.14.1" in state[3]:
            kept = state[3]["0.14.1"]
            self.names = _items(kept["axes"][0])
            self.blocks = [_Block(one["values"], one["mgr_locs"]) for one in kept["blocks"]]
            return
        axes, values, items = state[:3]
        self.names = _items(axes[0])
        self.blocks = [
            _Block(one, [self.names.index(name) for name in _items(named)])
            for one, named in zip(values, items, strict=True)
        ]


class _Block:
    """Stands for a block: values ``(columns, rows)``, and which columns they are."""

    __slots__ = ("placement", "values")

    def __init__(self, values: Any, placement: Any, *_: Any) -> None:
        self.values = values
        self.placement = placement

    def __setstate__(self, state: Any) -> None:
        raise TypeError

    def columns(self, count: int) -> Mapping[int, Column]:
        """Return the columns by their place among the ``count`` of the frame."""
        places = self.placement
        if isinstance(places, PickledArray):
            places = places.array().tolist()
        if isinstance(places, slice):
            places = range(count)[places]
        if isinstance(self.values, PickledText):
            return {places[0]: self.values.items()}
        if not isinstance(self.values, PickledArray):
            raise TypeError
        rows = self.values.shape[-1]
        if self.values.shape != (len(places), rows):
            raise ValueError
        flat = self.values.items()
        return {place: flat[i * rows : (i + 1) * rows] for i, place in enumerate(places)}


class _Index:
    """Stands for every kind of ``pandas.Index``; the names it holds, if any, are kept."""

    __slots__ = ("data",)

    def __setstate__(self, state: Any) -> None:
        self.data = state.get("data", ())


def _new_index(_: Any, state: Any) -> _Index:
    index = _Index()
    index.__setstate__(state)
    return index


def _items(values: Any) -> list[Any]:
    """Return what an index or an array of names holds."""
    if isinstance(values, _Index):
        values = values.data
    if isinstance(values, PickledArray | PickledText):
        values = values.items()
    return list(values)


def _columns(manager: _Manager) -> dict[str, Column]:
    """Return the columns of all blocks by name, each named once and of one length."""
    names = manager.names
    found: dict[str, Column] = {}
    for block in manager.blocks:
        for place, column in block.columns(len(names)).items():
            found[str(names[place])] = column
    if sorted(found) != sorted(map(str, names)) or len({len(c) for c in found.values()}) > 1:
        raise ValueError
    return found


class _Call:
    """Stands for a function that a pickle may call; it cannot be changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise TypeError


def _type_for_alias(name: str) -> str:
    return name


PANDAS_NAMES: Mapping[str, Any] = {
    "ArrowStringArray": PickledText,
    "ArrowStringArrayNumpySemantics": PickledText,
    "BlockManager": _Manager,
    "DataFrame": _Frame,
    "Float64Index": _Index,
    "Index": _Index,
    "Int64Index": _Index,
    "NA": None,
    "RangeIndex": _Index,
    "StringArray": PickledText,
    "StringArrayNumpySemantics": PickledText,
    "StringDtype": _Call(lambda *_: None),
    "UInt64Index": _Index,
    "__pyx_unpickle_NDArrayBacked": _Call(lambda *_: PickledText()),
    "_new_Index": _Call(_new_index),
    "_unpickle_block": _Call(_Block),
    "new_block": _Call(_Block),
}
"""Names of pandas, wherever a version of it keeps them, and what of ours stands for each."""

NAMES: Mapping[str, Any] = {
    "__builtin__.bytearray": _Call(as_bytes),
    "__builtin__.bytes": _Call(as_bytes),
    "__builtin__.slice": _Call(slice),
    "_codecs.encode": _Call(latin1),
    "builtins.bytearray": _Call(as_bytes),
    "builtins.bytes": _Call(as_bytes),
    "builtins.slice": _Call(slice),
    "numpy._core.multiarray._reconstruct": _Call(reconstruct),
    "numpy._core.multiarray.scalar": _Call(scalar),
    "numpy._core.numeric._frombuffer": _Call(frombuffer),
    "numpy.core.multiarray._reconstruct": _Call(reconstruct),
    "numpy.core.multiarray.scalar": _Call(scalar),
    "numpy.core.numeric._frombuffer": _Call(frombuffer),
    "numpy.dtype": PickledType,
    "numpy.ndarray": PickledArray,
    "pyarrow.lib._restore_array": _Call(PickledText.of_arrow),
    "pyarrow.lib.chunked_array": _Call(PickledText.of_chunks),
    "pyarrow.lib.py_buffer": _Call(as_bytes),
    "pyarrow.lib.type_for_alias": _Call(_type_for_alias),
}
"""The other names, in full."""


class _Unpickler(pickle.Unpickler):
    """Builds stand-ins, and refuses every name that has none."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file, encoding="latin-1")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in of a name; nothing is imported."""
        if (module == "pandas" or module.startswith("pandas.")) and name in PANDAS_NAMES:
            return PANDAS_NAMES[name]
        full = f"{module}.{name}"
        if full in NAMES:
            return NAMES[full]
        raise InputError(
            sentence(
                self._path,
                found=f"the name {full}, which opening it would import and may run",
                wanted="a pandas frame of arrays, numbers and text, which needs no such name",
                fix="get the file from its publisher, or save such columns as plain ones",
            )
        )


def column(path: Path, frame: Mapping[str, Column], *names: str) -> Column:
    """Return the first of the columns ``names`` that a frame has.

    Raises:
        InputError: when it has none.
    """
    for name in names:
        if name in frame:
            return frame[name]
    raise InputError(
        sentence(
            path,
            found=f"columns {some(frame) or 'none'}",
            wanted=f"a column {' or '.join(names)}",
            fix="use the publisher's file, or rename the column",
        )
    )
