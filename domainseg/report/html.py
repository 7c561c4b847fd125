"""A document as one HTML file: no network, nothing beside it.

The template escapes everything; what it is given as markup is made here: the
style sheet and the script of the package and drawings passed through `inline_svg`.
The content security policy names both by their hashes, so the page could not load or
run anything else even if a name from the data got through. The script is there where a
table asks for it; it sorts and filters rows, and without it the page says the same.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from domainseg.quality.statistics import Interval
from domainseg.report import plots
from domainseg.report.document import TEXT, Block, Document, Figure, Picture, Table, Value
from domainseg.report.numbers import written
from domainseg.report.svg import inline_svg
from domainseg.report.visible import shortened, visible

_COLOURS = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.RULE: "var(--rule)",
    plots.ACCENT: "var(--accent)",
    plots.GOOD: "var(--good)",
    plots.BAD: "var(--bad)",
    plots.WARN: "var(--warn)",
    plots.IDLE: "var(--idle)",
} | {colour: f"var(--series-{i})" for i, colour in enumerate(plots.SERIES, 1)}

# Applied to the style sheet before it is hashed too: the hash is of what the page holds.
_BLANK = re.compile(r"\n\s*\n+")

_CELL = 64
"""Characters of a name in a table; the whole name is in its tooltip and in the JSON."""


def render(document: Document, *, paper: bool = False) -> str:
    """Return the page as HTML text with a final line end; equal documents, equal text.

    ``paper`` names the colours of plots instead of leaving them to the style sheet: programs
    that print do not look there.
    """
    css = _BLANK.sub("\n", _packaged("page.css"))
    script = _BLANK.sub("\n", _packaged("page.js")) if _interactive(document) else ""
    template = _environment({} if paper else _COLOURS).from_string(_packaged("page.html.j2"))
    page = template.render(
        document=document,
        css=Markup(css),  # noqa: S704 - the package's own file
        style_hash=_hash(css),
        script=Markup(script),  # noqa: S704 - the package's own file
        script_hash=_hash(script) if script else "",
    )
    return _BLANK.sub("\n", page).rstrip() + "\n"


def _interactive(document: Document) -> bool:
    blocks = (block for section in document.sections for block in section.blocks)
    return any(isinstance(block, Table) and block.interactive for block in blocks)


def _hash(text: str) -> str:
    """Return what a content security policy calls an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _packaged(name: str) -> str:
    return resources.files("domainseg.report").joinpath(name).read_text(encoding="utf-8")


def _environment(colours: Mapping[str, str]) -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalised,
    )
    filters: dict[str, Callable[..., object]] = {
        "written": written,
        "kind": _kind,
        "short": _short,
        "drawing": partial(_drawing, colours=colours),
        "source": _source,
        "raw": _raw,
    }
    environment.filters.update(filters)
    environment.globals["plain"] = TEXT
    return environment


def _finalised(value: object) -> object:
    """Return what every ``{{ }}`` prints, with nothing invisible in it."""
    return value if isinstance(value, Markup) else visible(str(value))


def _kind(block: Block) -> str:
    return type(block).__name__


def _raw(value: Value) -> str:
    """Return a number as a script reads it; empty where it is not known."""
    if isinstance(value, Interval):
        return repr(float(value.low))
    if value is None or isinstance(value, str) or math.isnan(value):
        return ""
    return repr(float(value))


def _short(value: Value) -> str:
    return shortened(str(value), _CELL)


def _drawing(figure: Figure, *, colours: Mapping[str, str]) -> Markup:
    return Markup(inline_svg(figure.svg, prefix=figure.id, colours=colours))  # noqa: S704 - cleaned


def _source(picture: Picture) -> str:
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"
