"""A result file cut into words, numbers, quoted texts and signs, each with its line.

Nothing in the file is ever run: numbers are read digit by digit, everything else is text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.instances.kernel import kernel

MOST_BYTES = 1 << 29
"""Of a result file; one with a million defects has about 1.1e8."""
WORD, NUMBER, QUOTED, END, OPEN, CLOSE, COMMA = range(7)
_LINE, _QUOTE = 10, 34
_ROOM = 900719925474099
"""A whole number below this takes one more digit and stays below 2**53."""
_POWERS = 10.0 ** np.arange(23)
"""The powers of ten that a float holds exactly."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a file consists of, one row each.

    Attributes:
        source: of the file, for messages.
        text: uint8, the bytes of the file.
        kind: uint8: WORD, NUMBER, QUOTED (without its quotes), END ``;``, and in nested files
            OPEN ``{``, CLOSE ``}``, COMMA.
        start: int64, first byte.
        stop: int64, behind the last byte.
        line: int32, from 1.
        value: float64 of a number, correctly rounded; NaN of others.
    """

    source: Path
    text: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    line: NDArray[np.int32]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)

    def word(self, index: int) -> str:
        """Return the text of a token; bytes that are no UTF-8 become U+FFFD."""
        part = self.text[self.start[index] : self.stop[index]]
        return part.tobytes().decode("utf-8", errors="replace")

    def words(self, first: int, stop: int) -> tuple[str, ...]:
        """Return the texts of the tokens from ``first`` to before ``stop``."""
        return tuple(self.word(i) for i in range(first, stop))

    def refuse(self, index: int, *, found: str, wanted: str, fix: str) -> InputError:
        """Return the error that names the line of a token; past the end, the last line."""
        line = int(self.line[min(index, len(self) - 1)]) if len(self) else 1
        return InputError(sentence(f"{self.source}:{line}", found=found, wanted=wanted, fix=fix))


def read_bytes(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a result file.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is larger than `MOST_BYTES`, or cannot be read.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a KLARF file", fix="check the path")
        )
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                sentence(
                    path,
                    found=f"{size} bytes",
                    wanted=f"at most {MOST_BYTES}",
                    fix="split the file by wafer",
                )
            )
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            sentence(
                path,
                found=f"a file that cannot be read ({error.strerror})",
                wanted="a KLARF file",
                fix="check its permissions",
            )
        ) from error


def tokens_of(source: Path, text: NDArray[np.uint8], *, nested: bool) -> Tokens:
    """Return the tokens of a file; braces and commas are signs where it is ``nested``.

    Raises:
        InputError: a quoted text does not end on its line; the line is named.
    """
    nothing = np.zeros(0, np.int64)
    none = np.zeros(0, np.uint8)
    count, unclosed = _scan(
        text, nested, False, none, nothing, nothing, np.zeros(0, np.int32), np.zeros(0), none
    )
    if unclosed:
        raise InputError(
            sentence(
                f"{source}:{unclosed}",
                found="a quote that is not closed",
                wanted='text between two " on one line',
                fix="correct the line",
            )
        )
    kind, slow = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    start, stop = np.zeros(count, np.int64), np.zeros(count, np.int64)
    line, value = np.zeros(count, np.int32), np.full(count, np.nan)
    _scan(text, nested, True, kind, start, stop, line, value, slow)
    # What has more digits than a float holds is left to the standard library.
    for i in np.flatnonzero(slow).tolist():
        value[i] = float(text[start[i] : stop[i]].tobytes())
    return Tokens(source, text, kind, start, stop, line, value)


@kernel
def _scan(
    text: Any,
    nested: bool,
    fill: bool,
    kind: Any,
    start: Any,
    stop: Any,
    line: Any,
    value: Any,
    slow: Any,
) -> Any:
    """Return the number of tokens and the line of a quote that is not closed, or 0.

    With ``fill`` the arrays are written; ``slow`` marks numbers whose value is left open.
    """
    size = len(text)
    at, row, count = 0, 1, 0
    while at < size:
        c = text[at]
        if _is_blank(c):
            row += c == _LINE
            at += 1
            continue
        first, last, exact, number = at, at + 1, True, np.nan
        what = _sign(c, nested)
        if c == _QUOTE:
            first, last = at + 1, _end_of_quote(text, at + 1)
            if last == size or text[last] == _LINE:
                return count, row
            what = QUOTED
        elif what == WORD:
            last = _end_of_word(text, at, nested)
            if fill:
                is_number, exact, number = _number(text, first, last)
                what = NUMBER if is_number else WORD
        at = last + (what == QUOTED)
        if fill:
            kind[count], start[count], stop[count] = what, first, last
            line[count], value[count], slow[count] = row, number, not exact
        count += 1
    return count, 0


@kernel
def _is_blank(c: int) -> Any:
    return c == 32 or (c >= 9 and c <= 13)


@kernel
def _sign(c: int, nested: bool) -> Any:
    """Return the kind of a sign, WORD of anything else."""
    if c == 59:
        return END
    if nested and c == 123:
        return OPEN
    if nested and c == 125:
        return CLOSE
    return COMMA if nested and c == 44 else WORD


@kernel
def _end_of_quote(text: Any, at: int) -> Any:
    while at < len(text) and text[at] != _QUOTE and text[at] != _LINE:
        at += 1
    return at


@kernel
def _end_of_word(text: Any, at: int, nested: bool) -> Any:
    while at < len(text):
        c = text[at]
        if _is_blank(c) or c == _QUOTE or _sign(c, nested) != WORD:
            break
        at += 1
    return at


@kernel
def _number(text: Any, first: int, last: int) -> Any:
    """Return whether the bytes are a decimal number, whether its value is exact, the value."""
    at, sign = _signed(text, first, last)
    mantissa, scale, digits = np.int64(0), 0, 0
    exact, point = True, False
    while at < last:
        c = text[at]
        if c == 46 and not point:
            point = True
        elif c >= 48 and c <= 57:
            digits += 1
            if mantissa < _ROOM:
                mantissa = mantissa * 10 + np.int64(c - 48)
                scale -= point
            else:
                # A zero behind the point changes nothing; any other digit is one too many.
                exact = exact and point and c == 48
        else:
            break
        at += 1
    at, power, whole = _exponent(text, at, last)
    if digits == 0 or at < last or not whole:
        return False, True, np.nan
    scale += power
    if mantissa == 0 and exact:
        return True, True, sign * 0.0
    if not exact or scale > 22 or scale < -22:
        return True, False, np.nan
    if scale >= 0:
        return True, True, sign * np.float64(mantissa) * _POWERS[scale]
    return True, True, sign * np.float64(mantissa) / _POWERS[-scale]


@kernel
def _signed(text: Any, at: int, last: int) -> Any:
    """Return the place behind a sign, and 1 or -1."""
    if at < last and (text[at] == 43 or text[at] == 45):
        return at + 1, (-1 if text[at] == 45 else 1)
    return at, 1


@kernel
def _exponent(text: Any, at: int, last: int) -> Any:
    """Return the place behind an exponent, its value, and whether it has digits if it is there."""
    if at >= last or (text[at] != 69 and text[at] != 101):
        return at, 0, True
    at, sign = _signed(text, at + 1, last)
    first, power = at, 0
    while at < last and text[at] >= 48 and text[at] <= 57:
        if power < 100000:
            power = power * 10 + (text[at] - 48)
        at += 1
    return at, sign * power, at > first
