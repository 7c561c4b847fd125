"""A document as JSON: every number of the page, not rounded.

Layout, ``schema`` 1: ``{"schema", "kind", "generator", "title", "subtitle",
"footer", "sections": [{"id", "title", "blocks": [{"type", ...}]}]}``. Keys are
sorted, what is not a finite number is null, an interval is ``{"low", "high"}``.
A table's rows are objects keyed by its columns, all rows, not only those a page
shows. Pictures are described, not included.
"""

from __future__ import annotations

import json
import math
from typing import Any

from domainseg.quality.statistics import Interval
from domainseg.report.document import (
    Banner,
    Block,
    Callout,
    Document,
    Facts,
    Figure,
    Formulas,
    Gallery,
    KeyNumbers,
    Paragraph,
    Subheading,
    Table,
    Value,
)

SCHEMA = 1


def render(document: Document) -> str:
    """Return the document as JSON text, ASCII, keys sorted, with a final line end."""
    content = {
        "schema": SCHEMA,
        "kind": "domainseg.report",
        "generator": document.generator,
        "title": document.title,
        "subtitle": document.subtitle,
        "footer": document.footer,
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "blocks": [_block(block) for block in section.blocks],
            }
            for section in document.sections
        ],
    }
    text = json.dumps(_encodable(content), sort_keys=True, indent=1, allow_nan=False)
    return text + "\n"


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph():
            return {"type": "paragraph", "text": block.text}
        case Subheading():
            return {"type": "subheading", "text": block.text}
        case Callout():
            lines = list(block.lines)
            return {"type": block.tone, "title": block.title, "lines": lines}
        case Banner():
            lines = list(block.lines)
            return {
                "type": "verdict",
                "outcome": block.outcome,
                "title": block.title,
                "lines": lines,
            }
        case Table():
            return _table(block)
        case KeyNumbers():
            return _key_numbers(block)
        case Figure():
            data = _table(block.data) if block.data else None
            return {
                "type": "figure",
                "id": block.id,
                "alt": block.alt,
                "caption": block.caption,
                "data": data,
            }
        case Gallery():
            return _gallery(block)
        case Formulas():
            items = [
                {"name": item.name, "expression": item.expression, "note": item.note}
                for item in block.items
            ]
            return {"type": "formulas", "id": block.id, "items": items}
        case Facts():
            values = {item.key: _value(item.value) for item in block.items}
            return {"type": "facts", "id": block.id, "title": block.title, "values": values}


def _table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "type": "table",
        "id": table.id,
        "caption": table.caption,
        "columns": [
            {"key": column.key, "title": column.title, "unit": column.unit}
            for column in table.columns
        ],
        "rows": [dict(zip(keys, map(_value, row), strict=True)) for row in table.rows],
    }


def _key_numbers(block: KeyNumbers) -> dict[str, Any]:
    values = {
        number.key: {
            "label": number.label,
            "value": _value(number.value),
            "unit": number.unit,
            "interval": _value(number.interval),
            "note": number.note,
        }
        for number in block.numbers
    }
    return {"type": "key_numbers", "id": block.id, "values": values}


def _gallery(block: Gallery) -> dict[str, Any]:
    pictures = [
        {"title": picture.title, "alt": picture.alt, "note": picture.note}
        for picture in block.pictures
    ]
    return {"type": "gallery", "id": block.id, "caption": block.caption, "pictures": pictures}


def _value(value: Value) -> Any:
    if isinstance(value, Interval):
        return {"low": _value(value.low), "high": _value(value.high)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _encodable(value: Any) -> Any:
    """Return ``value`` with broken halves of characters replaced, which no reader takes."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value
