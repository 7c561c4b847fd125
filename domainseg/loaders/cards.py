"""Data cards: what is known of a public data set, one TOML file each, facts only."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from domainseg.errors import MissingInputError, RecipeError, sentence
from domainseg.loaders.splits import Split
from domainseg.shipped import shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One file to download.

    Attributes:
        url: https address.
        sha256: of the file, 64 hexadecimal digits; empty where it is not recorded.
        size_bytes: of the file; None where it is not recorded.
        into: folder it is unpacked into, relative to the data's root.
    """

    url: str
    sha256: str = ""
    size_bytes: int | None = None
    into: str = "."

    def __post_init__(self) -> None:
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}, wanted 64 hexadecimal digits or nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A public data set.

    Attributes:
        title: its name.
        url: https address of the publisher's page.
        licence: SPDX identifier, or the terms in words where there is none.
        citation: what the publisher asks to be cited.
        contents: what is in it.
        classes: of the objects.
        spacing_um: pixel size of every image ``(y, x)``; None when not recorded or not one.
        archives: what to download; empty where the publisher hands it out by hand.
        preparation: what must be done between unpacking and loading; empty for nothing.
        loader: name and options of the loader, as in a recipe.
        split: how it is split, as in a recipe.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    title: str
    url: str
    licence: str
    citation: str
    contents: str
    classes: tuple[str, ...]
    loader: dict[str, Any]
    split: Split = field(default_factory=Split)
    spacing_um: tuple[float, float] | None = None
    archives: tuple[Archive, ...] = ()
    preparation: str = ""

    def __post_init__(self) -> None:
        for address in (self.url, *(archive.url for archive in self.archives)):
            if not address.startswith("https://"):
                raise ValueError(f"{address!r} is not an https address")
        for name in ("title", "licence", "citation", "classes"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty")
        if "name" not in self.loader:
            raise ValueError("loader has no name")


def list_cards() -> dict[str, Path]:
    """Return the cards that come with domainseg, by name, sorted."""
    return {path.stem: path for path in sorted(shipped("datasets").glob("*.toml"))}


def find_card(name: str) -> Card:
    """Return a card by the name it comes with, or by the path of its file.

    Raises:
        MissingInputError: when there is none of that name, naming the nearest.
        RecipeError: as `read_card`.
    """
    cards = list_cards()
    path = cards.get(name, Path(name))
    if name not in cards and not path.is_file():
        near = get_close_matches(name, cards, 1)
        raise MissingInputError(
            sentence(
                name,
                found="no data card of that name",
                wanted=f"one of {', '.join(cards)}, or the path of a card",
                fix=f"did you mean {near[0]}" if near else "see the list of data sets",
            )
        )
    return read_card(path)


def read_card(path: Path) -> Card:
    """Return the card of a TOML file.

    Raises:
        MissingInputError: when there is no such file.
        RecipeError: when it is not TOML, a key is unknown or missing, or a value does not fit.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a data card", fix="check the path")
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            sentence(path, found=f"no TOML: {error}", wanted="a data card", fix="correct it")
        ) from error
    try:
        return TypeAdapter(Card).validate_python(table)
    except ValidationError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: ValidationError) -> RecipeError:
    """Return the first complaint as one sentence."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the card"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = sorted(field.name for field in fields(Card))
        near = get_close_matches(place, known, 1)
        return RecipeError(
            sentence(
                path,
                found=f"the key {place}, which a card does not have",
                wanted=f"some of {', '.join(known)}",
                fix=f"did you mean {near[0]}" if near else "remove it",
            )
        )
    if first["type"] in ("missing", "missing_argument"):
        return RecipeError(
            sentence(path, found=f"no {place}", wanted="every required key", fix="add it")
        )
    problem = first["msg"].removeprefix("Value error, ")
    return RecipeError(
        sentence(path, found=f"{place}: {problem}", wanted="a value that fits", fix="correct it")
    )
