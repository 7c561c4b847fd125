"""Pixel sizes from what files say of themselves; a size that is not known is None."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

from domainseg.records import Spacing

UM_PER_UNIT = {
    "pm": 1e-6,
    "\u00e5": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "\u00b5m": 1.0,  # the micro sign
    "\u03bcm": 1.0,  # the Greek letter: files hold both
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25400.0,
    "in": 25400.0,
}
"""Micrometres per unit; units not listed ("pixel", "reference frame") give no size."""
PRINT_DPI = 1200.0
"""Resolution tags up to this many dots per inch (21.17 um) are taken for a printer's.

Editors and cameras write 72, 96, 150, 300, 600 or 1200 dpi into files whose pixels are not
that size; no microscope has such pixels. Image formats' tags only: what OME-XML, ImageJ or
a scanner says is believed at any size.
"""


def spacing_from_lengths(y: float, x: float, unit: str) -> Spacing | None:
    """Return ``(y, x)`` micrometres of a pixel ``y`` by ``x`` units, None if not a length."""
    name = unit.strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")
    scale = UM_PER_UNIT.get(name, UM_PER_UNIT.get(name.lower()))
    if scale is None or not (_is_length(y) and _is_length(x)):
        return None
    return (y * scale, x * scale)


def spacing_from_resolution(y: float, x: float, unit: str) -> Spacing | None:
    """Return the pixel size of ``y`` and ``x`` pixels per ``unit``, None if a printer's.

    ``unit`` is one of UM_PER_UNIT; see PRINT_DPI for what is not believed.
    """
    if not (_is_length(y) and _is_length(x)):
        return None
    size = spacing_from_lengths(1.0 / y, 1.0 / x, unit)
    smallest_print_um = UM_PER_UNIT["inch"] / PRINT_DPI
    if size is None or max(size) >= smallest_print_um * (1.0 - 1e-4):
        return None
    return size


def spacing_from_imagej(
    resolution: tuple[float, float], metadata: dict[str, object]
) -> Spacing | None:
    """Return the pixel size of an ImageJ TIFF: pixels per unit ``(x, y)`` and its unit."""
    unit = metadata.get("unit")
    x, y = resolution
    if not isinstance(unit, str) or not (_is_length(x) and _is_length(y)):
        return None
    return spacing_from_lengths(1.0 / y, 1.0 / x, unit)


def spacing_from_aperio(description: str) -> Spacing | None:
    """Return the pixel size of an Aperio slide's ``MPP = ...`` (micrometres per pixel)."""
    found = re.search(r"\bMPP\s*=\s*([0-9.eE+-]+)", description)
    if found is None:
        return None
    try:
        size = float(found[1])
    except ValueError:
        return None
    return spacing_from_lengths(size, size, "um")


def ome_image(xml: str, index: int) -> tuple[Spacing | None, tuple[str, ...]]:
    """Return pixel size and channel names of image ``index`` of OME-XML.

    The size is None unless both PhysicalSizeX and PhysicalSizeY are there; their unit is the
    micrometre where none is given (OME schema 2016-06). Unnamed channels have empty names.
    """
    try:
        # ElementTree fetches no external entity, and expat limits entity expansion.
        root = ET.fromstring(xml)  # noqa: S314
    except ET.ParseError:
        return None, ()
    pixels = root.findall("./{*}Image/{*}Pixels")
    if index >= len(pixels):
        return None, ()
    names = tuple(channel.get("Name", "") for channel in pixels[index].findall("{*}Channel"))
    sizes = [_ome_length(pixels[index], axis) for axis in "YX"]
    if sizes[0] is None or sizes[1] is None:
        return None, names
    return (sizes[0], sizes[1]), names


def _ome_length(pixels: ET.Element, axis: str) -> float | None:
    try:
        value = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    size = spacing_from_lengths(value, value, pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if size is None else size[0]


def _is_length(value: float) -> bool:
    return math.isfinite(value) and value > 0
