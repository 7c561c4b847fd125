"""The lists of a large JSON object, handed on element by element.

A file as large as COCO's would take gigabytes as Python objects. Here it is decoded a block
at a time; an element lives until whoever takes it has looked at it, and the place of its
bytes in the file is told with it, so that it can be read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence

Take = Callable[[Any, int, int], None]
"""Called with an element, and with the byte it begins at and the one after its last."""


@runtime_checkable
class TakesBytes(Protocol):
    """What takes elements one by one, and where it can a run of them from their bytes."""

    def take(self, value: Any, start: int, stop: int) -> None:
        """Take an element, as `Take`."""
        ...

    def take_bytes(self, raw: NDArray[np.uint8], at: int, before: int) -> int:
        """Take elements, each with the comma behind it, and return where the next begins.

        ``raw`` are the bytes at hand, ``at`` where the next begins, and ``before`` how many
        bytes of the file lie before them. None may be taken.
        """
        ...


BLOCK_BYTES = 1 << 23
"""What is read at a time; an element that is longer takes as many blocks as it needs."""
_NEAR_BYTES = 16
"""How far before the end of a block its being cut can show as an error: less than a word
such as ``-Infinity``, a number's exponent, or an escaped character."""
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_MARK = "\xef\xbb\xbf"


def read_lists(path: Path, takers: Mapping[str, Take | TakesBytes]) -> frozenset[str]:
    """Hand on every element of the lists that ``takers`` names, and return which are there.

    The file holds one JSON object in UTF-8; its other members are passed over. ``NaN`` and
    ``Infinity`` are numbers, as for pycocotools.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when it is no JSON, naming the byte; no object, or a member that
            ``takers`` names is no list.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a COCO file", fix="check annotations")
        )
    with path.open("rb") as file:
        reading = _Reading(path, file)
        reading.begin()
        present = set()
        if reading.peek() == "}":
            reading.expect("}")
        else:
            while True:
                name = reading.value()[0]
                reading.expect(":")
                if isinstance(name, str) and name in takers:
                    present.add(name)
                    _hand_on(reading, name, takers[name])
                else:
                    reading.value()
                if not reading.goes_on("}"):
                    break
        reading.finish()
    return frozenset(present)


def state_of(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change, ns, of a file; (0, 0) without one."""
    if not path.is_file():
        return (0, 0)
    found = path.stat()
    return (found.st_size, found.st_mtime_ns)


def read_again(path: Path, spans: list[tuple[int, int]], *, state: tuple[int, int]) -> list[Any]:
    """Return the elements at these places, first byte and number of bytes, of a file.

    Raises:
        InputError: when the file is not in the ``state`` in which the places were found.
    """
    if state_of(path) != state:
        raise InputError(
            sentence(
                path,
                found="a file that has changed since it was opened",
                wanted="one that stays as it is",
                fix="begin again",
            )
        )
    found = []
    with path.open("rb") as file:
        for start, length in spans:
            file.seek(start)
            found.append(json.loads(file.read(length)))
    return found


def _hand_on(reading: _Reading, name: str, taker: Take | TakesBytes) -> None:
    """Hand on the elements of the list that follows."""
    reading.expect_list(name)
    if reading.peek() == "]":
        reading.expect("]")
        return
    runs = taker if isinstance(taker, TakesBytes) else None
    take = taker.take if isinstance(taker, TakesBytes) else taker
    while True:
        if runs is not None:
            reading.hand_on_bytes(runs)
        take(*reading.value())
        if not reading.goes_on("]"):
            return


class _Reading:
    """What of a file is in memory, and where in it the next character stands.

    The bytes are decoded as Latin-1, so that a character is a byte; the syntax of JSON is
    ASCII. An element with other characters is decoded again as the UTF-8 it is.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._raw = b""
        self._text = ""  # the same
        self._at = 0
        self._before = 0  # bytes of the file before the text

    def begin(self) -> None:
        """Go into the object."""
        self._more()
        if self._text.startswith(_MARK):
            self._at = len(_MARK)
        if self.peek() == "":
            raise self._not_coco("an empty file")
        if self.peek() == "[":
            raise self._not_coco("a list")
        self.expect("{")

    def finish(self) -> None:
        """Refuse anything after the object."""
        if character := self.peek():
            raise self._no_json(f"{character!r} after its end", self._at)

    def peek(self) -> str:
        """Return the next character that is no space, "" at the end; it is not passed."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Pass this character, or refuse another."""
        found = self.peek()
        if found != character:
            raise (
                self._broken_off()
                if not found
                else self._no_json(f"{found!r} where {character!r} belongs", self._at)
            )
        self._at += 1

    def expect_list(self, name: str) -> None:
        """Pass the bracket of the list that is the member ``name``."""
        if self.peek() not in ("[", ""):
            raise self._not_coco(f"{name} that is no list")
        self.expect("[")

    def goes_on(self, close: str) -> bool:
        """Pass a comma, or the bracket that closes, and return whether it was the comma."""
        if self.peek() == ",":
            self._at += 1
            return True
        self.expect(close)
        return False

    def value(self) -> tuple[Any, int, int]:
        """Pass a value and return it, its first byte and the one after its last."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                if self._may_be_cut(error):
                    raise self._broken_off() from error
                raise self._no_json(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self._no_json(f"a value that is too long ({error})", self._at) from error
            # A number at the end of a block may go on in the next, and "0." begin with a 0.
            near = end > len(self._text) - _NEAR_BYTES
            if not (near and isinstance(value, int | float) and self._more()):
                break
        start, self._at = self._at, end
        if not self._text.isascii():
            value = self._in_utf8(value, start, end)
        return value, self._before + start, self._before + end

    def hand_on_bytes(self, taker: TakesBytes) -> None:
        """Hand on what ``taker`` takes of the elements at hand; at least one is left."""
        self.peek()
        self._at = taker.take_bytes(np.frombuffer(self._raw, np.uint8), self._at, self._before)

    def _in_utf8(self, value: Any, start: int, end: int) -> Any:
        raw = self._text[start:end]
        if raw.isascii():
            return value
        try:
            return json.loads(raw.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._no_json("bytes that are not UTF-8", start + error.start) from error

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether an error may come of the text's end alone."""
        return error.msg.startswith("Unterminated") or (error.pos > len(self._text) - _NEAR_BYTES)

    def _more(self) -> bool:
        """Forget what was passed, read on, and return whether there was more.

        As much as is held is read, so that a long element is not begun again and again.
        """
        left = self._raw[self._at :]
        block = self._file.read(max(BLOCK_BYTES, len(left)))
        if not block:
            return False
        self._before += self._at
        self._raw, self._at = left + block, 0
        self._text = self._raw.decode("latin-1")
        return True

    def _broken_off(self) -> InputError:
        size = self._before + len(self._text)
        return InputError(
            sentence(
                self._path,
                found=f"JSON that breaks off at its end, byte {size}",
                wanted="a whole file",
                fix="copy or download it again",
            )
        )

    def _no_json(self, found: str, at: int) -> InputError:
        return InputError(
            sentence(
                self._path,
                found=f"no JSON at byte {self._before + at}: {found}",
                wanted="a COCO file",
                fix="export it again",
            )
        )

    def _not_coco(self, found: str) -> InputError:
        return InputError(
            sentence(
                self._path,
                found=found,
                wanted="an object with the lists images, annotations and categories",
                fix="name a COCO file in annotations",
            )
        )
