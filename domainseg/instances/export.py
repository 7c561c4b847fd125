"""Objects in the formats of others: GeoJSON for QuPath, COCO JSON, Parquet and CSV.

Every file appears whole or not at all (`domainseg.atomic`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from domainseg.atomic import atomic_path
from domainseg.instances.colours import Rgb, class_colour
from domainseg.instances.columns import OBJECT_COLUMNS, SCHEMA_VERSION, table_columns
from domainseg.instances.encode import encode_rle
from domainseg.instances.outlines import Outlines, find_outlines
from domainseg.instances.runs import runs_of_labels
from domainseg.records import Array, Instances

ObjectType = Literal["detection", "cell", "annotation", "tile"]

_NO_MEASUREMENT = frozenset({"label", "layer", "y0_px", "x0_px", "y1_px", "x1_px"})
_ROWS = 1 << 16


def write_geojson(
    path: Path,
    objects: Array | Instances,
    *,
    table: pl.DataFrame,
    class_names: Sequence[str],
    object_type: ObjectType = "detection",
) -> None:
    """Write a GeoJSON feature collection that QuPath opens, one feature an object.

    Geometries are the exact outlines (`find_outlines`), a Polygon where there is one
    part and a MultiPolygon otherwise, ``(x, y)`` in pixels of the full resolution
    from the upper left corner. ``table`` is that of `measure` for the same
    ``objects`` (for layers see `table_instances`): it gives id, class, and as
    measurements its numbers under their own names, units included; unknown ones
    are left out. The label goes into the metadata. Colours follow the place in
    ``class_names``.

    Raises:
        ValueError: when the table's labels are not those of the objects.
        OutputError: when the file cannot be written.
    """
    outlines = find_outlines(objects)
    _require_rows(outlines.ids.tolist(), table)
    colours = {name: class_colour(index) for index, name in enumerate(class_names)}
    features = _features(outlines, table, colours, object_type)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for line in _separated(features):
            file.write(line)
        file.write("\n]}\n")


def write_coco(
    path: Path, images: Iterable[tuple[str, Instances]], *, class_names: Sequence[str]
) -> None:
    """Write COCO instance annotations that pycocotools loads, image by image.

    ``images`` gives file name and instances of each image and is gone through once.
    Masks are compressed RLE; ``bbox`` is ``[x, y, width, height]`` and ``area`` the
    number of pixels. Category ids count from 1 in the order of ``class_names``,
    image and annotation ids from 1; ``label`` is the object's own id.

    Raises:
        InputError: for an image too large for COCO's RLE (2**32 pixels).
        OutputError: when the file cannot be written.
    """
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, 1)]
    described: list[dict[str, Any]] = []
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "domainseg"}, "licenses": [], "annotations": [')
        for line in _separated(_annotations(images, described)):
            file.write(line)
        file.write(f'\n],\n"categories": {json.dumps(categories)},\n')
        file.write(f'"images": {json.dumps(described)}}}\n')


def table_instances(labels: Array, *, table: pl.DataFrame, class_names: Sequence[str]) -> Instances:
    """Return the objects of a label map, or of layers of them, as instances in table order.

    ``labels`` is integer ``(H, W)``, or ``(L, H, W)`` with labels that are unique
    over the layers; ``table`` is that of `measure`, for layers their tables one
    after the other. Classes and scores come from the table.

    Raises:
        ValueError: when the table's labels are not those of the map.
    """
    layers = [runs_of_labels(layer) for layer in (labels if labels.ndim == 3 else [labels])]
    ids = np.concatenate([layer.ids for layer in layers])
    _require_rows(ids.tolist(), table)
    lengths = np.concatenate([np.diff(layer.offsets) for layer in layers])
    indices = {name: index for index, name in enumerate(class_names)}
    corners = table.select("y0_px", "x0_px", "y1_px", "x1_px").to_numpy()
    return Instances(
        ids=ids,
        boxes=corners.astype(np.int64).reshape(-1, 2, 2),
        runs=np.concatenate([layer.runs for layer in layers]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        classes=np.array([indices[name] for name in table["class"]], np.int16),
        scores=table["score"].to_numpy().astype(np.float32),
        shape=layers[0].shape,
    )


def write_objects(
    table: pl.DataFrame, *, parquet: Path | None = None, csv: Path | None = None
) -> None:
    r"""Write the object table as Parquet, as CSV, or both.

    The Parquet file's metadata holds ``domainseg.schema_version``, and each field's
    ``unit`` and ``description`` where the column is one of `OBJECT_COLUMNS` or an
    intensity. The CSV follows RFC 4180: a header, ``\r\n``, quotes where needed;
    UTF-8, a missing value is empty, and floats read back to the same bits.

    Raises:
        OutputError: when a file cannot be written.
    """
    if parquet is not None:
        with atomic_path(parquet) as partial:
            pq.write_table(_described(table), partial)
    if csv is not None:
        with atomic_path(csv) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            for number, rows in enumerate(_slices(table)):
                file.write(rows.write_csv(include_header=number == 0, line_terminator="\r\n"))


def _require_rows(ids: list[int], table: pl.DataFrame) -> None:
    if ids != table["label"].to_list():
        raise ValueError(f"a table of {len(table)} rows is not that of these {len(ids)} objects")


def _separated(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each record as one line of JSON, with the comma before it where one belongs."""
    for number, record in enumerate(records):
        yield (",\n" if number else "\n") + json.dumps(record, ensure_ascii=False, allow_nan=False)


