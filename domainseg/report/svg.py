"""SVG made fit to stand inside a page.

An inline drawing shares the page's ids, styles and scripts with everything else.
What is kept here is a short list of drawing elements and attributes; everything
else, scripts and event handlers and links out of the page among it, is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(
    {"circle", "clipPath", "defs", "ellipse", "g", "line", "path", "polygon", "polyline", "rect"}
    | {"svg", "text", "tspan"}
)
_ATTRIBUTES = frozenset(
    {"id", "d", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy"}
    | {"width", "height", "viewBox", "points", "transform", "opacity", "clip-path"}
    | {"fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray"}
    | {"stroke-linecap", "stroke-linejoin", "stroke-miterlimit"}
    | {"text-anchor", "font-size", "font-weight", "font-style"}
)
_PAINT = frozenset({"fill", "stroke"})
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")


def inline_svg(svg: str, *, prefix: str, colours: Mapping[str, str]) -> str:
    """Return ``svg`` as an element for a page: clean, with ids and colours of its own.

    Args:
        svg: an SVG document.
        prefix: goes before every id and every reference to one, so that two
            drawings on a page cannot take each other's clips.
        colours: lower-case ``#rrggbb`` to what replaces it, such as ``var(--ink)``,
            so that a drawing follows the page into dark mode.

    Raises:
        ValueError: when the text is not an SVG document, or declares entities.
    """
    if "<!" in svg:
        raise ValueError("a drawing with a document type or a comment is not taken")
    try:
        root = ET.fromstring(svg)  # noqa: S314 - no document type, so no entities
    except ET.ParseError as error:
        raise ValueError(f"not an SVG document: {error}") from error
    if root.tag != f"{_SVG}svg":
        raise ValueError(f"not an SVG document: its root is {root.tag}")
    clean = _cleaned(root, prefix=prefix, colours=colours)
    clean.set("aria-hidden", "true")
    clean.set("focusable", "false")
    return ET.tostring(clean, encoding="unicode")


def _cleaned(element: ET.Element, *, prefix: str, colours: Mapping[str, str]) -> ET.Element:
    """Return a copy with what is on the lists and nothing else."""
    out = ET.Element(element.tag.removeprefix(_SVG))
    for name, value in element.attrib.items():
        if name not in _ATTRIBUTES:
            continue
        if name == "id":
            out.set(name, f"{prefix}-{value}")
        elif (match := _REFERENCE.fullmatch(value)) is not None:
            out.set(name, f"url(#{prefix}-{match[1]})")
        elif "url(" not in value.lower():
            out.set(name, colours.get(value.lower(), value) if name in _PAINT else value)
    out.text = element.text
    for child in element:
        if child.tag.removeprefix(_SVG) in _ELEMENTS and child.tag.startswith(_SVG):
            kept = _cleaned(child, prefix=prefix, colours=colours)
            kept.tail = child.tail
            out.append(kept)
    return out
