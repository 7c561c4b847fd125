"""Images with a table of run lengths: one row of a CSV holds the pixels of one class.

    train_images/0002cc93b.jpg
    train.csv                     ImageId,ClassId,EncodedPixels
                                  0002cc93b.jpg,1,29102 12 29346 24 ...

Runs are pairs of first pixel and length; pixels are counted from 1, down the columns, as
in the competitions of Kaggle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.images import open_image
from domainseg.loaders.folder import bare, existing_folder, files_by_id, some, spacing_of
from domainseg.loaders.masks import GOOD, Annotation, components, runs_of_window, stacked
from domainseg.loaders.places import folder_columns
from domainseg.records import Array, Entry, Sample


class Row(NamedTuple):
    """One row of the table: where it stands, the class's name, the runs as text."""

    where: str
    name: str
    runs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RleCsv:
    """Images in a folder, nested as deep as they like, and a CSV of their pixels.

    An image none of whose rows has runs is *good*: it has no objects.

    Attributes:
        name: of the layout.
        images: folder of the images, relative to the data's root.
        csv: the table, relative to the root.
        image_column: column of the image's name, with or without an ending.
        class_column: column of the class, None where there is one class.
        pixels_column: column of the runs; empty for none.
        classes: what the class column says to class name; needed where there is one.
        class_name: of the one class where there is no class column.
        objects: ``components``: every 8-connected component of a row's pixels is an
            object; ``rows``: every row is.
        good_without_row: count images that the table does not name as good.
        spacing_um: pixel size of every image, overriding what the files say.
    """

    name: Literal["rle_csv"] = "rle_csv"
    images: str = "train_images"
    csv: str = "train.csv"
    image_column: str = "ImageId"
    class_column: str | None = "ClassId"
    pixels_column: str = "EncodedPixels"
    classes: dict[str, str] | None = None
    class_name: str = "object"
    objects: Literal["components", "rows"] = "components"
    good_without_row: bool = False
    spacing_um: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.class_column is None) == bool(self.classes):
            raise RecipeError(
                sentence(
                    "classes",
                    found=f"{'a table' if self.classes else 'none'} with class_column: "
                    f"{self.class_column or 'null'}",
                    wanted="a table of what the column says to name, and none without a column",
                    fix="change one of them",
                )
            )

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> RleImages:
        """Return the data set below ``root``; no pixel is read and no run decoded.

        Raises:
            MissingInputError: when the folder or the table is missing, no image is there,
                or an image has no row.
            InputError: when the table lacks a column, or names an image that is not there
                or a class that ``classes`` does not.
        """
        existing_folder(root, "data")
        folder = existing_folder(root / self.images, "images")
        images = files_by_id(folder, "")
        if not images:
            raise MissingInputError(
                sentence(folder, found="no image", wanted="the images", fix="check the path")
            )
        rows = self._rows(root / self.csv, images)
        if (absent := images.keys() - rows.keys()) and not self.good_without_row:
            raise MissingInputError(
                sentence(
                    root / self.csv,
                    found=f"no row for {some(absent)}",
                    wanted="a row for every image",
                    fix="add the rows, or set good_without_row if such images are good",
                )
            )
        return RleImages(self, images, rows, dict(select or {}))

    def _rows(self, path: Path, images: Mapping[str, Path]) -> dict[str, list[Row]]:
        """Return the rows of each image that has some."""
        table = _table(path, (self.image_column, self.class_column, self.pixels_column))
        found: dict[str, list[Row]] = {}
        for number, row in enumerate(table.iter_rows(named=True), 2):
            where = f"{path}:{number}"
            said = str(row[self.image_column] or "").strip()
            name = said if said in images else bare(said)
            if name not in images:
                raise InputError(
                    sentence(
                        where,
                        found=f"{said!r}, which is no image in {self.images}",
                        wanted=f"one of its {len(images)} images",
                        fix="add the image or remove the row",
                    )
                )
            owner = self._owner(where, row)
            runs = str(row[self.pixels_column] or "").strip()
            found.setdefault(name, []).append(Row(where, owner, runs))
        return found

    def _owner(self, where: str, row: Mapping[str, object]) -> str:
        """Return the class of a row."""
        if self.class_column is None or self.classes is None:
            return self.class_name
        said = str(row[self.class_column])
        if said not in self.classes:
            raise InputError(
                sentence(
                    where,
                    found=f"class {said}",
                    wanted=f"one of {', '.join(self.classes)}",
                    fix="add it to classes or correct it",
                )
            )
        return self.classes[said]


