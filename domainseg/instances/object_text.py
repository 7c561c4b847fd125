"""Objects as lines of JSON: GeoJSON features and COCO annotations, column by column.

A line is put together from the columns of the table by polars, and the coordinates are
written by a kernel: an object costs microseconds, and no Python object is made of a vertex.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from domainseg.instances.colours import class_colour
from domainseg.instances.encode import encode_runs
from domainseg.instances.kernel import kernel
from domainseg.instances.outlines import Outlines
from domainseg.instances.runs import ObjectRuns

ObjectType = Literal["detection", "cell", "annotation", "tile"]

GEOMETRY = "geometry"
"""Column of the GeoJSON geometries."""
RLE = "rle"
"""Column of the compressed counts of COCO."""
CATEGORY = "category_id"
"""Column of COCO's category ids."""

_NO_MEASUREMENT = frozenset({"label", "layer", "y0_px", "x0_px", "y1_px", "x1_px"})


def geometries(outlines: Outlines) -> pl.Series:
    """Return the outlines as GeoJSON geometries: a Polygon, or a MultiPolygon of several parts."""
    coordinates, offsets = _coordinates(
        outlines.polygons,
        outlines.rings,
        outlines.starts,
        outlines.vertices,
        len(str(int(outlines.vertices.max(initial=0)))),
    )
    single = pl.Series("single", np.diff(outlines.polygons) == 1)
    kind = pl.when(single).then(pl.lit("Polygon")).otherwise(pl.lit("MultiPolygon"))
    text = pl.concat_str(
        pl.lit('{"type": "'),
        kind,
        pl.lit('", "coordinates": '),
        _strings(coordinates, offsets),
        pl.lit("}"),
    )
    return pl.select(text.alias(GEOMETRY)).to_series()


def rle_counts(objects: ObjectRuns) -> pl.Series:
    """Return the compressed counts of COCO's RLE of each object; see `encode_runs`."""
    return _strings(*encode_runs(objects)).alias(RLE)


def feature_lines(
    rows: pl.DataFrame, *, class_names: Sequence[str], object_type: ObjectType
) -> list[str]:
    """Return a GeoJSON feature per row of a table that has a column of geometries.

    Raises:
        ValueError: for a class that is none of ``class_names``, or numbers that JSON
            cannot hold.
    """
    measured = [
        name
        for name, dtype in rows.schema.items()
        if dtype.is_numeric() and name not in _NO_MEASUREMENT
    ]
    _require_finite(rows, measured)
    classes = {
        name: f'{{"name": {_json(name)}, "color": {_json(list(class_colour(index)))}}}'
        for index, name in enumerate(class_names)
    }
    line = pl.concat_str(
        pl.lit('{"type": "Feature", "id": "'),
        pl.col("id"),
        pl.lit('", "geometry": '),
        pl.col(GEOMETRY),
        pl.lit(f', "properties": {{"objectType": {_json(object_type)}, "classification": '),
        class_mapped(rows, classes, pl.String()),
        pl.lit(', "measurements": {'),
        _measurements(rows, measured),
        pl.lit('}, "metadata": {"label": "'),
        pl.col("label").cast(pl.String),
        pl.lit('"}}}'),
    )
    return rows.select(line).to_series().to_list()


def annotation_lines(
    rows: pl.DataFrame, *, image: int, shape: tuple[int, int], first: int
) -> list[str]:
    """Return a COCO annotation per row, with ids from ``first``.

    Besides ``category_id`` and ``rle`` the columns label, score, area and box of the
    table are needed.

    Raises:
        ValueError: for a score that JSON cannot hold.
    """
    _require_finite(rows, ["score"])
    head = f', "image_id": {image}, "category_id": '
    line = pl.concat_str(
        pl.lit('{"id": '),
        pl.int_range(first, first + pl.len()).cast(pl.String),
        pl.lit(head),
        pl.col(CATEGORY).cast(pl.String),
        pl.lit(f', "segmentation": {{"size": {_json(list(shape))}, "counts": "'),
        # Of the characters of the counts, 48 to 111, only this one is special in JSON.
        pl.col(RLE).str.replace_all("\\", "\\\\", literal=True),
        pl.lit('"}, "area": '),
        pl.col("area_px").cast(pl.String),
        pl.lit(', "bbox": ['),
        pl.concat_str(
            pl.col("x0_px"),
            pl.col("y0_px"),
            pl.col("x1_px") - pl.col("x0_px"),
            pl.col("y1_px") - pl.col("y0_px"),
            separator=", ",
        ),
        pl.lit('], "iscrowd": 0, "score": '),
        _number("score", rows.schema["score"]),
        pl.lit(', "label": '),
        pl.col("label").cast(pl.String),
        pl.lit("}"),
    )
    return rows.select(line).to_series().to_list()


