"""Objects in the formats of others: GeoJSON for QuPath, COCO JSON, Parquet and CSV.

Every file appears whole or not at all (`domainseg.atomic`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, sentence
from domainseg.instances.encode import require_countable
from domainseg.instances.object_files import (
    ROWS,
    coco_file,
    csv_file,
    geojson_file,
    parquet_file,
    slices,
)
from domainseg.instances.object_text import CATEGORY, ObjectType, geometries, rle_counts
from domainseg.instances.outlines import outlines_of_runs
from domainseg.instances.runs import object_runs, runs_of_instances, runs_of_labels, slice_runs
from domainseg.records import Array, Instances


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
        ValueError: when the table's labels are not those of the objects, it has a class
            that is none of ``class_names``, or numbers that JSON cannot hold.
        OutputError: when the file cannot be written.
    """
    runs = object_runs(objects)
    _require_rows(runs.ids, table)
    with (
        atomic_path(path) as partial,
        geojson_file(partial, class_names=class_names, object_type=object_type) as write,
    ):
        for number, rows in enumerate(slices(table)):
            some = slice_runs(runs, number * ROWS, number * ROWS + rows.height)
            write(rows.with_columns(geometries(outlines_of_runs(some))))


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
    with atomic_path(path) as partial, coco_file(partial, class_names=class_names) as coco:
        for file_name, instances in images:
            coco.begin(file_name, instances.shape)
            for rows in _rows_of_instances(instances):
                coco.write(rows)


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
    _require_rows(ids, table)
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
        with atomic_path(parquet) as partial, parquet_file(partial, schema=table.schema) as write:
            for rows in slices(table):
                write(rows)
    if csv is not None:
        with atomic_path(csv) as partial, csv_file(partial, schema=table.schema) as write:
            for rows in slices(table):
                write(rows)


def join_objects(tables: Sequence[Path], *, parquet: Path, csv: Path) -> None:
    """Write the object tables of several Parquet files as one, in memory of a few row groups.

    Columns are those of all tables, in the order they first appear; what a table lacks is
    missing. Otherwise as `write_objects`.

    Raises:
        OutputError: when a file cannot be written.
    """
    schema: dict[str, pl.DataType] = {}
    for path in tables:
        for name, kind in pl.read_parquet_schema(path).items():
            schema.setdefault(name, kind)
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_path(path)) for path in (parquet, csv)]
        writes = [
            stack.enter_context(file(path, schema=pl.Schema(schema)))
            for file, path in zip((parquet_file, csv_file), paths, strict=True)
        ]
        for rows in _row_groups(tables, schema):
            for write in writes:
                write(rows)


def join_coco(files: Sequence[tuple[str, Path]], path: Path, *, class_names: Sequence[str]) -> None:
    """Write the COCO files of several images as one, a line at a time.

    ``files`` gives the file name of each image and the COCO file of it alone, as `coco_file`
    writes it. Images and annotations are numbered from 1, in the order of the files.

    Raises:
        InputError: when a file was written by something else.
        OutputError: when the file cannot be written.
    """
    with atomic_path(path) as partial, coco_file(partial, class_names=class_names) as coco:
        for name, one in files:
            with one.open(encoding="utf-8") as file:
                told, size = _told(file)
                coco.begin(name, size)
                file.seek(told)
                coco.copy(_annotations_of(file))


def _told(file: TextIO) -> tuple[int, tuple[int, int]]:
    """Return where the annotations of a COCO file of one image begin, and its ``(H, W)``."""
    file.readline()
    first = file.tell()
    while not (line := file.readline()).startswith('"images": '):
        if not line:
            raise InputError(
                sentence(
                    file.name,
                    found="a COCO file of another layout",
                    wanted="the one that a run wrote",
                    fix="predict the image again with --restart",
                )
            )
    (image,) = json.loads(line.removeprefix('"images": ').rstrip()[:-1])
    return first, (int(image["height"]), int(image["width"]))


def _annotations_of(file: TextIO) -> Iterator[str]:
    """Yield the annotations, a line each, from where the file is."""
    while (line := file.readline().rstrip("\n")) and line != "],":
        yield line.removesuffix(",")


def _row_groups(
    tables: Sequence[Path], schema: Mapping[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    """Yield the rows of all tables with every column, `ROWS` at a time."""
    held: list[pl.DataFrame] = []
    for path in tables:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS):
                rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
                missing = [
                    pl.lit(None, d).alias(n) for n, d in schema.items() if n not in rows.columns
                ]
                held.append(rows.with_columns(missing).select(list(schema)))
                if sum(map(len, held)) >= ROWS:
                    joined = pl.concat(held)
                    yield joined.head(ROWS)
                    held = [joined.slice(ROWS)]
    yield from slices(pl.concat(held)) if held else ()


def _require_rows(ids: NDArray[np.int64], table: pl.DataFrame) -> None:
    if not np.array_equal(ids, table["label"].to_numpy()):
        raise ValueError(f"a table of {len(table)} rows is not that of these {len(ids)} objects")


def _rows_of_instances(instances: Instances) -> Iterator[pl.DataFrame]:
    """Yield the rows that COCO's annotations are made of, `ROWS` at a time."""
    require_countable(instances.shape)
    runs = runs_of_instances(instances)
    (y0, x0), (y1, x1) = instances.boxes[:, 0].T, instances.boxes[:, 1].T
    table = pl.DataFrame(
        {
            "label": instances.ids,
            CATEGORY: instances.classes.astype(np.int64) + 1,
            "score": instances.scores.astype(np.float32),
            "area_px": instances.areas_px(),
            "y0_px": y0,
            "x0_px": x0,
            "y1_px": y1,
            "x1_px": x1,
        }
    )
    for number, rows in enumerate(slices(table)):
        some = slice_runs(runs, number * ROWS, number * ROWS + rows.height)
        yield rows.with_columns(rle_counts(some))
