"""Outlines of a lot's defects with their grades: GeoJSON for viewers, COCO for everything else.

The outlines are those that ``predict`` wrote, object by object; nothing is traced again. What
the rules ignore is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, sentence
from domainseg.instances.object_files import COCO, GEOJSON
from domainseg.quality.assess import Assessment
from domainseg.report.run_folder import OBJECTS
from domainseg.run_folder import read_record

Row = Mapping[str, Any]
ADDED = ("severity", "kill_prob", "contrast", "confidence")
"""Numbers of the assessment that an outline carries besides its grade, where they are known."""


def write_geojson(made: Assessment, run: Path, image: str, path: Path) -> None:
    """Write the outlines of one image, in its pixels, each with its grade and severity.

    Raises:
        InputError: the run's own outlines are damaged.
        OutputError: the file cannot be written.
    """
    rows = _by_id(made, image)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        _write(file, _features(run / GEOJSON, rows))
        file.write("]}\n")


def write_coco(made: Assessment, runs: Mapping[str, Path], path: Path) -> bool:
    """Write the masks of all images in one file of COCO's; return whether there is any.

    There is none where a run has no COCO: its objects overlap, or are too many to be counted.

    Raises:
        InputError: a run's own masks are damaged.
        OutputError: the file cannot be written.
    """
    if not runs or not all((run / COCO).is_file() for run in runs.values()):
        return False
    numbers = {name: i for i, name in enumerate(made.lot.classes, 1)}
    images: list[dict[str, Any]] = []
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [\n')
        lines = _annotations(made, runs, numbers, images)
        _write(file, lines)
        rest = {
            "categories": [{"id": i, "name": name} for name, i in numbers.items()],
            "images": images,
            "info": {"description": "domainseg"},
            "licenses": [],
        }
        file.write(f"], {json.dumps(rest, ensure_ascii=False)[1:]}\n")
    return True


def _write(file: TextIO, lines: Iterable[str]) -> None:
    between = ""
    for line in lines:
        file.write(f"{between}{line}")
        between = ",\n"
    file.write("\n" if between else "")


def _by_id(made: Assessment, image: str) -> dict[str, Row]:
    kept = made.defects.filter((pl.col("image") == image) & (pl.col("grade") != "ignore"))
    chosen = kept.select("id", "class", "grade", "grade_reason", "area_um2", *ADDED)
    return {row["id"]: row for row in chosen.iter_rows(named=True)}


def _features(path: Path, rows: Mapping[str, Row]) -> Iterator[str]:
    for feature in _lines(path):
        row = rows.get(str(feature.get("id")))
        if row is None:
            continue
        properties = feature.setdefault("properties", {})
        measurements = properties.setdefault("measurements", {})
        measurements |= {name: row[name] for name in ADDED if row[name] is not None}
        metadata = properties.setdefault("metadata", {})
        metadata |= {"grade": row["grade"], "grade_reason": row["grade_reason"]}
        yield json.dumps(feature, ensure_ascii=False)


def _annotations(
    made: Assessment,
    runs: Mapping[str, Path],
    numbers: Mapping[str, int],
    images: list[dict[str, Any]],
) -> Iterator[str]:
    """Yield the annotations of all images, and say in ``images`` which they are."""
    number = 0
    for place, (name, run) in enumerate(runs.items(), 1):
        described = read_record(run)["image"]
        _, height, width = described["shape"]
        file_name = Path(str(described["path"])).name
        images.append({"id": place, "file_name": file_name, "height": height, "width": width})
        rows = _by_id(made, name)
        ids = dict(pl.read_parquet(run / OBJECTS, columns=["label", "id"]).iter_rows())
        for annotation in _lines(run / COCO):
            row = rows.get(ids.get(annotation.get("label"), ""))
            if row is None:
                continue
            number += 1
            annotation |= {"id": number, "image_id": place, "category_id": numbers[row["class"]]}
            annotation |= {"grade": row["grade"], "severity": row["severity"]}
            if row["area_um2"] is not None:
                annotation["area_um2"] = row["area_um2"]
            yield json.dumps(annotation, ensure_ascii=False)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file that has one on each line, between its first line and its last.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            next(file, None)
            for line in file:
                text = line.strip().removesuffix(",")
                if not text.startswith("{"):
                    return
                yield json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            sentence(
                path,
                found="no outlines that can be read",
                wanted="the file that predict wrote",
                fix="predict again",
            )
        ) from error
