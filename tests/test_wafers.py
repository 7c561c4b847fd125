"""Made-up wafers as a data set: splits, files, truth in micrometres, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_wafers import field_of, whole_wafer
from pycocotools.coco import COCO

from domainseg.errors import DomainsegError, InputError, OutputError, RecipeError
from domainseg.instances.encode import read_segmentation
from domainseg.loaders import made_up_files, wafer_files
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.wafer_classes import Scenery
from domainseg.loaders.wafer_files import COLUMNS, write_wafers
from domainseg.loaders.wafer_look import CLASSES, WaferLook
from domainseg.loaders.wafer_places import Area
from domainseg.loaders.wafers import Wafers
from domainseg.quality.die_grid import read_die_grids

# The data set.


def test_splits_have_their_counts_and_growth_of_one_changes_no_other() -> None:
    options = Wafers(train=5, val=3, test=2, height=64, width=48, levels=(1.5, 3.0))
    opened = options.open(Path())
    entries = opened.entries()
    assert [e.columns["split"] for e in entries] == ["test"] * 2 + ["train"] * 5 + ["val"] * 3
    assert [e.id for e in entries] == sorted(e.id for e in entries)
    assert [e.kind for e in entries[2:6]] == ["cnr 1.5", "cnr 3", "cnr 1.5", "cnr 3"]
    planes_ = [options.plane(entry) for entry in entries]
    assert len({plane.seed for plane in planes_}) == len({p.wafer_center_px for p in planes_}) == 10
    more = Wafers(train=5, val=9, test=2, height=64, width=48, levels=(1.5, 3.0))
    assert set(planes_) < {more.plane(e) for e in more.open(Path()).entries()}
    assert Wafers(seed=1).plane(entries[0]).seed != options.plane(entries[0]).seed
    assert Wafers().entry("val", 0).kind is None


def test_a_sample_is_the_plane_with_its_truth() -> None:
    options = Wafers(height=190, width=210, good=0.0, spacing_um=0.4, levels=(5.0,), bits=16)
    opened = options.open(Path())
    assert opened.classes == CLASSES
    for entry in opened.entries()[:6]:
        sample, plane = opened.load(entry), options.plane(entry)
        np.testing.assert_array_equal(sample.image[:], plane[...])
        assert sample.truth is not None
        np.testing.assert_array_equal(sample.truth.to_label_map(), plane.labels(0, 190, 0, 210))
        np.testing.assert_array_equal(
            sample.truth.classes, plane.defects.classes[sample.truth.ids - 1]
        )
        assert sample.tags == tuple(
            name for k, name in enumerate(CLASSES) if k in sample.truth.classes
        ) or sample.tags == ("good",)
        assert (sample.spacing_um, sample.kind) == ((0.4, 0.4), "cnr 5")
        assert sample.channels == ("grey",)
        assert sample.image.dtype == np.dtype(np.uint16)
        np.testing.assert_allclose(plane.defects.contrast_to_noise, 5.0)


def test_the_share_of_good_images_is_kept_and_they_have_no_defect() -> None:
    options = Wafers(train=400, height=32, width=32, good=0.3, defects=(3, 3))
    entries = [options.entry("train", n) for n in range(400)]
    good = [entry for entry in entries if entry.tags == ("good",)]
    assert 0.22 < len(good) / 400 < 0.38
    sample = options.open(Path()).load(good[0])
    assert sample.truth is not None
    assert (len(sample.truth), sample.tags) == (0, ("good",))
    assert {options.plane(entry).count for entry in entries} == {0, 3}


def test_the_images_of_a_split_share_circuits_of_its_own() -> None:
    options = Wafers(circuits=3, height=32, width=32)
    found = [
        {options.plane(options.entry(split, n)).circuit for n in range(40)}
        for split in ("train", "val", "test")
    ]
    assert [len(one) for one in found] == [3, 3, 3]
    # What is scored on dies that training saw says little of other dies.
    assert len(set.union(*found)) == 9


def test_classes_are_those_that_the_pattern_and_the_pixels_show() -> None:
    without = ("particle", "scratch", "pit", "residue", "edge_chip")
    assert Wafers(pattern="bare").class_names == without
    assert Wafers(spacing_um=5.0).class_names == without
    assert Wafers(classes=("pit", "open")).class_names == ("pit", "open")


def test_a_whole_wafer_has_defects_by_its_density() -> None:
    options = whole_wafer(density_per_cm2=1.0)
    counts = [options.plane(options.entry("train", n)).count for n in range(40)]
    area = np.pi * 14.7**2
    assert np.mean(counts) == pytest.approx(area, rel=0.03)


# Files.


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Wafers]:
    options = Wafers(
        train=3, val=1, test=1, height=190, width=170, good=0.0, levels=(2.0, 4.0), defects=(5, 9)
    )
    out = tmp_path_factory.mktemp("made") / "wafers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_up_files, "TILE", 64)
        written = write_wafers(out, options)
    assert [path.stem for path in written.images] == [
        entry.id for entry in options.open(Path()).entries()
    ]
    assert written.coco == out / "coco.json"
    return out, options


def test_written_wafers_read_back_as_they_were(made: tuple[Path, Wafers]) -> None:
    out, options = made
    opened = MaskFolder(index="index.csv", kind="kind", class_name="defect").open(out)
    for entry, mine in zip(opened.entries(), options.open(Path()).entries(), strict=True):
        assert (entry.columns["split"], entry.kind) == (mine.columns["split"], mine.kind)
        read, plane = opened.load(entry), options.plane(mine)
        np.testing.assert_array_equal(read.image[:], plane[...])
        assert read.truth is not None
        np.testing.assert_array_equal(read.truth.to_label_map(), plane.labels(0, 190, 0, 170))
        assert read.spacing_um == pytest.approx((0.5, 0.5))


def test_the_table_says_what_the_labels_show(made: tuple[Path, Wafers]) -> None:
    out, options = made
    table = rows_of(out / "defects.csv")
    assert tuple(table[0]) == COLUMNS
    assert [(r["image"], r["label"], r["class"]) for r in table] == [
        (r["image"], r["label"], r["class"]) for r in rows_of(out / "classes.csv")
    ]
    pitch_y, pitch_x = options.die_um
    for entry in options.open(Path()).entries():
        plane = options.plane(entry)
        labels, defects = plane.labels(0, 190, 0, 170), plane.defects
        rows = [row for row in table if row["image"] == entry.id]
        assert [int(row["label"]) for row in rows] == np.unique(labels[labels > 0]).tolist()
        for row in rows:
            n = int(row["label"])
            y, x = np.nonzero(labels == n)
            assert float(row["area_um2"]) == pytest.approx(len(y) * 0.25)
            assert row["class"] == options.class_names[defects.classes[n - 1]]
            x_um, y_um = float(row["wafer_x_um"]), float(row["wafer_y_um"])
            assert x_um == pytest.approx((x.mean() - plane.wafer_center_px[1]) * 0.5)
            assert y_um == pytest.approx((plane.wafer_center_px[0] - y.mean()) * 0.5)
            assert int(row["die_x"]) * pitch_x + float(
                row["die_xrel_um"]
            ) - pitch_x / 2 == pytest.approx(x_um)
            assert int(row["die_y"]) * pitch_y + float(
                row["die_yrel_um"]
            ) - pitch_y / 2 == pytest.approx(y_um)
            assert float(row["contrast_to_noise"]) == pytest.approx(float(str(entry.kind)[4:]))
            is_scratch = row["class"] == "scratch"
            assert (row["skeleton_length_um"] != "") == (row["mean_width_um"] != "") == is_scratch
            if is_scratch:
                assert float(row["skeleton_length_um"]) == defects.length_um[n - 1]


def test_the_die_grid_is_read_for_every_image(made: tuple[Path, Wafers]) -> None:
    out, options = made
    grids = read_die_grids(out / "die_grid.json")
    for entry in options.open(Path()).entries():
        assert grids[entry.id] == options.plane(entry).die_grid
    text = json.loads((out / "die_grid.json").read_text("utf-8"))
    assert (text["notch"], text["edge_exclusion_mm"]) == ("down", 3.0)
    dies = np.array(text["dies"])
    corners = (np.abs(dies) + 0.5) * np.array([2400.0, 2000.0])
    assert (np.hypot(*corners.T) <= 147_000).all()
    assert len(dies) > 0.97 * np.pi * 147_000**2 / (2400 * 2000) - 400


def test_the_coco_file_holds_the_same_objects(made: tuple[Path, Wafers]) -> None:
    out, options = made
    coco = COCO(out / "coco.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in coco.loadImgs(coco.getImgIds()):
        assert (out / image["file_name"]).is_file()
        name = Path(image["file_name"]).stem
        split, _, number = name.rpartition("-")
        labels = options.plane(options.entry(split, int(number))).labels(0, 190, 0, 170)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [one["label"] for one in found] == np.unique(labels[labels > 0]).tolist()
        for one in found:
            rle = read_segmentation(one["segmentation"], shape=(190, 170), where=name)
            np.testing.assert_array_equal(rle.to_mask(), labels == one["label"])


def test_an_image_beyond_coco_has_no_coco_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wafer_files, "countable", lambda size: False)
    options = Wafers(train=1, val=0, test=0, height=40, width=40)
    written = write_wafers(tmp_path / "o", options)
    assert written.coco is None
    assert not (tmp_path / "o" / "coco.json").exists()
    assert len(rows_of(tmp_path / "o" / "index.csv")) == 1


# Refusals.


def refusal(kind: type[DomainsegError], action: Any) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def test_writing_into_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert refusal(OutputError, lambda: write_wafers(tmp_path, Wafers())) == (
        f"{tmp_path}: found a folder with files in it, wanted a new or empty folder; "
        "choose another or empty it."
    )
    assert refusal(OutputError, lambda: write_wafers(tmp_path / "a.txt", Wafers())) == (
        f"{tmp_path}/a.txt: found a file, wanted a new or empty folder; choose another or empty it."
    )


def test_a_wafer_too_large_for_memory_is_not_loaded_whole() -> None:
    opened = whole_wafer().open(Path())
    assert refusal(InputError, lambda: opened.load(opened.entries()[0])) == (
        "wafer image test-00000: found 61200 x 61200 px, wanted at most 67108864 px to load it "
        "whole; choose view: field or write them to files."
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"noise": 2.0}, "noise: found 2, wanted a number from 0.001 to 0.2; change it."),
    (
        {"particle_um": (3.0, 1.0)},
        "particle_um: found 3, 1, wanted two numbers above 0, the least first; change it.",
    ),
    (
        {"die_um": (100.0, 4000.0)},
        "die_um: found 100, wanted at least two streets and forty lines: 240; change it.",
    ),
    ({"scratch_gaps": -1}, "scratch_gaps: found -1, wanted an integer from 0 up; change it."),
    (
        {"classes": ()},
        f"classes: found an empty list, wanted some of {', '.join(CLASSES)}; change it.",
    ),
    (
        {"classes": ("crack",)},
        f"classes: found 'crack', wanted some of {', '.join(CLASSES)}; change it.",
    ),
    ({"classes": ("pit", "pit")}, "classes: found pit, pit, wanted each class once; change it."),
    (
        {"placement": ("spiral",)},
        "placement: found 'spiral', wanted some of random, cluster, ring, sector, line; change it.",
    ),
    (
        {"classes": ("bridge",), "pattern": "bare"},
        "classes: found bridge on a bare wafer, wanted pattern: circuit and lines of at least "
        "2 px; change pattern, line_um or spacing_um, or leave the class out.",
    ),
    (
        {"classes": ("open",), "spacing_um": 4.0},
        "classes: found open with lines of 0.5 px, wanted pattern: circuit and lines of at least "
        "2 px; change pattern, line_um or spacing_um, or leave the class out.",
    ),
    ({"width": 0}, "width: found 0, wanted an integer from 1 up; change it."),
    (
        {"defects": (4, 2)},
        "defects: found 4, 2, wanted two integers from 0 up, the least first; change it.",
    ),
    ({"good": 1.5}, "good: found 1.5, wanted a number from 0 to 1; change it."),
    (
        {"density_per_cm2": -1.0},
        "density_per_cm2: found -1.0, wanted a number from 0 to 10000; change it.",
    ),
    ({"levels": (3.0, 0.0)}, "levels: found 3.0, 0.0, wanted numbers above 0; change it."),
    (
        {"field_at": ()},
        "field_at: found an empty list, wanted some of anywhere, die_edge, wafer_edge; change it.",
    ),
]


@pytest.mark.parametrize(("options", "wanted"), REFUSED)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], wanted: str) -> None:
    assert refusal(RecipeError, lambda: Wafers(**options)) == wanted


def test_a_wafer_has_no_part_of_a_stack() -> None:
    assert refusal(RecipeError, lambda: Wafers().open(Path("d"), select={"z": 0})) == (
        "image.select: found {'z': 0} for made-up wafers in d, wanted nothing, as a wafer is not "
        "a stack; remove it."
    )


def test_sizes_are_spread_evenly_in_their_logarithm() -> None:
    look = WaferLook()
    scenery = Scenery(look, field_of().die_grid, None, Area((9, 9), (0.0, 0.0), 1.0))
    rng = np.random.default_rng(0)
    sizes = np.array([scenery.px(rng, (1.0, 100.0), least=4.0) for _ in range(4000)])
    assert sizes.min() == 4.0
    assert sizes.max() <= 200.0
    assert np.mean(sizes < 20.0) == pytest.approx(0.5, abs=0.03)