def class_mapped(rows: pl.DataFrame, values: dict[str, Any], dtype: pl.DataType) -> pl.Expr:
    """Return what gives each row the value of its class.

    Raises:
        ValueError: for a class without a value.
    """
    unknown = sorted(set(rows["class"].unique()) - set(values))
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is none of {', '.join(values)}")
    return pl.col("class").replace_strict(values, return_dtype=dtype)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _measurements(rows: pl.DataFrame, names: Sequence[str]) -> pl.Expr:
    """Return the members ``"name": number``; one that is null is left out, comma included."""
    members = [pl.lit(f"{_json(name)}: ") + _number(name, rows.schema[name]) for name in names]
    none = pl.lit(None, pl.String)
    return pl.concat_str(none, *members, separator=", ", ignore_nulls=True)


def _number(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column as text that reads back to the same number."""
    # JSON has one kind of number, and its readers take it for a double.
    number = pl.col(name).cast(pl.Float64) if dtype == pl.Float32 else pl.col(name)
    return number.cast(pl.String)


def _require_finite(rows: pl.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if rows.schema[name].is_float() and not rows[name].is_finite().all():
            raise ValueError(f"column {name!r} holds NaN or infinity, which JSON cannot")


def _strings(text: Any, offsets: Any) -> pl.Series:
    """Return the pieces of a text of ASCII in uint8, cut at ``offsets (N + 1,)``, as strings."""
    buffers = pa.py_buffer(offsets), pa.py_buffer(text)
    return pl.Series("text", pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers))


@kernel
def _coordinates(polygons: Any, rings: Any, starts: Any, vertices: Any, digits: int) -> Any:
    """Return the nested lists of coordinates as ASCII, and where those of each object begin.

    ``digits`` are those of the largest coordinate. One polygon stands alone, several or
    none in a list.
    """
    brackets = 3 * (len(starts) + len(rings) + len(polygons))
    text = np.empty(len(vertices) * (2 * digits + 4) + brackets, np.uint8)
    ends = np.zeros(len(polygons), np.int64)
    at = 0
    for i in range(len(polygons) - 1):
        listed = polygons[i + 1] - polygons[i] != 1
        if listed:
            at = _put(text, at, 91)  # [
        for p in range(polygons[i], polygons[i + 1]):
            if p > polygons[i]:
                at = _put(text, at, 44)  # ,
            at = _put(text, at, 91)
            for q in range(rings[p], rings[p + 1]):
                if q > rings[p]:
                    at = _put(text, at, 44)
                at = _put_ring(text, at, vertices[starts[q] : starts[q + 1]])
            at = _put(text, at, 93)  # ]
        if listed:
            at = _put(text, at, 93)
        ends[i + 1] = at
    return text[:at].copy(), ends


@kernel
def _put(text: Any, at: int, character: int) -> int:
    text[at] = character
    return at + 1


@kernel
def _put_ring(text: Any, at: int, vertices: Any) -> int:
    """Write ``[[x,y],...]`` from ``at``; return the end of the text."""
    at = _put(text, at, 91)
    for v in range(len(vertices)):
        if v:
            at = _put(text, at, 44)
        at = _put(text, at, 91)
        at = _put_number(text, at, vertices[v, 0])
        at = _put(text, at, 44)
        at = _put_number(text, at, vertices[v, 1])
        at = _put(text, at, 93)
    return _put(text, at, 93)


@kernel
def _put_number(text: Any, at: int, number: int) -> int:
    """Write the decimal digits of a number that is not negative; return the end of the text."""
    end = at + 1
    rest = number // 10
    while rest:
        end += 1
        rest //= 10
    for place in range(end - 1, at - 1, -1):
        text[place] = 48 + number % 10
        number //= 10
    return end
