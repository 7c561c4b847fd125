"""From run folders to a report, on folders built here from small label maps."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from domainseg.errors import DomainsegError, InputError, MissingInputError, OutputError, UsageError
from domainseg.inspection import compose, gather, inspect
from domainseg.instances.evaluation import LabelPair, evaluate_pairs, write_evaluation
from domainseg.report import json as json_renderer
from domainseg.report import text as text_renderer
from domainseg.report.document import KeyNumbers, Table, Value

GOLDEN = Path(__file__).parent / "golden"
Labels = NDArray[np.uint16]


def squares(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (40, 50)) -> Labels:
    """Return a label map of rectangles ``(y0, x0, y1, x1)``, numbered from 1."""
    labels = np.zeros(shape, np.uint16)
    for label, (y0, x0, y1, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = label
    return labels


FOUND_A = squares((0, 0, 4, 4), (10, 10, 14, 26), (20, 30, 29, 33), (20, 33, 29, 39))
TRUTH_A = squares((0, 0, 4, 4), (10, 10, 14, 18), (10, 18, 14, 26), (20, 30, 29, 39))
FOUND_B = squares((30, 5, 36, 11), (5, 40, 8, 50))
TRUTH_B = squares((30, 5, 36, 11), (15, 20, 21, 26))


def table_of(labels: Labels, names: list[str], spacing: float | None) -> pl.DataFrame:
    """Return the columns a report reads, measured by hand on rectangles."""
    rows = []
    for label in np.unique(labels[labels > 0]).tolist():
        ys, xs = np.nonzero(labels == label)
        area = len(ys)
        short, long = sorted((np.ptp(ys) + 1, np.ptp(xs) + 1))
        edges = (ys.min() == 0, xs.min() == 0, ys.max() + 1 == 40, xs.max() + 1 == 50)
        rows.append(
            {
                "label": label,
                "class": names[(label - 1) % len(names)],
                "area_px": area,
                "area_um2": area * spacing**2 if spacing else None,
                "eq_diameter_px": 2 * (area / np.pi) ** 0.5,
                "eq_diameter_um": 2 * (area / np.pi) ** 0.5 * spacing if spacing else None,
                "eccentricity": float(1 - (short / long) ** 2) ** 0.5,
                "solidity": 1.0,
                "circularity": float(np.pi * area / (short + long) ** 2),
                "touches_border": bool(any(edges)),
            }
        )
    schema = {
        "label": pl.Int64,
        "class": pl.String,
        "area_px": pl.Int64,
        "area_um2": pl.Float64,
        "eq_diameter_px": pl.Float64,
        "eq_diameter_um": pl.Float64,
        "eccentricity": pl.Float64,
        "solidity": pl.Float64,
        "circularity": pl.Float64,
        "touches_border": pl.Boolean,
    }
    return pl.DataFrame(rows, schema=schema)


def record_of(name: str, *, objects: int, classes: list[str], **image: Any) -> dict[str, Any]:
    spacing = image.get("spacing_um")
    return {
        "schema": 1,
        "domainseg": "0.0",
        "image": {
            "name": name,
            "path": f"/somewhere/{name}",
            "sha256": "0123456789abcdef" * 4,
            "shape": [1, 40, 50],
            "dtype": "uint16",
            "channels": ["DAPI"],
            "spacing_um": spacing,
            "kind": image.get("kind"),
        },
        "model": {
            "name": "nuclei",
            "path": "/somewhere/model.safetensors",
            "sha256": "fedcba9876543210" * 4,
            "architecture": "unet",
            "encoder": "tu-tf_efficientnet_lite0",
            "head": "height",
            "classes": classes,
            "scores": {"val": {"mean_ap": 0.61}},
        },
        "recipe": {
            "data": {"diameter_px": 24},
            "train": {"lr": 0.0003, "augment": ["flip", "blur"]},
        },
        "lattice": {"core_px": 512, "halo_px": 128, "device": "cpu"},
        "grid": {"scale": [1.0, 0.5]},
        "inspected_px": 2000,
        "inspected_um2": 2000 * spacing[0] * spacing[1] if spacing else None,
        "objects": objects,
        "objects_per_class": {},
        "warnings": image.get("warnings", []),
        "versions": {"numpy": "2.4", "torch": "2.15"},
    }


def write_image(
    folder: Path,
    labels: Labels,
    *,
    name: str | None = None,
    classes: tuple[str, ...] = ("nucleus", "debris"),
    spacing: float | None = 0.5,
    truth: Labels | None = None,
    kind: str | None = None,
    warnings: tuple[str, ...] = (),
) -> Path:
    """Write one image's folder as predict lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(labels, list(classes), spacing)
    table.write_parquet(folder / "objects.parquet")
    record = record_of(
        name or f"{folder.name}.png",
        objects=table.height,
        classes=list(classes),
        spacing_um=[spacing, spacing] if spacing else None,
        kind=kind,
        warnings=list(warnings),
    )
    (folder / "run.json").write_text(json.dumps(record))
    picture = np.repeat((labels > 0).astype(np.uint8)[:, :, None] * 120, 3, axis=2)
    Image.fromarray(picture).save(folder / "overlay.png")
    tifffile.imwrite(folder / "labels.tif", labels)
    if truth is not None:
        tifffile.imwrite(folder / "truth.tif", truth)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run over two images of two kinds, both with known truth."""
    folder = tmp_path / "plate 7"
    write_image(folder / "a", FOUND_A, truth=TRUTH_A, kind="stained", warnings=("blurred",))
    write_image(folder / "b", FOUND_B, truth=TRUTH_B, kind="bright")
    pairs = [
        LabelPair("a", TRUTH_A, FOUND_A, "stained"),
        LabelPair("b", TRUTH_B, FOUND_B, "bright"),
    ]
    write_evaluation(evaluate_pairs(pairs), folder / "evaluation.json")
    return folder


def key_number(runs: list[Path], key: str) -> Any:
    """Return a key number of the report's JSON."""
    document = compose(gather(runs), title="t")
    content = json.loads(json_renderer.render(document))
    return content["sections"][0]["blocks"][0]["values"][key]


