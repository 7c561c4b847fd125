"""Annotations of the usual form, read from the bytes by a kernel.

To decode a large file number by number as Python objects takes most of the time of opening
it, though of an outline only the bounds are wanted. The kernel goes over the bytes once. It
takes an annotation only when it is sure of every character of it: whole numbers as ids, a
box with area, polygons of three points or more in plain decimals. At anything else it stops,
and that annotation is decoded the usual way; so it never decides that something is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from domainseg.instances.kernel import kernel

_NAMES = (b"id", b"image_id", b"category_id", b"iscrowd", b"bbox", b"segmentation")
IDS, CROWD, BOX, OUTLINE = 3, 3, 4, 5
"""Places in the names: those before ``IDS`` are the ids."""
NEEDED = 0b100111
"""Members that every annotation has: the ids and the outline."""
_KEYS = np.zeros((len(_NAMES), 16), np.uint8)
for _row, _name in enumerate(_NAMES):
    _KEYS[_row, : len(_name)] = np.frombuffer(_name, np.uint8)
_KEY_LENGTHS = np.array([len(_name) for _name in _NAMES], np.int64)
_POWERS = 10.0 ** np.arange(16)
"""Exact in float64, as is a number of up to 15 digits: so the quotient is the nearest one."""

_QUOTE, _COMMA, _MINUS, _POINT, _ZERO, _NINE, _COLON, _BACKSLASH = 34, 44, 45, 46, 48, 57, 58, 92
_OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = 91, 93, 123, 125


@kernel
def scan(raw: Any, at: int, numbers: Any, crowds: Any, spans: Any, bounds: Any) -> Any:
    """Return how many annotations were taken, and where the next element begins.

    Args:
        raw: uint8, bytes of a list of annotations.
        at: where an element begins.
        numbers: int64 ``(n, 3)``, takes id, image_id and category_id.
        crowds: uint8 ``(n,)``, takes iscrowd.
        spans: int64 ``(n, 2)``, takes the first byte and the number of bytes.
        bounds: float64 ``(n, 4)``, takes the least and largest x and y: x0, y0, x1, y1.

    An element is taken when a comma follows it.
    """
    count = 0
    while count < len(numbers):
        end, crowd = _element(raw, at, numbers[count], bounds[count])
        if end < 0:
            break
        comma = _space(raw, end)
        if comma >= len(raw) or raw[comma] != _COMMA:
            break
        crowds[count] = crowd
        spans[count, 0], spans[count, 1] = at, end - at
        at = _space(raw, comma + 1)
        count += 1
    return count, at


@kernel
def _element(raw: Any, at: int, numbers: Any, bounds: Any) -> Any:
    """Return the end of an annotation and whether it is a crowd; an end of -1 when unsure."""
    if at >= len(raw) or raw[at] != _OPEN:
        return -1, 0
    seen, crowd = 0, 0
    while True:
        name = _space(raw, at + 1)
        if name >= len(raw) or raw[name] != _QUOTE:
            return -1, 0
        name_end = _string(raw, name + 1)
        colon = _space(raw, name_end + 1)
        if name_end < 0 or colon >= len(raw) or raw[colon] != _COLON:
            return -1, 0
        key = _key(raw, name + 1, name_end)
        # Of a name that stands twice the last counts, as in Python.
        end, value = _member(raw, _space(raw, colon + 1), key, numbers, bounds)
        if key >= 0:
            seen |= 1 << key
        if key == CROWD:
            crowd = value
        at = _space(raw, end)
        if end < 0 or at >= len(raw) or raw[at] != _COMMA:
            break
    if end < 0 or at >= len(raw) or raw[at] != _CLOSE or seen & NEEDED != NEEDED:
        return -1, 0
    return at + 1, crowd


@kernel
def _member(raw: Any, at: int, key: int, numbers: Any, bounds: Any) -> Any:
    """Return the end of a member's value and, of iscrowd, the value; an end of -1 when unsure."""
    if key == OUTLINE:
        return _polygons(raw, at, bounds), 0
    if key == BOX:
        return _box(raw, at), 0
    if key < 0:
        return _passed(raw, at), 0
    end, number, is_whole = _number(raw, at)
    if not is_whole or (key == CROWD and number != 0 and number != 1):
        return -1, 0
    if key < IDS:
        numbers[key] = int(number)
    return end, int(number)


