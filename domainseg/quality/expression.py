"""When a unit fails: a comparison or several, joined by ``and``, ``or`` and ``not``.

    critical > 0 or demerits > 100
    not (density_per_cm2 <= 0.5) and major >= 3

Names are of numbers, each comparison has a name on the left and a number on the right. There
is nothing else: the text is parsed here, and nothing of it is ever run.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from domainseg.errors import RecipeError, sentence

LONGEST = 2000
"""Characters of an expression."""
DEEPEST = 50
"""Parentheses within parentheses, and ``not`` behind ``not``."""
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign><=|>=|==|!=|[<>()]))"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``name sign limit``."""

    name: str
    sign: str
    limit: float

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether it is true of these numbers; never of NaN, but by ``!=``."""
        return _COMPARE[self.sign](values[self.name], self.limit)

    def broken(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """Return the sentence of what holds, if it does."""
        if not self.holds(values):
            return ()
        return (f"{self.name} is {values[self.name]:g}, which is {self.sign} {self.limit:g}",)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of what is inside."""

    inside: Condition

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether the inside is not true."""
        return not self.inside.holds(values)

    def broken(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """Return that it holds, if it does."""
        return (f"not ({text(self.inside)})",) if self.holds(values) else ()


@dataclass(frozen=True, slots=True)
class Joined:
    """``parts`` joined by ``and`` or ``or``."""

    word: str
    parts: tuple[Condition, ...]

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether all, or any, are true."""
        each = (part.holds(values) for part in self.parts)
        return all(each) if self.word == "and" else any(each)

    def broken(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """Return the sentences of the parts that hold, where the whole does."""
        if not self.holds(values):
            return ()
        return tuple(reason for part in self.parts for reason in part.broken(values))


Condition = Comparison | Not | Joined


def text(condition: Condition) -> str:
    """Return the condition as it may be written; parsing it gives the condition again."""
    if isinstance(condition, Comparison):
        return f"{condition.name} {condition.sign} {condition.limit!r}"
    if isinstance(condition, Not):
        return f"not ({text(condition.inside)})"
    return f" {condition.word} ".join(
        f"({text(part)})" if isinstance(part, Joined) else text(part) for part in condition.parts
    )


def parse(source: str, names: Sequence[str]) -> Condition:
    """Return the condition that ``source`` states of numbers called ``names``.

    ``not`` binds closest, then ``and``, then ``or``.

    Raises:
        RecipeError: the text is not of this grammar, or names a number that there is not.
    """
    return _Parser(source, names).whole()


class _Parser:
    def __init__(self, source: str, names: Sequence[str]) -> None:
        if len(source) > LONGEST:
            raise RecipeError(
                sentence(
                    "expression",
                    found=f"{len(source)} characters",
                    wanted=f"at most {LONGEST}",
                    fix="shorten it",
                )
            )
        self.names = names
        self.tokens = list(self._split(source))
        self.at = 0

    def _split(self, source: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while source[at:].strip():
            match = _TOKEN.match(source, at)
            if match is None:
                raise _refused(source[at:].strip()[:20], "a name, a number, a comparison or ( )")
            kind = match.lastgroup or ""
            word = match[kind]
            tokens.append((word if word in ("and", "or", "not") else kind, word))
            at = match.end()
        return tokens

    def whole(self) -> Condition:
        condition = self._any(0)
        if self.at < len(self.tokens):
            raise _refused(self._word(), "and, or, or the end")
        return condition

    def _any(self, depth: int) -> Condition:
        return self._joined("or", self._all, depth)

    def _all(self, depth: int) -> Condition:
        return self._joined("and", self._one, depth)

    def _joined(self, word: str, part: Callable[[int], Condition], depth: int) -> Condition:
        parts = [part(depth)]
        while self._kind() == word:
            self.at += 1
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise _refused("too many parentheses", f"at most {DEEPEST} within each other")
        if self._kind() == "not":
            self.at += 1
            return Not(self._one(depth + 1))
        if self._word() == "(":
            self.at += 1
            inside = self._any(depth + 1)
            if self._word() != ")":
                raise _refused(self._word(), ")")
            self.at += 1
            return inside
        return self._comparison()

    def _comparison(self) -> Comparison:
        name = self._take("name", f"one of {', '.join(self.names)}")
        if name not in self.names:
            raise _refused(name, f"one of {', '.join(self.names)}")
        sign = self._take("sign", "a comparison such as >")
        if sign not in _COMPARE:
            raise _refused(sign, "a comparison such as >")
        number = self._take("number", "a number")
        if not math.isfinite(float(number)):
            raise _refused(number, "a finite number")
        return Comparison(name, sign, float(number))

    def _take(self, kind: str, wanted: str) -> str:
        if self._kind() != kind:
            raise _refused(self._word(), wanted)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _word(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"


def _refused(found: str, wanted: str) -> RecipeError:
    return RecipeError(sentence("expression", found=found, wanted=wanted, fix="correct it"))
