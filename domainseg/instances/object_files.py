"""Files of objects that grow row by row: Parquet, CSV, GeoJSON and COCO.

What a file holds does not depend on how many rows came at a time, so a table in memory
and objects that come from tiles give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from domainseg.atomic import atomic_path, writing_below
from domainseg.instances.columns import OBJECT_COLUMNS, SCHEMA_VERSION, table_columns
from domainseg.instances.encode import countable
from domainseg.instances.object_rows import Scene
from domainseg.instances.object_text import (
    CATEGORY,
    GEOMETRY,
    ObjectType,
    annotation_lines,
    class_mapped,
    feature_lines,
)

PARQUET, CSV, GEOJSON, COCO = (
    "objects.parquet",
    "objects.csv",
    "objects.geojson",
    "objects.coco.json",
)
ROWS = 16_384
"""Rows of a row group of Parquet, and the most that are turned into text at a time."""

Write = Callable[[pl.DataFrame], None]


def slices(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the table in slices of `ROWS`; the last may be shorter."""
    for start in range(0, table.height, ROWS):
        yield table.slice(start, ROWS)


@contextmanager
def parquet_file(path: Path, *, schema: pl.Schema) -> Iterator[Write]:
    """Yield what writes rows as one row group.

    The metadata holds ``domainseg.schema_version``, and each field's ``unit`` and
    ``description`` where the column is one of `OBJECT_COLUMNS` or an intensity.
    """
    described = _described(schema)
    with pq.ParquetWriter(path, described) as writer:

        def write(rows: pl.DataFrame) -> None:
            # How an array is cut into chunks would show in the pages of the file.
            group = rows.to_arrow().combine_chunks().cast(described)
            writer.write_table(group, row_group_size=ROWS)

        yield write


@contextmanager
def csv_file(path: Path, *, schema: pl.Schema) -> Iterator[Write]:
    r"""Yield what appends rows to a CSV after RFC 4180: ``\r\n``, quotes where needed."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(pl.DataFrame(schema=schema).write_csv(line_terminator="\r\n"))

        def write(rows: pl.DataFrame) -> None:
            file.write(rows.write_csv(include_header=False, line_terminator="\r\n"))

        yield write


@contextmanager
def geojson_file(
    path: Path, *, class_names: Sequence[str], object_type: ObjectType
) -> Iterator[Write]:
    """Yield what appends the features of rows that have a column ``geometry``."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        lines = _Lines(file)

        def write(rows: pl.DataFrame) -> None:
            lines.write(feature_lines(rows, class_names=class_names, object_type=object_type))

        yield write
        file.write("\n]}\n")


