"""Scratches that cross many tiles: is each one object, and how long is it?

    python benchmarks/wafer_scratches.py MODEL [--fields 6] [--side 4096] [--core-px 256]
                                         [--set instances.threshold=0.15]

Makes fields with one scratch of 1,400 to 2,000 um each, with up to two gaps, at a contrast to
noise of 3, and runs `predict` over them in tiles. A row for each field: true length of the
centre line inside the image, tiles that the scratch lies in, scratches found on it that are
longer than a tenth of it, measured length over the true one, and the links of ``run.json``.
The measured length is that of the longest object on the scratch.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
from numpy.typing import NDArray

from domainseg.loaders.wafer_files import write_wafers
from domainseg.loaders.wafers import Wafers
from domainseg.predict import predict
from domainseg.run_folder import read_record
from domainseg.runs import RunOptions

LENGTHS_UM = (1400.0, 2000.0)
WIDTHS_UM = (1.0, 3.0)
SEED = 5003
"""Of the fields: another than any recipe's."""


@dataclass(frozen=True)
class Row:
    """One scratch: true length, tiles, objects on it, length of the longest, links."""

    name: str
    true_px: float
    tiles: int
    objects: int
    measured_px: float
    links: int

    @property
    def ratio(self) -> float:
        """Measured over true length."""
        return self.measured_px / self.true_px

    def text(self) -> str:
        """Return the row, columns as the header."""
        return (
            f"{self.name:10s} {self.true_px:10.0f} {self.tiles:6d} {self.objects:8d} "
            f"{self.ratio:7.4f} {self.links:6d}"
        )


def main() -> None:
    """Print one row per scratch, and what they have in common."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--core-px", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        print("field      true px     tiles  objects   ratio  links")
        changes = (f"tiling.core_px={given.core_px}", *given.set)
        for row in measured(
            given.model, Path(scratch), given.fields, given.side, given.core_px, changes
        ):
            print(row.text(), flush=True)
            rows.append(row)
    whole = sum(row.objects == 1 for row in rows)
    print(
        f"{whole} of {len(rows)} are one object; lengths are off by "
        f"{100 * max(abs(row.ratio - 1) for row in rows):.1f} % at most; "
        f"{min(row.tiles for row in rows)} tiles or more each"
    )


def measured(
    model: Path, folder: Path, fields: int, side: int, core_px: int, changes: tuple[str, ...]
) -> Iterator[Row]:
    """Yield a row for each field with a scratch of ten tiles or more."""
    made = folder / "made"
    options = Wafers(
        train=0,
        val=0,
        test=fields,
        height=side,
        width=side,
        field_at=("anywhere",),
        classes=("scratch",),
        defects=(1, 1),
        good=0.0,
        levels=(3.0,),
        scratch_um=LENGTHS_UM,
        scratch_width_um=WIDTHS_UM,
        seed=SEED,
    )
    write_wafers(made, options)
    truth = pl.read_csv(made / "defects.csv")
    told = RunOptions(overrides=changes)
    predict(model, [made / "images"], folder / "found", options=told)
    for image, length_um in zip(truth["image"], truth["skeleton_length_um"], strict=True):
        labels = tifffile.imread(made / "labels" / f"{image}.tif")
        tiles = tiles_of(labels > 0, core_px)
        if tiles >= 10:
            run = folder / "found" / image
            yield row_of(run, image, labels > 0, length_um / options.spacing_um, tiles)


def tiles_of(mask: NDArray[np.bool_], core_px: int) -> int:
    """Return the number of square tiles of ``core_px`` that hold a pixel of a mask."""
    y, x = np.nonzero(mask)
    return len(np.unique(np.stack([y, x]) // core_px, axis=1).T)


def row_of(run: Path, image: str, mask: NDArray[np.bool_], true_px: float, tiles: int) -> Row:
    """Return what a run found on the scratch of ``mask``."""
    found = tifffile.imread(run / "labels.tif")
    objects = pl.read_csv(run / "objects.csv").filter(pl.col("class") == "scratch")
    on = np.unique(found[mask])
    lengths = (
        objects.filter(pl.col("label").is_in(on.tolist()))["skeleton_length_px"]
        .drop_nulls()
        .to_numpy()
    )
    long = lengths[lengths > 0.1 * true_px]
    links = int(read_record(run)["links"])
    return Row(image, true_px, tiles, len(long), float(lengths.max(initial=0.0)), links)


if __name__ == "__main__":
    main()
