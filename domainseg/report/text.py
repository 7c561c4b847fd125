"""A document as plain text, for terminals, mail and comparison by eye.

It says what the page says, block by block; pictures are described.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domainseg.report.document import (
    TEXT,
    Banner,
    Block,
    Callout,
    Document,
    Facts,
    Figure,
    Formulas,
    Gallery,
    KeyNumber,
    KeyNumbers,
    Paragraph,
    Subheading,
    Table,
)
from domainseg.report.numbers import written
from domainseg.report.visible import shortened, visible


def render(document: Document) -> str:
    """Return the document as lines of text with a final line end."""
    lines = [document.title, "=" * len(visible(document.title)), document.subtitle]
    for section in document.sections:
        lines += ["", "", section.title, "-" * len(visible(section.title))]
        for block in section.blocks:
            lines += ["", *_block(block)]
    lines += ["", "", document.footer, document.generator]
    return "\n".join(map(visible, lines)) + "\n"


def _block(block: Block) -> Iterable[str]:
    match block:
        case Paragraph():
            return [block.text]
        case Subheading():
            return [f"[{block.text}]"]
        case Banner():
            return [f"{block.outcome}: {block.title}", *(f"  - {one}" for one in block.lines)]
        case Callout():
            return [f"{block.tone.upper()}: {block.title}", *(f"  - {one}" for one in block.lines)]
        case Table():
            return _table(block)
        case KeyNumbers():
            return [_key_number(number) for number in block.numbers]
        case Figure():
            data = ["", *_table(block.data)] if block.data else []
            return [f"(figure) {block.alt}", block.caption, *data]
        case Gallery():
            pictures = [_picture(one.alt, one.note) for one in block.pictures]
            return [f"(pictures) {block.caption}".rstrip(), *pictures]
        case Formulas():
            return [
                f"{item.name}: {item.expression}" + (f"  ({item.note})" if item.note else "")
                for item in block.items
            ]
        case Facts():
            facts = [f"  {item.label}: {written(item.value, TEXT)}" for item in block.items]
            return [block.title, *facts]


def _key_number(number: KeyNumber) -> str:
    parts = [f"{number.label}: {written(number.value, number.form)}", number.unit]
    if number.interval is not None:
        parts.append(f"({written(number.interval, number.form)})")
    if number.note:
        parts.append(f"- {number.note}")
    return " ".join(part for part in parts if part)


def _picture(alt: str, note: str) -> str:
    return f"  - {alt}" + (f" {note}" if note else "")


def _table(table: Table) -> list[str]:
    heads = [
        f"{column.title} [{column.unit}]" if column.unit else column.title
        for column in table.columns
    ]
    cells = [
        [
            shortened(visible(written(value, column.form)), 48)
            for value, column in zip(row, table.columns, strict=True)
        ]
        for row in table.rows[: table.shown]
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    numeric = [column.form.numeric for column in table.columns]
    lines = [_line(row, widths, numeric) for row in (heads, *cells)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if len(table.rows) > table.shown:
        lines.append(f"({len(table.rows) - table.shown:,} more rows)")
    return [table.caption, *lines]


def _line(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    cells = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(row, widths, numeric, strict=True)
    ]
    return "  ".join(cells).rstrip()