def _slices(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in slices; an empty table is one slice, so that its header is written."""
    for start in range(0, max(len(table), 1), _ROWS):
        yield table.slice(start, _ROWS)


def _features(
    outlines: Outlines, table: pl.DataFrame, colours: Mapping[str, Rgb], object_type: ObjectType
) -> Iterator[dict[str, Any]]:
    measured = [
        name
        for name, dtype in table.schema.items()
        if dtype.is_numeric() and name not in _NO_MEASUREMENT
    ]
    for index, row in enumerate(table.iter_rows(named=True)):
        name = row["class"]
        yield {
            "type": "Feature",
            "id": row["id"],
            "geometry": _geometry(outlines, index),
            "properties": {
                "objectType": object_type,
                "classification": {"name": name, "color": list(colours[name])},
                "measurements": {key: row[key] for key in measured if row[key] is not None},
                "metadata": {"label": str(row["label"])},
            },
        }


def _geometry(outlines: Outlines, index: int) -> dict[str, Any]:
    polygons = outlines.multipolygon(index)
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _annotations(
    images: Iterable[tuple[str, Instances]], described: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of all images; note each image in ``described``."""
    number = 0
    for image_id, (file_name, instances) in enumerate(images, 1):
        height, width = instances.shape
        described.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        areas = instances.areas_px().tolist()
        for index, rle in enumerate(encode_rle(instances)):
            (y0, x0), (y1, x1) = instances.boxes[index].tolist()
            number += 1
            yield {
                "id": number,
                "image_id": image_id,
                "category_id": int(instances.classes[index]) + 1,
                "segmentation": rle.to_dict(),
                "area": areas[index],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "score": float(instances.scores[index]),
                "label": int(instances.ids[index]),
            }


def _described(table: pl.DataFrame) -> Any:
    """Return the table as Arrow with units, descriptions and the schema version in its metadata."""
    known = {column.name: column for column in OBJECT_COLUMNS}
    prefix = "intensity_mean_"
    channels = [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]
    known |= {column.name: column for column in table_columns(channels)}
    arrow = table.to_arrow()
    fields = [
        field.with_metadata(
            {"unit": known[field.name].unit, "description": known[field.name].description}
        )
        if field.name in known
        else field
        for field in arrow.schema
    ]
    metadata = {"domainseg.schema_version": str(SCHEMA_VERSION)}
    return arrow.cast(pa.schema(fields, metadata=metadata))