@dataclass(frozen=True, slots=True)
class RleImages:
    """The images of a table of run lengths."""

    options: RleCsv
    images: Mapping[str, Path]
    rows: Mapping[str, Sequence[Row]]
    select: Mapping[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the table of classes."""
        return tuple(dict.fromkeys((self.options.classes or {}).values())) or (
            self.options.class_name,
        )

    def entries(self) -> tuple[Entry, ...]:
        """Return every image, sorted by id, with the classes its rows name or ``good``."""
        return tuple(
            Entry(name, group=name, tags=self._tags(name), columns=folder_columns(name))
            for name in sorted(self.images)
        )

    def _tags(self, name: str) -> tuple[str, ...]:
        return tuple(sorted({row.name for row in self.rows.get(name, ()) if row.runs})) or (GOOD,)

    def load(self, entry: Entry) -> Sample:
        """Return the image with its objects, in memory.

        Raises:
            InputError: when a file is damaged, or runs are no pairs of whole numbers in
                ascending order inside the image.
        """
        image = open_image(self.images[entry.id], select=self.select)
        size = (image.shape[1], image.shape[2])
        marks = self._annotation(entry.id, size)
        return Sample(
            id=entry.id,
            image=image.read(),
            channels=image.channels,
            spacing_um=spacing_of(self.options.spacing_um, image.spacing_um),
            truth=marks.truth,
            tags=marks.tags(self.classes),
            group=entry.group,
            kind=entry.kind,
        )

    def _annotation(self, name: str, size: tuple[int, int]) -> Annotation:
        runs: list[Array] = []
        classes: list[int] = []
        for row in self.rows.get(name, ()):
            if not row.runs:
                continue
            mask = decoded(row.where, row.runs, size)
            if self.options.objects == "rows":
                found = [runs_of_window(mask, (0, 0))]
            else:
                parts = components(mask)
                found = np.split(parts.runs, parts.offsets[1:-1])
            runs += found
            classes += [self.classes.index(row.name)] * len(found)
        return Annotation(stacked(runs, classes, shape=size))


def decoded(where: str, runs: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of column-major runs counted from 1, bool ``(H, W)``.

    Raises:
        InputError: when they are no pairs of whole numbers, overlap, do not ascend, or
            leave the image.
    """
    height, width = size
    try:
        pairs = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError):
        pairs = np.zeros(1, np.int64)
    if len(pairs) % 2:
        raise _refused(where, "runs that are no pairs of whole numbers", "first pixel and length")
    starts, lengths = pairs[::2] - 1, pairs[1::2]
    ends = starts + lengths
    if (lengths < 1).any() or starts[0] < 0 or ends.max() > height * width:
        raise _refused(
            where,
            f"runs from pixel {starts.min() + 1} to {ends.max()}",
            f"runs of 1 or more within the {height * width} pixels of {height} x {width}",
        )
    if (starts[1:] < ends[:-1]).any():
        raise _refused(where, "runs that overlap or go back", "runs in ascending order")
    changes = np.zeros(height * width + 1, np.int8)
    np.add.at(changes, starts, 1)
    np.add.at(changes, ends, -1)
    inside = np.cumsum(changes[:-1], dtype=np.int8).astype(bool)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def _refused(where: str, found: str, wanted: str) -> InputError:
    return InputError(sentence(where, found=found, wanted=wanted, fix="correct the row"))


def _table(path: Path, columns: Sequence[str | None]) -> pl.DataFrame:
    """Return the table as text, with at least these columns."""
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="the table of runs", fix="check csv")
        )
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(
            sentence(
                path,
                found="no CSV whose rows have as many values as its header",
                wanted="one",
                fix="export it again",
            )
        ) from error
    for column in columns:
        if column is not None and column not in table.columns:
            raise InputError(
                sentence(
                    path,
                    found=f"columns {', '.join(table.columns)}",
                    wanted=f"a column {column!r}",
                    fix="rename a column or correct the option that names it",
                )
            )
    return table