@kernel
def _key(raw: Any, start: int, stop: int) -> int:
    """Return the place of a name among those that are wanted, or -1."""
    for row in range(len(_KEY_LENGTHS)):
        if _KEY_LENGTHS[row] == stop - start:
            same = True
            for i in range(stop - start):
                same &= _KEYS[row, i] == raw[start + i]
            if same:
                return row
    return -1


@kernel
def _space(raw: Any, at: int) -> int:
    """Return the place of the next character that is no space."""
    while at < len(raw) and (raw[at] == 32 or raw[at] == 10 or raw[at] == 13 or raw[at] == 9):
        at += 1
    return at


@kernel
def _string(raw: Any, at: int) -> int:
    """Return the place of the quote that closes plain ASCII without escapes, or -1."""
    while at < len(raw):
        if raw[at] == _QUOTE:
            return at
        if raw[at] == _BACKSLASH or raw[at] < 32 or raw[at] > 126:
            return -1
        at += 1
    return -1


@kernel
def _passed(raw: Any, at: int) -> int:
    """Return the end of a number or string that is not wanted, or -1."""
    if at < len(raw) and raw[at] == _QUOTE:
        closing = _string(raw, at + 1)
        return closing + 1 if closing >= 0 else -1
    return int(_number(raw, at)[0])


@kernel
def _number(raw: Any, at: int) -> Any:
    """Return the end of a plain decimal, its value, and whether it is whole; -1 when unsure.

    Up to 15 digits, no exponent; a character must follow, since more digits could.
    """
    sign = 1.0
    if at < len(raw) and raw[at] == _MINUS:
        sign = -1.0
        at += 1
    first, value, point = at, 0, -1
    while at < len(raw):
        character = raw[at]
        if _ZERO <= character <= _NINE:
            if at - first > 15:
                return -1, 0.0, False
            value = 10 * value + (int(character) - _ZERO)
        elif character == _POINT and point < 0 and at > first:
            point = at
        else:
            break
        at += 1
    digits = at - first - (point >= 0)
    # A zero in front, a point at the end, an exponent, or nothing at all.
    leading = raw[first] == _ZERO and digits > 1 and point != first + 1 if at < len(raw) else True
    if leading or not 0 < digits <= 15 or point == at - 1 or raw[at] | 32 == 101:
        return -1, 0.0, False
    if raw[at] == _POINT:
        return -1, 0.0, False
    if point < 0:
        return at, sign * value, True
    return at, sign * (value / _POWERS[at - 1 - point]), False


@kernel
def _box(raw: Any, at: int) -> int:
    """Return the end of a list of four numbers of which the last two are above 0, or -1."""
    for place in range(4):
        if at >= len(raw) or raw[at] != (_COMMA if place else _OPEN_LIST):
            return -1
        end, value, _ = _number(raw, _space(raw, at + 1))
        if end < 0 or (place > 1 and value <= 0):
            return -1
        at = _space(raw, end)
    return at + 1 if at < len(raw) and raw[at] == _CLOSE_LIST else -1


@kernel
def _polygons(raw: Any, at: int, bounds: Any) -> int:
    """Return the end of a list of polygons, whose bounds are written, or -1."""
    if at >= len(raw) or raw[at] != _OPEN_LIST:
        return -1
    bounds[:2] = np.inf
    bounds[2:] = -np.inf
    while True:
        end = _polygon(raw, _space(raw, at + 1), bounds)
        if end < 0:
            return -1
        at = _space(raw, end)
        if at >= len(raw) or raw[at] != _COMMA:
            break
    return at + 1 if at < len(raw) and raw[at] == _CLOSE_LIST else -1


@kernel
def _polygon(raw: Any, at: int, bounds: Any) -> int:
    """Return the end of a list of x and y of three points or more, or -1."""
    if at >= len(raw) or raw[at] != _OPEN_LIST:
        return -1
    count = 0
    while True:
        end, value, _ = _number(raw, _space(raw, at + 1))
        if end < 0:
            return -1
        axis = count % 2
        bounds[axis] = min(bounds[axis], value)
        bounds[2 + axis] = max(bounds[2 + axis], value)
        count += 1
        at = _space(raw, end)
        if at >= len(raw) or raw[at] != _COMMA:
            break
    if at >= len(raw) or raw[at] != _CLOSE_LIST or count < 6 or count % 2:
        return -1
    return at + 1
