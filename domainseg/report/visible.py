"""Text from data, made safe to look at.

Names of files and classes come from anywhere. Escaping keeps them from being
markup; this keeps them from being invisible or from turning the text around
them: a control character becomes its picture, a format character its code point.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_JOINERS = frozenset("\u200c\u200d")
"""Letters of some scripts, and emoji, need these: they stay."""
_CODED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NONCHARACTERS = frozenset("\ufffe\uffff")


def visible(text: str) -> str:
    r"""Return ``text`` with every control, direction and broken character shown.

    What comes back can be encoded as UTF-8 and is legal in XML.

    >>> visible("a\x00b\u202ec")
    'a␀b⟨U+202E⟩c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def shortened(text: str, limit: int = 72) -> str:
    """Return ``text``, its middle replaced by an ellipsis where longer than ``limit``.

    Both ends stay because file names differ at either end.
    """
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}\u2026{text[len(text) - (limit - 1 - head) :]}"


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if character in _JOINERS:
        return character
    if unicodedata.category(character) in _CODED or character in _NONCHARACTERS:
        return f"\u27e8U+{code:04X}\u27e9"
    return character
