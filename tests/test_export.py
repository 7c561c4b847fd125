"""What is written: GeoJSON for QuPath, COCO, Parquet, CSV; whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import uuid
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from shapely.geometry import shape

from domainseg.atomic import atomic_path, atomic_text
from domainseg.errors import OutputError
from domainseg.instances.colours import class_colour
from domainseg.instances.columns import OBJECT_COLUMNS, SCHEMA_VERSION
from domainseg.instances.export import (
    join_objects,
    table_instances,
    write_coco,
    write_geojson,
    write_objects,
)
from domainseg.instances.measure import measure
from domainseg.instances.object_text import geometries
from domainseg.instances.outlines import find_outlines
from domainseg.records import Instances

LABELS = np.array(
    [
        [1, 1, 0, 0, 0, 4],
        [1, 1, 0, 0, 4, 0],
        [0, 0, 0, 0, 0, 0],
        [9, 9, 9, 0, 0, 0],
        [9, 0, 9, 0, 0, 0],
        [9, 9, 9, 0, 0, 0],
    ],
    np.int32,
)
CLASSES = ("cell", "debris, other")
NAMES = [c.name for c in OBJECT_COLUMNS]


@pytest.fixture
def table() -> pl.DataFrame:
    return measure(
        LABELS, classes=[0, 1, 0], scores=[0.5, 0.25, 1.0], class_names=CLASSES, image_id="a.png"
    )


# --- GeoJSON ---


@pytest.fixture
def features(tmp_path: Path, table: pl.DataFrame) -> list[dict[str, Any]]:
    path = tmp_path / "objects.geojson"
    write_geojson(path, LABELS, table=table, class_names=CLASSES)
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return list(collection["features"])


def test_geojson_has_the_keys_that_qupath_reads(
    features: list[dict[str, Any]], table: pl.DataFrame
) -> None:
    assert len(features) == 3
    for feature, row in zip(features, table.iter_rows(named=True), strict=True):
        assert set(feature) == {"type", "id", "geometry", "properties"}
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == row["id"]
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["metadata"] == {"label": str(row["label"])}
    assert features[1]["properties"]["classification"] == {
        "name": "debris, other",
        "color": list(class_colour(1)),
    }


def test_geojson_measurements_are_the_known_numbers_of_the_table(
    features: list[dict[str, Any]], table: pl.DataFrame
) -> None:
    row = table.row(0, named=True)
    measurements = features[0]["properties"]["measurements"]
    assert all(row[name] == value for name, value in measurements.items())
    assert {"area_px", "score", "solidity", "euler_number"} <= set(measurements)
    assert not any(name.endswith("_um") or name in ("label", "y0_px") for name in measurements)
    assert all(isinstance(value, int | float) for value in measurements.values())


def test_geojson_geometry_is_the_exact_outline(features: list[dict[str, Any]]) -> None:
    assert features[0]["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]],
    }
    assert [feature["geometry"]["type"] for feature in features] == [
        "Polygon",
        "MultiPolygon",
        "Polygon",
    ]
    assert [shape(feature["geometry"]).area for feature in features] == [4, 2, 8]
    assert len(features[2]["geometry"]["coordinates"]) == 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), density=st.floats(0.2, 0.9))
def test_the_text_of_a_geometry_is_that_of_the_outline(seed: int, density: float) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(1, 4, (12, 130)) * (random.random((12, 130)) < density)
    outlines = find_outlines(labels)
    for index, text in enumerate(geometries(outlines)):
        polygons = outlines.multipolygon(index)
        single = len(polygons) == 1
        assert json.loads(text) == {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        }


def test_large_and_small_measurements_read_back_to_the_same_numbers(
    tmp_path: Path, table: pl.DataFrame
) -> None:
    values = [1e-300, 1.5e17, 1 / 3]
    graded = table.with_columns(odd=pl.Series(values), none=pl.lit(None, pl.Float64))
    path = tmp_path / "objects.geojson"
    write_geojson(path, LABELS, table=graded, class_names=CLASSES)
    read = [f["properties"]["measurements"] for f in json.loads(path.read_text())["features"]]
    assert [one["odd"] for one in read] == values
    assert not any("none" in one for one in read)


def test_names_that_json_must_escape_are_escaped(tmp_path: Path) -> None:
    name, channel = 'a"b\\c\n', 'µ"\\'
    image = np.ones((1, *LABELS.shape), np.uint8)
    table = measure(LABELS, class_names=(name,), image=image, channels=(channel,))
    path = tmp_path / "objects.geojson"
    write_geojson(path, LABELS, table=table, class_names=(name,))
    properties = json.loads(path.read_text(encoding="utf-8"))["features"][0]["properties"]
    assert properties["classification"]["name"] == name
    assert properties["measurements"][f"intensity_mean_{channel}"] == 1


def test_numbers_that_json_has_not_are_refused(tmp_path: Path, table: pl.DataFrame) -> None:
    broken = table.with_columns(ratio=pl.lit(float("nan")))
    with pytest.raises(ValueError, match="column 'ratio' holds NaN or infinity, which JSON cannot"):
        write_geojson(tmp_path / "x", LABELS, table=broken, class_names=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_a_name_is_refused(tmp_path: Path, table: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="class 'debris, other' is none of cell"):
        write_geojson(tmp_path / "x", LABELS, table=table, class_names=("cell",))


def test_geojson_without_objects_is_an_empty_collection(tmp_path: Path) -> None:
    path = tmp_path / "none.geojson"
    empty = np.zeros((3, 3), np.int32)
    write_geojson(path, empty, table=measure(empty), class_names=CLASSES)
    assert json.loads(path.read_text()) == {"type": "FeatureCollection", "features": []}


def test_geojson_object_type_is_what_was_asked_for(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "cells.geojson"
    write_geojson(path, LABELS, table=table, class_names=CLASSES, object_type="cell")
    assert json.loads(path.read_text())["features"][0]["properties"]["objectType"] == "cell"


def test_a_table_of_other_objects_is_refused(tmp_path: Path, table: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="a table of 2 rows is not that of these 3 objects"):
        write_geojson(tmp_path / "x", LABELS, table=table.head(2), class_names=CLASSES)
    with pytest.raises(ValueError, match="a table of 2 rows is not that of these 3 objects"):
        table_instances(LABELS, table=table.head(2), class_names=CLASSES)
    assert list(tmp_path.iterdir()) == []


# --- COCO ---


def load(path: Path) -> Any:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


# pycocotools 2.0.11 converts its masks to arrays in the manner of numpy 1.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_loads_what_is_written(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "objects.json"
    instances = table_instances(LABELS, table=table, class_names=CLASSES)
    other = Instances.from_label_map(np.ones((2, 3), np.int32))
    write_coco(path, [("a.png", instances), ("b.png", other)], class_names=CLASSES)
    coco = load(path)
    assert coco.dataset["images"] == [
        {"id": 1, "file_name": "a.png", "height": 6, "width": 6},
        {"id": 2, "file_name": "b.png", "height": 2, "width": 3},
    ]
    assert coco.dataset["categories"] == [
        {"id": 1, "name": "cell"},
        {"id": 2, "name": "debris, other"},
    ]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [a["id"] for a in coco.dataset["annotations"]] == [1, 2, 3, 4]
    assert [a["label"] for a in annotations] == [1, 4, 9]
    assert [a["category_id"] for a in annotations] == [1, 2, 1]
    assert [a["score"] for a in annotations] == [0.5, 0.25, 1.0]
    assert [a["bbox"] for a in annotations] == [[0, 0, 2, 2], [4, 0, 2, 2], [0, 3, 3, 3]]
    for annotation in annotations:
        mask = coco.annToMask(annotation)
        assert (mask == (annotation["label"] == LABELS)).all()
        assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
        assert coco_mask.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]


def test_coco_without_objects_loads(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    empty = Instances.from_label_map(np.zeros((2, 2), np.int32))
    write_coco(path, [("a.png", empty)], class_names=CLASSES)
    assert load(path).getAnnIds() == []
    assert load(path).getImgIds() == [1]


def test_an_object_of_billions_of_pixels_is_encoded_by_its_runs(tmp_path: Path) -> None:
    side, hole = 60_000, 30_000
    rows = np.arange(side)
    runs = np.stack([rows, np.zeros_like(rows), np.full_like(rows, side)], 1)
    right = np.stack([[hole], [hole + 1], [side - hole - 1]], 1)
    runs[hole, 2] = hole
    runs = np.insert(runs, hole + 1, right, axis=0)
    whole = Instances(
        ids=np.array([1]),
        boxes=np.array([[[0, 0], [side, side]]]),
        runs=runs,
        offsets=np.array([0, len(runs)]),
        classes=np.zeros(1, np.int16),
        scores=np.ones(1, np.float32),
        shape=(side, side),
    )
    path = tmp_path / "objects.json"
    write_coco(path, [("a.png", whole)], class_names=CLASSES)
    annotation = json.loads(path.read_text())["annotations"][0]
    before = hole * side + hole
    counts = {"size": [side, side], "counts": [0, before, 1, side * side - before - 1]}
    expected = coco_mask.frPyObjects(counts, side, side)["counts"].decode()
    assert annotation["segmentation"] == {"size": [side, side], "counts": expected}
    assert annotation["area"] == side * side - 1


def test_layers_become_instances_that_may_overlap() -> None:
    layers = np.zeros((2, 3, 4), np.int32)
    layers[0, :, :2], layers[1, 1, :] = 1, 2
    table = pl.concat(measure(plane, layer=layer) for layer, plane in enumerate(layers))
    instances = table_instances(layers, table=table, class_names=("object",))
    assert instances.ids.tolist() == [1, 2]
    assert instances.areas_px().tolist() == [6, 4]
    assert instances.boxes.tolist() == [[[0, 0], [3, 2]], [[1, 0], [2, 4]]]
    assert instances.mask(1).tolist() == [[True] * 4]


# --- table ---


def test_parquet_reads_back_equal_with_units_and_version(
    tmp_path: Path, table: pl.DataFrame
) -> None:
    path = tmp_path / "objects.parquet"
    image = np.zeros((1, *LABELS.shape), np.uint8)
    measured = measure(LABELS, image=image, channels=("DAPI",), spacing_um=(0.5, 0.5))
    write_objects(measured, parquet=path)
    assert pl.read_parquet(path).equals(measured)
    schema = pq.read_schema(path)
    assert schema.metadata[b"domainseg.schema_version"] == str(SCHEMA_VERSION).encode()
    for column in OBJECT_COLUMNS:
        metadata = schema.field(column.name).metadata
        assert metadata[b"unit"].decode() == column.unit
        assert metadata[b"description"].decode() == column.description
    assert schema.field("intensity_std_DAPI").metadata[b"unit"] == b"intensity"


def test_row_groups_hold_a_fixed_number_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "objects.parquet"
    write_objects(pl.DataFrame({"label": range(40_000)}), parquet=path)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [16_384, 16_384, 7_232]


def test_a_table_without_rows_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "objects.parquet"
    empty = measure(np.zeros((2, 2), np.int32))
    write_objects(empty, parquet=path)
    assert pl.read_parquet(path).equals(empty)


def test_columns_that_others_added_are_written_too(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "objects.parquet"
    graded = table.with_columns(grade=pl.lit("A"))
    write_objects(graded, parquet=path)
    assert pl.read_parquet(path).equals(graded)


def test_csv_follows_rfc_4180(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "objects.csv"
    write_objects(table, csv=path)
    data = path.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 4
    assert b'"debris, other"' in data
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    assert list(rows[0]) == NAMES
    for read, row in zip(rows, table.iter_rows(named=True), strict=True):
        assert read["area_um2"] == ""
        assert float(read["perimeter_px"]) == row["perimeter_px"]
        assert read["class"] == row["class"]
        assert read["touches_border"] == str(row["touches_border"]).lower()


def test_csv_of_an_empty_table_is_its_header(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    write_objects(measure(np.zeros((2, 2), np.int32)), csv=path)
    assert path.read_bytes().decode() == ",".join(NAMES) + "\r\n"


def test_csv_of_many_slices_is_one_file_with_one_header(tmp_path: Path) -> None:
    labels = np.arange(1, 70_001, dtype=np.int32).reshape(250, 280)
    path = tmp_path / "objects.csv"
    table = measure(labels)
    write_objects(table.select("label", "area_px"), csv=path)
    lines = path.read_bytes().decode().split("\r\n")
    assert lines[0] == "label,area_px"
    assert lines[1:-1] == [f"{label},1" for label in range(1, 70_001)]


# --- whole or not at all ---


def write_all(folder: Path, table: pl.DataFrame) -> Iterator[Any]:
    """Yield every writer with the file it writes."""
    instances = Instances.from_label_map(LABELS)
    yield lambda: write_geojson(folder / "o", LABELS, table=table, class_names=CLASSES)
    yield lambda: write_coco(folder / "o", [("a.png", instances)], class_names=CLASSES)
    yield lambda: write_objects(table, csv=folder / "o")
    yield lambda: write_objects(table, parquet=folder / "o")
    yield lambda: atomic_text(folder / "o", "text")


@pytest.mark.parametrize("writer", range(5))
def test_a_full_disk_leaves_the_file_of_before(
    tmp_path: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, writer: int
) -> None:
    target = tmp_path / "o"
    target.write_text("before")

    def full(path: Path, other: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError) as caught:
        list(write_all(tmp_path, table))[writer]()
    assert str(caught.value) == (
        f"{target}: found no room left on the disk, wanted room for the whole file; "
        "free some space or choose another output folder."
    )
    assert caught.value.exit_code == 3
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_in_the_middle_of_writing_leaves_nothing(tmp_path: Path, code: int) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "o.txt") as partial:
            partial.write_text("half")
            raise OSError(code, "full")

    with pytest.raises(OutputError, match="found no room left on the disk"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    path = tmp_path / "o.txt"

    def refuse() -> None:
        with atomic_path(path) as partial:
            raise PermissionError(errno.EACCES, "Permission denied", str(partial))

    with pytest.raises(OutputError) as caught:
        refuse()
    assert str(caught.value) == (
        f"{path}: found a folder that may not be written to, wanted write permission; "
        "change the permission or choose another output folder."
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "o.txt"
    with pytest.raises(OutputError) as caught:
        atomic_text(path, "text")
    assert str(caught.value) == (
        f"{path}: found no folder to write into, wanted a file in an existing folder; "
        "create the folder or choose another output path."
    )


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "o.txt"
    path.mkdir()
    with pytest.raises(OutputError) as caught:
        atomic_text(path, "text")
    assert str(caught.value) == (
        f"{path}: found a folder of that name, wanted a file in an existing folder; "
        "create the folder or choose another output path."
    )
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_other_files_and_of_the_caller_pass_unchanged(tmp_path: Path) -> None:
    def other_file() -> None:
        with atomic_path(tmp_path / "o.txt"):
            (tmp_path / "input.txt").read_text()

    def own_error() -> None:
        with atomic_path(tmp_path / "o.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    def refused() -> None:
        with atomic_path(tmp_path / "o.txt"):
            raise OutputError("said before.")

    with pytest.raises(FileNotFoundError, match=r"input\.txt"):
        other_file()
    with pytest.raises(KeyboardInterrupt):
        own_error()
    with pytest.raises(OutputError, match=r"^said before\.$"):
        refused()
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_with_its_content_and_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "plane.ome.tif"
    with atomic_path(path) as partial:
        partial.write_text("content")
        assert partial.parent == path.parent
        assert partial.name.endswith(".ome.tif")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    atomic_text(tmp_path / "o.txt", "µm\n")
    assert (tmp_path / "o.txt").read_bytes() == b"\xc2\xb5m\n"


def test_tables_of_several_images_are_joined_with_all_their_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for number, channels in enumerate([("red",), ("green", "red"), ("blue",)]):
        labels = np.arange(1, 20_001, dtype=np.int32).reshape(100, 200) * (number < 2)
        image = rng.integers(0, 255, (len(channels), 100, 200), np.uint8)
        table = measure(labels, image=image, channels=channels, image_id=str(number))
        write_objects(table, parquet=tmp_path / f"{number}.parquet")
        frames.append(table)
    wanted = pl.concat(frames, how="diagonal")
    write_objects(wanted, parquet=tmp_path / "a.parquet", csv=tmp_path / "a.csv")
    tables = [tmp_path / f"{number}.parquet" for number in range(3)]
    join_objects(tables, parquet=tmp_path / "b.parquet", csv=tmp_path / "b.csv")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
