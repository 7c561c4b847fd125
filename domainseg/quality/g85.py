"""SEMI G85 maps: an XML file with one bin code for each die, as probers and mounters read.

The standard is not public; elements and attributes are those of artwork.com's description of
the format and of the open writers that agree with it. Written are rows from the top of the
wafer down with the notch below, so that the file reads like the picture; the reference device
says where die (0, 0) is among them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET  # only written: what is parsed is another matter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_path

NULL_BIN, PASS_BIN, FAIL_BIN = 0, 1, 2
"""Codes of a place without an inspected die, of a die that passes, and of one that fails."""
UPPER_LEFT = 2
"""Of ``OriginLocation``: 1 upper right, 2 upper left, 3 lower left, 4 lower right."""
ORIENTATIONS = {"down": 0, "left": 90, "up": 180, "right": 270}
"""Where the notch is, in degrees clockwise from down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapHeader:
    """What a map says beside its dies.

    Attributes:
        lot: identifier of the lot.
        wafer: identifier of the wafer.
        product: identifier of the device; empty where it is not known.
        diameter_mm: of the wafer; None where it is not known.
        pitch_um: ``(x, y)`` from one die to the next.
        notch: ``down``, ``left``, ``up`` or ``right``.
    """

    lot: str
    wafer: str
    product: str = ""
    diameter_mm: float | None = None
    pitch_um: tuple[float, float]
    notch: str = "down"


def g85_map(dies: NDArray[np.int64], passed: NDArray[np.bool_], header: MapHeader) -> bytes:
    """Return the file of a wafer whose inspected dies are ``dies (N, 2)``, ``(xi, yi)``.

    Args:
        dies: int64 ``(N, 2)``, at least one, each once; ``yi`` counts upwards.
        passed: bool ``(N,)``.
        header: of the map.

    Raises:
        ValueError: without dies, or when one stands there twice.
    """
    if not len(dies) or len(np.unique(dies, axis=0)) < len(dies):
        raise ValueError(f"found {len(dies)} dies, wanted at least one, and each once")
    low, high = dies.min(0), dies.max(0)
    columns, rows = (high - low + 1).tolist()
    grid = np.full((rows, columns), NULL_BIN, np.int64)
    grid[high[1] - dies[:, 1], dies[:, 0] - low[0]] = np.where(passed, PASS_BIN, FAIL_BIN)
    maps = ET.Element("Maps")
    map_ = ET.SubElement(
        maps,
        "Map",
        {
            "xmlns:semi": "http://www.semi.org",
            "WaferId": xml_text(header.wafer),
            "FormatRevision": "G85-1101",
        },
    )
    device = ET.SubElement(map_, "Device", _device(header, rows, columns))
    ET.SubElement(
        device,
        "ReferenceDevice",
        {"ReferenceDeviceX": str(-int(low[0])), "ReferenceDeviceY": str(int(high[1]))},
    )
    for code, quality in ((PASS_BIN, "Pass"), (FAIL_BIN, "Fail")):
        count = int(np.count_nonzero(grid == code))
        about = {"BinCode": f"{code:03d}", "BinCount": str(count), "BinQuality": quality}
        ET.SubElement(device, "Bin", about)
    data = ET.SubElement(device, "Data", {"MapName": "domainseg", "Version": "1"})
    for row in grid.tolist():
        ET.SubElement(data, "Row").text = " ".join(f"{code:03d}" for code in row)
    ET.indent(maps)
    body: bytes = ET.tostring(maps, encoding="utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + body + b"\n"


def write_g85(
    path: Path, dies: NDArray[np.int64], passed: NDArray[np.bool_], header: MapHeader
) -> None:
    """Write `g85_map` to a file, which is there whole or not at all."""
    with atomic_path(path) as place:
        place.write_bytes(g85_map(dies, passed, header))


def _device(header: MapHeader, rows: int, columns: int) -> dict[str, str]:
    about = {
        "ProductId": xml_text(header.product),
        "LotId": xml_text(header.lot),
        "Rows": str(rows),
        "Columns": str(columns),
        "DeviceSizeX": f"{header.pitch_um[0]:.10g}",
        "DeviceSizeY": f"{header.pitch_um[1]:.10g}",
        "Orientation": str(ORIENTATIONS[header.notch]),
        "OriginLocation": str(UPPER_LEFT),
        "BinType": "Decimal",
        "NullBin": f"{NULL_BIN:03d}",
    }
    if header.diameter_mm is not None:
        about["WaferSize"] = f"{header.diameter_mm:.10g}"
    return about


def xml_text(value: str) -> str:
    """Return text without the characters that XML has no way to write."""
    return "".join(
        c
        for c in value
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