def table_named(runs: list[Path], name: str) -> Table:
    document = compose(gather(runs), title="t")
    blocks = [block for section in document.sections for block in section.blocks]
    return next(block for block in blocks if isinstance(block, Table) and block.id == name)


def close(got: Any, wanted: Any) -> bool:
    """Return whether two JSON values are equal, numbers to 1e-9."""
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(close(got[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(close, got, wanted))
    if isinstance(wanted, float) and isinstance(got, (int, float)):
        return got == pytest.approx(wanted, rel=1e-9)
    return bool(got == wanted)


def test_report_of_two_images_reads_as_agreed(run: Path) -> None:
    document = replace(compose(gather([run]), title="plate 7"), generator="domainseg")
    assert text_renderer.render(document) == (GOLDEN / "report.txt").read_text(encoding="utf-8")
    numbers = json.loads(json_renderer.render(document))
    assert close(numbers, json.loads((GOLDEN / "report.json").read_text(encoding="utf-8")))


def test_report_is_two_files_with_equal_bytes_on_a_second_run(run: Path, tmp_path: Path) -> None:
    page = inspect([run], out=tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    again = inspect([run], out=tmp_path / "again")
    for name in ("report.html", "report.json"):
        assert (page.parent / name).read_bytes() == (again.parent / name).read_bytes()
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]


def test_page_holds_every_number_of_the_text_and_the_pictures(run: Path, tmp_path: Path) -> None:
    source = inspect([run], out=tmp_path, title="A <b>title</b>").read_text(encoding="utf-8")
    assert "A &lt;b&gt;title&lt;/b&gt;" in source
    assert source.count('<img src="data:image/png;base64,') == 2 + 2 + 2 + 2
    assert source.count("<svg") == 2 + 2  # two plots, two swatches of the legend
    assert "6,000" in source  # 6 objects on 2 x 2000 px of .25 um2


@pytest.mark.parametrize(
    ("first", "second", "given", "heading"),
    [
        ({"title": "Steel"}, {"title": "Glass"}, None, "Steel"),
        ({"title": "Steel"}, {"title": "Glass"}, "Lot 7", "Lot 7"),
        ({"title": None}, {"title": "Glass"}, None, "2 runs"),
        ({}, {}, None, "2 runs"),
        (None, None, None, "2 runs"),
    ],
)
def test_the_title_of_the_first_recipe_is_the_heading(
    first: Any, second: Any, given: str | None, heading: str, tmp_path: Path
) -> None:
    runs = [write_image(tmp_path / name, FOUND_A) for name in "ab"]
    for run, section in zip(runs, (first, second), strict=True):
        change(run / "run.json", "recipe", to={"report": section})
    page = inspect(runs, out=tmp_path / "out", title=given)
    assert f"<h1><bdi>{heading}</bdi></h1>" in page.read_text(encoding="utf-8")
    assert json.loads((page.parent / "report.json").read_text())["title"] == heading


def test_densities_are_per_mm2_of_inspected_area_with_the_exact_interval(run: Path) -> None:
    found = key_number([run], "density_per_mm2")
    assert found["value"] == pytest.approx(6 / 1e-3)
    assert found["interval"]["low"] == pytest.approx(2.201894 / 1e-3, rel=1e-6)
    assert found["interval"]["high"] == pytest.approx(13.059474 / 1e-3, rel=1e-6)


def test_without_a_pixel_size_everything_is_in_pixels(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_image(folder / "a", FOUND_A, spacing=None)
    write_image(folder / "b", FOUND_B)
    assert key_number([folder], "density_per_mpx")["value"] == pytest.approx(6 / 4e-3)
    assert table_named([folder], "size-table").columns[2].key == "eq_diameter_px_median"
    source = text_renderer.render(compose(gather([folder]), title="t"))
    assert "WARNING: Not in micrometres" in source
    assert "The pixel size of 1 image: a.png is not known" in source


def test_no_object_is_a_result_with_an_upper_bound(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "empty", squares())
    found = key_number([folder], "density_per_mm2")
    assert found["value"] == 0
    assert found["interval"]["low"] == 0
    assert found["interval"]["high"] == pytest.approx(3.688879454 / 5e-4)
    assert key_number([folder], "eq_diameter_um_median")["value"] is None
    document = compose(gather([folder]), title="t")
    assert [section.id for section in document.sections] == [
        *("overview", "images", "method", "provenance")
    ]
    assert "No object was found" in inspect([folder], out=tmp_path).read_text(encoding="utf-8")


def test_nothing_inspected_has_no_density(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "run", squares())
    path = folder / "run.json"
    record = json.loads(path.read_text()) | {"inspected_px": 0, "inspected_um2": 0.0}
    path.write_text(json.dumps(record))
    found = key_number([folder], "density_per_mm2")
    assert (found["value"], found["interval"]) == (None, None)


def test_worst_images_come_first_with_their_mistakes(run: Path) -> None:
    worst = gather([run]).worst
    assert [case.scores.name for case in worst] == ["a.png", "b.png"]
    assert [crop.title for crop in worst[0].crops] == ["Whole image", "Merged", "Split"]
    assert [crop.title for crop in worst[1].crops] == ["Whole image", "Missed", "False"]
    assert worst[1].crops[1].alt == "An object of 36 px that was missed, at row 15, column 20."


def test_a_perfect_image_is_no_worst_case(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "a", FOUND_A, truth=FOUND_A)
    write_evaluation(evaluate_pairs([LabelPair("a", FOUND_A, FOUND_A)]), folder / "evaluation.json")
    evidence = gather([folder])
    assert evidence.worst == ()
    assert evidence.evaluation is not None
    assert evidence.evaluation.summaries[0].mean_ap == 1.0


def test_a_picture_smaller_by_a_whole_factor_is_taken(run: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.full((20, 25, 3), 90, np.uint8)).save(run / name / "overlay.png")
    evidence = gather([run])
    assert {(one.width, one.height) for one in evidence.pictures.values()} == {(25, 20)}
    assert len(evidence.worst) == 2


def test_truth_is_compared_with_the_highest_label_of_several_layers(run: Path) -> None:
    before = gather([run]).worst
    layers = np.stack([np.where(FOUND_A == 2, 2, 0), np.where(FOUND_A != 2, FOUND_A, 0)])
    tifffile.imwrite(run / "a" / "labels.tif", layers.astype(np.uint16), photometric="minisblack")
    assert gather([run]).worst == before


def test_images_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("x", "sub/y", "sub/deep/z"):
        write_image(tmp_path / "run" / name, FOUND_A)
    (tmp_path / "run" / "x.zarr" / "labels").mkdir(parents=True)
    names = [image.name for image in gather([tmp_path / "run"]).images]
    assert names == ["z.png", "y.png", "x.png"]


def test_several_runs_share_means_and_counts_but_not_pooled_pixels(
    run: Path, tmp_path: Path
) -> None:
    other = write_image(tmp_path / "c", FOUND_A, truth=TRUTH_A, kind="stained")
    write_evaluation(
        evaluate_pairs([LabelPair("c", TRUTH_A, FOUND_A, "stained")]), other / "evaluation.json"
    )
    one, two = gather([run]).evaluation, gather([run, other]).evaluation
    assert one is not None
    assert two is not None
    whole, stained = two.summaries[0], two.summaries[2]
    rows = {row.name: row for row in one.images}
    mean = (2 * (rows["a.png"].mean_ap or 0) + (rows["b.png"].mean_ap or 0)) / 3
    assert whole.mean_ap == pytest.approx(mean)
    assert (stained.name, stained.images, stained.merged, stained.split) == ("stained", 2, 2, 2)
    assert (whole.objects, whole.matched) == (10, 1 + 2 * 3)
    assert whole.f1 == pytest.approx(14 / (14 + whole.missed + whole.false))
    assert (whole.pq, whole.aji, whole.dice) == (None, None, None)


def test_images_of_one_name_take_their_folders_names(tmp_path: Path) -> None:
    for plate in ("p1", "p2"):
        write_image(tmp_path / plate / "a", FOUND_A, name="image.png")
    names = [image.name for image in gather([tmp_path / "p1", tmp_path / "p2"]).images]
    assert names == ["p1/a", "p2/a"]
    assert [
        row[4] for row in table_named([tmp_path / "p1", tmp_path / "p2"], "image-table").rows
    ] == [4, 4]


def test_classes_without_objects_are_counted_as_none(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "a", squares((5, 5, 9, 9)), classes=("nucleus", "debris"))
    rows: tuple[tuple[Value, ...], ...] = table_named([folder], "classes").rows
    assert [row[:3] for row in rows] == [("nucleus", 1, 100.0), ("debris", 0, 0.0)]


def test_hostile_names_show_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x00\u202e'\"&" + "z" * 10_000
    folder = tmp_path / "run"
    write_image(folder / "a", FOUND_A, name=hostile, classes=(hostile, "b"), kind=hostile)
    write_image(folder / "b", FOUND_B, warnings=(hostile,))
    page = inspect([folder], out=tmp_path)
    source = page.read_text(encoding="utf-8")
    assert "<script" not in source
    assert not re.search("[\x00\u202e]", source)
    assert source.count("&lt;script&gt;alert(1)&lt;/script&gt;␀⟨U+202E⟩") > 5
    assert any(
        row["class"] == hostile
        for section in json.loads((tmp_path / "report.json").read_text())["sections"]
        for block in section["blocks"]
        if block.get("id") == "classes"
        for row in block["rows"]
    )


def test_many_images_stay_within_the_size_of_a_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    for i in range(20):
        folder = write_image(tmp_path / "run" / f"{i:02}", FOUND_A)
        path = folder / "run.json"
        record = json.loads(path.read_text())
        record["image"]["shape"] = [1, 800, 800]
        path.write_text(json.dumps(record))
        Image.fromarray(noise).save(folder / "overlay.png", compress_level=0)
    page = inspect([tmp_path / "run"], out=tmp_path)
    assert page.stat().st_size < 15e6
    assert "16 of 20 images, evenly spaced" in page.read_text(encoding="utf-8")


def test_a_missing_overlay_is_said(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "a", FOUND_A)
    (folder / "overlay.png").unlink()
    source = text_renderer.render(compose(gather([folder]), title="t"))
    assert "WARNING: No picture" in source


def change(path: Path, *keys: str, to: object) -> None:
    """Replace, or with ``...`` remove, one member of a JSON file."""
    content = record = json.loads(path.read_text())
    for key in keys[:-1]:
        record = record[key]
    if to is ...:
        del record[keys[-1]]
    else:
        record[keys[-1]] = to
    path.write_text(json.dumps(content))


def refused(runs: list[Path], out: Path) -> DomainsegError:
    """Return the error of a report that is refused, having written nothing."""
    with pytest.raises(DomainsegError) as caught:
        inspect(runs, out=out)
    assert not out.exists()
    return caught.value


@pytest.mark.parametrize(
    ("keys", "to", "found"),
    [
        (("model", "sha256"), ..., "no model.sha256, wanted one"),
        (("objects",), -1, "-1 under objects, wanted a whole number, 0 or more"),
        (("objects",), True, "true under objects, wanted a whole number, 0 or more"),
        (("image", "name"), None, "null under image.name, wanted text"),
        (("image", "shape"), [1, 2], "[1, 2] under image.shape, wanted 3 numbers"),
        (("image", "channels"), [1], "[1] under image.channels, wanted a list of texts"),
        (("inspected_um2",), "1", '"1" under inspected_um2, wanted a number'),
        (("lattice",), [], "[] under lattice, wanted an object"),
        (("warnings",), "none", '"none" under warnings, wanted a list'),
        (("warnings",), "x" * 99, f'"{"x" * 38}… under warnings, wanted a list'),
        (("inspected_px",), float("nan"), "damaged JSON, wanted a whole file"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    keys: tuple[str, ...], to: object, found: str, tmp_path: Path
) -> None:
    path = write_image(tmp_path / "a", FOUND_A) / "run.json"
    change(path, *keys, to=to)
    error = refused([path.parent], tmp_path / "out")
    assert isinstance(error, InputError)
    assert str(error) == f"{path}: found {found}; run predict again."


def test_a_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a", FOUND_A) / "run.json"
    change(path, "schema", to=2)
    assert str(refused([path.parent], tmp_path / "out")) == (
        f"{path}: found schema 2, wanted schema 1; use the version of domainseg that wrote it, "
        "or run predict again."
    )


def test_a_record_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a", FOUND_A) / "run.json"
    path.write_text(path.read_text()[:100])
    assert str(refused([path.parent], tmp_path / "out")) == (
        f"{path}: found damaged JSON at line 1, wanted a whole file; run predict again."
    )
    path.write_text("[]")
    assert str(refused([path.parent], tmp_path / "out")) == (
        f"{path}: found a JSON list, wanted an object; run predict again."
    )


def test_folders_that_are_no_run_are_refused(tmp_path: Path) -> None:
    gone, file, empty = tmp_path / "gone", tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    out = tmp_path / "out"
    assert str(refused([gone], out)) == (
        f"{gone}: found nothing, wanted the folder of a run; check the path."
    )
    assert str(refused([file], out)) == (
        f"{file}: found a file, wanted the folder of a run; name the folder that predict wrote."
    )
    error = refused([empty], out)
    assert isinstance(error, MissingInputError)
    assert str(error) == (
        f"{empty}: found no run.json, wanted the record that predict writes last; "
        "name the folder of a finished run, or resume the run."
    )


def test_an_unfinished_image_in_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "logs").mkdir()
    assert len(gather([run]).images) == 2
    (run / "b" / "run.json").unlink()
    assert str(refused([run], tmp_path / "out")).startswith(f"{run / 'b'}: found no run.json, ")


def test_an_object_table_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a", FOUND_A) / "objects.parquet"
    table, out = pl.read_parquet(path), tmp_path / "out"
    whole = path.read_bytes()

    def sentence_for(changed: pl.DataFrame) -> str:
        changed.write_parquet(path)
        return str(refused([path.parent], out)).removeprefix(f"{path}: ")

    assert sentence_for(table.drop("solidity")) == (
        "found no column solidity, wanted the columns that predict writes; run predict again."
    )
    assert sentence_for(table.head(3)) == (
        "found 3 objects, wanted the 4 that run.json speaks of; run predict again."
    )
    assert sentence_for(table.with_columns(area_px=pl.lit(0))) == (
        "found an object of 0 px, wanted at least 1 px; run predict again."
    )
    assert sentence_for(table.with_columns(pl.lit(None, pl.String).alias("class"))) == (
        "found an object without class, wanted a value for every object; run predict again."
    )
    damaged = "found a damaged object table, wanted a whole Parquet file; run predict again."
    assert sentence_for(table.with_columns(area_px=pl.lit("many"))) == damaged
    path.write_bytes(whole[: len(whole) // 2])
    assert str(refused([path.parent], out)) == f"{path}: {damaged}"
    path.unlink()
    assert str(refused([path.parent], out)) == (
        f"{path.parent}: found no objects.parquet, wanted the object table; run predict again."
    )


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a", FOUND_A) / "overlay.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    assert str(refused([path.parent], tmp_path / "out")) == (
        f"{path}: found uint8 pixels of shape (3, 9, 9), wanted uint8 of shape (3, 40, 50), "
        "or that divided by a whole number; run predict again."
    )


def test_an_evaluation_that_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    path, out = run / "evaluation.json", tmp_path / "out"
    whole = path.read_text()
    change(path, "all", "pooled", to=...)
    assert str(refused([run], out)) == (
        f"{path}: found no all.pooled, wanted one; evaluate the run again."
    )
    path.write_text(whole)
    change(path, "thresholds", to=[0.5])
    assert str(refused([run], out)).endswith(
        "under images[0].ap, wanted 1 numbers or nulls; evaluate the run again."
    )
    change(path, "thresholds", to=[])
    assert str(refused([run], out)) == (
        f"{path}: found no IoU threshold, wanted at least one; evaluate the run again."
    )


def test_runs_evaluated_at_other_thresholds_are_refused(run: Path, tmp_path: Path) -> None:
    other = write_image(tmp_path / "c", FOUND_A, truth=TRUTH_A)
    path = other / "evaluation.json"
    write_evaluation(evaluate_pairs([LabelPair("c", TRUTH_A, FOUND_A)]), path)
    change(path, "thresholds", to=[round(0.45 + 0.05 * i, 2) for i in range(9)])
    assert str(refused([run, other], tmp_path / "out")) == (
        "evaluations: found the IoU thresholds 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, "
        "wanted 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9 as in the first; "
        "evaluate all runs with one version of domainseg."
    )


def test_a_run_is_named_once_and_at_least_one(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    error = refused([run, run / "." / "a" / ".."], out)
    assert isinstance(error, UsageError)
    assert str(error) == (f"{run}: found a run named twice, wanted each run once; name it once.")
    assert str(refused([], out)) == (
        "report: found no run, wanted at least one; name the folder of a run."
    )


def test_a_place_that_cannot_be_written_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError) as caught:
        inspect([run], out=file / "out")
    assert str(caught.value) == (
        f"{file / 'out'}: found {os.strerror(20)}, wanted a folder to write into; "
        "choose another output folder."
    )


def test_key_numbers_lead_the_report(run: Path) -> None:
    first = compose(gather([run]), title="t").sections[0].blocks[0]
    assert isinstance(first, KeyNumbers)
    assert [number.key for number in first.numbers] == [
        *("objects", "density_per_mm2", "inspected_mm2", "eq_diameter_um_median", "mean_ap", "f1")
    ]