@contextmanager
def coco_file(path: Path, *, class_names: Sequence[str]) -> Iterator[CocoImages]:
    """Yield what takes images and their objects; the list of images ends the file."""
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, 1)]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "domainseg"}, "licenses": [], "annotations": [')
        images = CocoImages(file)
        yield images
        file.write(f'\n],\n"categories": {json.dumps(categories)},\n')
        file.write(f'"images": {json.dumps(images.described)}}}\n')


class CocoImages:
    """The images of a COCO file, each followed by its objects."""

    def __init__(self, file: TextIO) -> None:
        self.described: list[dict[str, Any]] = []
        self._lines = _Lines(file)
        self._shape = (0, 0)

    def begin(self, file_name: str, shape: tuple[int, int]) -> None:
        """Begin the next image, of ``shape`` (H, W)."""
        height, width = self._shape = shape
        number = len(self.described) + 1
        self.described.append(
            {"id": number, "file_name": file_name, "height": height, "width": width}
        )

    def copy(self, annotations: Iterable[str]) -> None:
        """Append objects of the image that another COCO file describes, a line each."""
        image = len(self.described)
        for line in annotations:
            # Both numbers stand first, as `annotation_lines` writes them.
            rest = line.partition(', "category_id": ')[2]
            number = self._lines.count + 1
            self._lines.write([f'{{"id": {number}, "image_id": {image}, "category_id": {rest}'])

    def write(self, rows: pl.DataFrame) -> None:
        """Append objects of the image: rows with ``category_id`` and ``rle``."""
        first = self._lines.count + 1
        image = len(self.described)
        self._lines.write(annotation_lines(rows, image=image, shape=self._shape, first=first))


class _Lines:
    """The elements of a list in JSON, a line each, commas between them."""

    def __init__(self, file: TextIO) -> None:
        self.count = 0
        self._file = file

    def write(self, lines: Sequence[str]) -> None:
        if lines:
            self._file.write(",\n" if self.count else "\n")
            self._file.write(",\n".join(lines))
            self.count += len(lines)


class ObjectFiles:
    """The four files of an image's objects, which appear together or not at all.

    A context manager. They have their names from `commit` on, or from the end of the
    block; when the block raises, there is nothing. COCO cannot hold an image of 2**32
    pixels: then its file is left out, and `coco` is False. Other files of an earlier
    run are replaced, and its COCO file is removed where there is no new one.

    Attributes:
        coco: whether there is a COCO file.
    """

    def __init__(self, folder: Path, *, scene: Scene) -> None:
        self.coco = countable(scene.shape)
        self._folder, self._scene = folder, scene
        self._held: list[pl.DataFrame] = []
        self._counts = Counter(dict.fromkeys(scene.class_names, 0))
        self._written = 0
        self._categories = {name: i for i, name in enumerate(scene.class_names, 1)}
        self._writers: list[Write] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin the files, under names of their own.

        Raises:
            OutputError: when the folder cannot be written to.
        """
        scene = self._scene
        schema = pl.Schema({c.name: c.dtype for c in table_columns(scene.channels)})
        names = [PARQUET, CSV, GEOJSON, *([COCO] if self.coco else [])]
        with ExitStack() as stack:
            # Entered before the writers, so that all are closed before one gets its name.
            paths = [stack.enter_context(atomic_path(self._folder / name)) for name in names]
            stack.enter_context(writing_below(self._folder))
            table = [
                stack.enter_context(parquet_file(paths[0], schema=schema)),
                stack.enter_context(csv_file(paths[1], schema=schema)),
            ]
            outlines = geojson_file(
                paths[2], class_names=scene.class_names, object_type=scene.object_type
            )
            self._writers = [_columns(write, list(schema)) for write in table]
            self._writers.append(_columns(stack.enter_context(outlines), [*schema, GEOMETRY]))
            if self.coco:
                images = stack.enter_context(coco_file(paths[3], class_names=scene.class_names))
                images.begin(scene.image_id, scene.shape)
                self._writers.append(images.write)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self._stack.__exit__(kind, error, trace)

    @property
    def rows(self) -> int:
        """Objects that were handed in."""
        return self._written + sum(map(len, self._held))

    @property
    def per_class(self) -> Mapping[str, int]:
        """Objects of each class name that were written, all once it is committed."""
        return dict(self._counts)

    def write(self, rows: pl.DataFrame) -> None:
        """Take the next objects, in the order of the files: those of `object_rows`."""
        self._held.append(rows)
        if sum(map(len, self._held)) >= ROWS:
            held = pl.concat(self._held)
            whole = held.height - held.height % ROWS
            for group in slices(held.head(whole)):
                self._emit(group)
            self._held = [held.slice(whole)]

    def commit(self) -> None:
        """Write what is held and give all files their names.

        Raises:
            OutputError: when a file cannot be written; then there is none.
        """
        with self._stack:
            if self._held:
                self._emit(pl.concat(self._held))
                self._held = []
        if not self.coco:
            with writing_below(self._folder):
                (self._folder / COCO).unlink(missing_ok=True)

    def _emit(self, rows: pl.DataFrame) -> None:
        if self.coco:
            category = class_mapped(rows, self._categories, pl.Int64())
            rows = rows.with_columns(category.alias(CATEGORY))
        for write in self._writers:
            write(rows)
        self._counts.update(rows["class"].to_list())
        self._written += rows.height


def _columns(write: Write, names: Sequence[str]) -> Write:
    """Return what writes these columns of the rows it is given."""
    return lambda rows: write(rows.select(names))


def _described(schema: pl.Schema) -> Any:
    """Return the schema in Arrow with units, descriptions and the schema version."""
    known = {column.name: column for column in OBJECT_COLUMNS}
    prefix = "intensity_mean_"
    channels = [name.removeprefix(prefix) for name in schema if name.startswith(prefix)]
    known |= {column.name: column for column in table_columns(channels)}
    fields = [
        field.with_metadata(
            {"unit": known[field.name].unit, "description": known[field.name].description}
        )
        if field.name in known
        else field
        for field in pl.DataFrame(schema=schema).to_arrow().schema
    ]
    metadata = {"domainseg.schema_version": str(SCHEMA_VERSION)}
    return pa.schema(fields, metadata=metadata)
