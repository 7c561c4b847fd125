"""JSON files read field by field, each with its type, or refused in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from domainseg.errors import InputError, sentence


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """An object of a JSON file that knows where it stands, for the sake of its errors.

    Attributes:
        path: the file.
        values: its members.
        fix: what a reader of an error can do about it.
        prefix: dotted path from the root of the file, with a final dot, or empty.
    """

    path: Path
    values: Mapping[str, Any]
    fix: str
    prefix: str = ""

    def record(self, key: str) -> JsonRecord:
        """Return the object under ``key``."""
        return JsonRecord(self.path, self.mapping(key), self.fix, f"{self.prefix}{key}.")

    def records(self, key: str) -> list[JsonRecord]:
        """Return the list of objects under ``key``."""
        return [
            JsonRecord(
                self.path,
                value if isinstance(value, dict) else self._refuse(key, value, "objects only"),
                self.fix,
                f"{self.prefix}{key}[{i}].",
            )
            for i, value in enumerate(self._list(key))
        ]

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return the object under ``key`` as it is."""
        value = self._member(key)
        return value if isinstance(value, dict) else self._refuse(key, value, "an object")

    def text(self, key: str) -> str:
        """Return the text under ``key``."""
        value = self._member(key)
        return value if isinstance(value, str) else self._refuse(key, value, "text")

    def text_or_none(self, key: str) -> str | None:
        """Return the text under ``key``, None for null."""
        return None if self._member(key) is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of texts under ``key``."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            self._refuse(key, values, "a list of texts")
        return tuple(values)

    def count(self, key: str) -> int:
        """Return the whole number, 0 or more, under ``key``."""
        value = self._member(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._refuse(key, value, "a whole number, 0 or more")
        return value

    def number(self, key: str) -> float:
        """Return the finite number under ``key``."""
        value = self._member(key)
        return float(value) if _finite(value) else self._refuse(key, value, "a number")

    def number_or_none(self, key: str) -> float | None:
        """Return the finite number under ``key``, None for null."""
        return None if self._member(key) is None else self.number(key)

    def numbers(self, key: str, *, length: int | None = None) -> tuple[float, ...]:
        """Return the list of finite numbers under ``key``, ``length`` of them where given."""
        return self._sequence(key, length, _finite, "numbers")

    def numbers_or_none(self, key: str, *, length: int) -> tuple[float | None, ...]:
        """Return ``length`` numbers under ``key``, each finite or None for null."""
        return self._sequence(
            key, length, lambda value: value is None or _finite(value), "numbers or nulls"
        )

    def _sequence(
        self, key: str, length: int | None, fits: Callable[[Any], bool], noun: str
    ) -> tuple[Any, ...]:
        values = self._list(key)
        if (length is not None and len(values) != length) or not all(map(fits, values)):
            wanted = f"{length} {noun}" if length is not None else f"a list of {noun}"
            self._refuse(key, values, wanted)
        return tuple(values)

    def _list(self, key: str) -> list[Any]:
        value = self._member(key)
        return value if isinstance(value, list) else self._refuse(key, value, "a list")

    def _member(self, key: str) -> Any:
        if key not in self.values:
            raise InputError(
                sentence(self.path, found=f"no {self.prefix}{key}", wanted="one", fix=self.fix)
            )
        return self.values[key]

    def _refuse(self, key: str, value: object, wanted: str) -> NoReturn:
        shown = json.dumps(value)
        found = shown if len(shown) <= 40 else f"{shown[:39]}\u2026"
        raise InputError(
            sentence(
                self.path,
                found=f"{found} under {self.prefix}{key}",
                wanted=wanted,
                fix=self.fix,
            )
        )


def read_json(path: Path, *, fix: str) -> JsonRecord:
    """Return the object a JSON file holds.

    Raises:
        InputError: when the file is not UTF-8, breaks off, is damaged, holds a
            number that is not finite, or holds something other than an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        at = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(
            sentence(path, found=f"damaged JSON{at}", wanted="a whole file", fix=fix)
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            sentence(path, found=f"a JSON {type(values).__name__}", wanted="an object", fix=fix)
        )
    return JsonRecord(path, values, fix)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
