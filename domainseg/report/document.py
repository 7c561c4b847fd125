"""The blocks a report is made of: what is said, never how it looks.

Sections build blocks; renderers (`html`, `json`, `text`) turn them into files.
Neither knows the other, so a new section needs no line in a renderer and a new
renderer none in a section. Numbers travel as numbers with a `Form` beside them:
the page rounds, the JSON does not, and both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domainseg.quality.statistics import Interval

Value = str | int | float | bool | Interval | None
"""What a cell holds; None is "not known", which is never 0."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a number is written.

    ``count``: grouped integer. ``fixed``: ``digits`` decimals. ``significant``:
    ``digits`` significant digits. ``text``: as it is, aligned left.
    """

    style: Literal["text", "count", "fixed", "significant"] = "text"
    digits: int = 3

    @property
    def numeric(self) -> bool:
        """Return whether the value is aligned as a number."""
        return self.style != "text"


TEXT = Form()
COUNT = Form("count")
RATIO = Form("fixed", 3)
MEASURE = Form("significant", 3)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Callout:
    """What a reader must not miss: a title and one line each.

    ``tone`` is ``warning`` for a limit of the evidence, ``note`` otherwise.
    """

    tone: Literal["note", "warning"]
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Banner:
    """The answer, before everything else.

    ``outcome`` is one of PASS, FAIL and INDETERMINATE; ``lines`` say why in a sentence each.
    """

    outcome: Literal["PASS", "FAIL", "INDETERMINATE"]
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyNumber:
    """One large number: its name in the JSON, its label, and its interval when there is one."""

    key: str
    label: str
    value: Value
    form: Form
    unit: str = ""
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeyNumbers:
    """The few numbers a reader came for."""

    id: str
    numbers: tuple[KeyNumber, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``key`` carries its unit as the object table's columns do."""

    key: str
    title: str
    form: Form = TEXT
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under typed columns; the first column names the row.

    Attributes:
        id: unique in the document.
        caption: one sentence, what the rows are.
        columns: one per value of a row.
        rows: each as long as ``columns``.
        shown: rows a page shows; the JSON holds all of them.
        interactive: whether a page lets its reader sort and filter the rows, where it can.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    shown: int = 400
    interactive: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.id}: {len(row)} values in a row of {len(self.columns)} columns"
                )


TINY_PX = 128
"""Longest side of a picture that is shown as squares, not smoothed: a wafer map is one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Encoded pixels with what they show in words.

    ``data`` is a whole PNG or WebP file; ``width`` and ``height`` are its pixels.
    """

    data: bytes
    media: Literal["image/png", "image/webp"]
    width: int
    height: int
    alt: str
    title: str
    note: str = ""

    @property
    def is_tiny(self) -> bool:
        """Whether the page enlarges it so far that its pixels are meant to be seen."""
        return max(self.width, self.height) <= TINY_PX


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures side by side.

    ``size`` is ``large`` for whole images, ``small`` for crops; ``legend``
    names the line colours in use.
    """

    id: str
    pictures: tuple[Picture, ...]
    size: Literal["large", "small"] = "large"
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot as SVG text, the same in words (``alt``), and the numbers it draws."""

    id: str
    svg: str
    alt: str
    caption: str
    data: Table | None = None


@dataclass(frozen=True, slots=True)
class Formula:
    """A quantity of the report, its definition, and where that comes from."""

    name: str
    expression: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Formulas:
    """The definitions behind the numbers."""

    id: str
    items: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a record: a name and what is known, ``literal`` when it is to be copied."""

    key: str
    label: str
    value: Value
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A titled list of facts: where a result comes from; ``folded`` when long."""

    id: str
    title: str
    items: tuple[Fact, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Subheading:
    """A heading inside a section."""

    text: str


Block = (
    Paragraph
    | Banner
    | Callout
    | KeyNumbers
    | Table
    | Gallery
    | Figure
    | Formulas
    | Facts
    | Subheading
)


@dataclass(frozen=True, slots=True)
class Section:
    """A titled run of blocks; ``id`` is its anchor and its key in the JSON."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report.

    Attributes:
        title: what the report is of.
        subtitle: one line below it.
        sections: in reading order, ids unique.
        generator: the program and version that built the document.
        footer: the closing sentence.
        eyebrow: what kind of report it is.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    generator: str
    footer: str
    eyebrow: str = "Segmentation report"

    def __post_init__(self) -> None:
        names = [section.id for section in self.sections]
        if len(set(names)) != len(names):
            raise ValueError(f"two sections share an id among {names}")
