"""SEMI G85 maps: every die where it is, whatever the names hold."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.quality.g85 import ORIENTATIONS, MapHeader, g85_map, write_g85

HEADER = MapHeader(lot="L1", wafer="W1", diameter_mm=300, pitch_um=(2400.0, 2000.5))


def read(content: bytes) -> tuple[ET.Element, ET.Element, dict[tuple[int, int], bool]]:
    """Return map, device and what the file says of each inspected die ``(xi, yi)``."""
    root = ET.fromstring(content)
    assert root.tag == "Maps"
    (map_,) = root
    (device,) = map_
    reference = device.find("ReferenceDevice")
    assert reference is not None
    column, row = (
        int(reference.attrib["ReferenceDeviceX"]),
        int(reference.attrib["ReferenceDeviceY"]),
    )
    rows = [one.text for one in device.iter("Row")]
    assert len(rows) == int(device.attrib["Rows"])
    dies = {}
    for y, line in enumerate(rows):
        assert line is not None
        codes = line.split(" ")
        assert len(codes) == int(device.attrib["Columns"])
        for x, code in enumerate(codes):
            if code != device.attrib["NullBin"]:
                dies[x - column, row - y] = code == "001"
    return map_, device, dies


@given(
    st.dictionaries(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), st.booleans(), min_size=1)
)
def test_every_die_is_read_again_where_it_was(dies: dict[tuple[int, int], bool]) -> None:
    content = g85_map(np.array(list(dies), np.int64), np.array(list(dies.values())), HEADER)
    _, device, found = read(content)
    assert found == dies
    counts = {one.attrib["BinQuality"]: int(one.attrib["BinCount"]) for one in device.iter("Bin")}
    assert counts == {"Pass": sum(dies.values()), "Fail": len(dies) - sum(dies.values())}


def test_the_file_reads_like_the_picture() -> None:
    # A wafer with the dies (0, 1) on top and (0, 0), (1, 0) below it; (1, 0) fails.
    content = g85_map(np.array([[0, 0], [1, 0], [0, 1]]), np.array([True, False, True]), HEADER)
    map_, device, _ = read(content)
    assert [row.text for row in device.iter("Row")] == ["001 000", "001 002"]
    assert map_.attrib["WaferId"] == "W1"
    assert map_.attrib["FormatRevision"] == "G85-1101"
    assert device.attrib["LotId"] == "L1"
    assert device.attrib["BinType"] == "Decimal"
    assert device.attrib["OriginLocation"] == "2"
    assert device.attrib["WaferSize"] == "300"
    assert (device.attrib["DeviceSizeX"], device.attrib["DeviceSizeY"]) == ("2400", "2000.5")
    assert content == g85_map(
        np.array([[0, 1], [1, 0], [0, 0]]), np.array([True, False, True]), HEADER
    )


@pytest.mark.parametrize("notch", ORIENTATIONS)
def test_the_notch_is_in_degrees(notch: str) -> None:
    header = MapHeader(lot="", wafer="", pitch_um=(1.0, 1.0), notch=notch)
    _, device, _ = read(g85_map(np.array([[0, 0]]), np.array([True]), header))
    assert device.attrib["Orientation"] == str(ORIENTATIONS[notch])
    assert "WaferSize" not in device.attrib


@given(st.text(max_size=40))
def test_whatever_a_lot_is_called_the_file_can_be_read(name: str) -> None:
    header = MapHeader(lot=name, wafer=f'<script>"&{name}', pitch_um=(1.0, 1.0))
    map_, device, _ = read(g85_map(np.array([[0, 0]]), np.array([True]), header))
    assert map_.attrib["WaferId"].startswith('<script>"&')
    if name.isalnum() and name.isascii():
        assert device.attrib["LotId"] == name


def test_no_die_and_a_die_twice_are_refused() -> None:
    for dies in (np.zeros((0, 2), np.int64), np.array([[1, 2], [1, 2]])):
        with pytest.raises(ValueError, match="wanted at least one, and each once"):
            g85_map(dies, np.ones(len(dies), bool), HEADER)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "map.g85.xml"
    write_g85(path, np.array([[0, 0]]), np.array([True]), HEADER)
    assert read(path.read_bytes())[2] == {(0, 0): True}
