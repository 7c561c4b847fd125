"""A look at data before training: figures made by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray

from domainseg.errors import InputError, OutputError, RecipeError
from domainseg.loaders.mask_folder import Folder
from domainseg.recipe import load_recipe
from domainseg.records import Entry, Instances, Sample
from domainseg.sources import open_source
from domainseg.survey import survey_recipe, write_first_recipe

RECIPE = """\
data:
  loader: {{name: {loader}}}
  root: {root}
  channels: grey
  split: {{val: 0, test: 0}}
model: {{name: unet, encoder: mobilenetv3_small_050, weights: null, depth: 2,
  decoder_channels: [16, 8]}}
head: {{name: height}}
train: {{max_steps: 1}}
"""


def disc(side: int, radius: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.asarray(y**2 + x**2 <= radius**2, np.uint8)


def write(root: Path, labels: NDArray[np.uint8], *, count: int = 1) -> tuple[Path, Path]:
    """Write ``count`` images of these labels; return their folder and that of the labels."""
    folders = (root / "images", root / "labels")
    for folder in folders:
        folder.mkdir(parents=True)
    pixels = np.arange(labels.size, dtype=np.uint16).reshape(labels.shape)
    for number in range(count):
        tifffile.imwrite(folders[0] / f"{number}.tif", pixels)
        tifffile.imwrite(folders[1] / f"{number}.tif", labels)
    return folders


def write_channels(path: Path, kind: str) -> None:
    """Write 64 x 64 px of grey, RGB or RGBA, or of channels of these names."""
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    names = kind.split()
    if kind == "grey":
        tifffile.imwrite(path, ramp)
    elif kind in ("rgb", "rgba"):
        pixels = np.stack([ramp] * len(kind), -1).astype(np.uint8)
        extra = ["unassalpha"] if kind == "rgba" else None
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=extra)
    else:
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        # The ending decides nothing: OME-XML is found by what the file says.
        tifffile.imwrite(path, np.stack([ramp] * len(names)), ome=True, metadata=metadata)


def recipe(root: Path, loader: str = "mask_folder") -> Path:
    path = root / "r.yaml"
    path.write_text(RECIPE.format(loader=loader, root=root), encoding="utf-8")
    return path


def twice(truth: Instances) -> Instances:
    """Return the objects and the same again over them."""
    count = len(truth)
    return replace(
        truth,
        ids=np.arange(1, 2 * count + 1),
        boxes=np.tile(truth.boxes, (2, 1, 1)),
        runs=np.tile(truth.runs, (2, 1)),
        offsets=np.concatenate([truth.offsets, truth.offsets[1:] + truth.offsets[-1]]),
        classes=np.tile(truth.classes, 2),
        scores=np.tile(truth.scores, 2),
    )


def kaggle(root: Path, masks: list[NDArray[np.uint8]]) -> None:
    for folder in ("images", "masks"):
        (root / "a" / folder).mkdir(parents=True)
    tifffile.imwrite(root / "a/images/a.tif", np.arange(64, dtype=np.uint8).reshape(8, 8))
    for number, mask in enumerate(masks):
        tifffile.imwrite(root / f"a/masks/{number}.tif", mask)


class TestSurvey:
    def test_figures_are_those_of_the_files(self, tmp_path: Path) -> None:
        labels = np.zeros((16, 20), np.uint8)
        labels[0:2, 0:2], labels[4:8, 4:8], labels[10:16, 10:16] = 1, 2, 3
        write(tmp_path, labels)
        found = survey_recipe(recipe(tmp_path))
        # The circle of the area of a square of side a has the diameter 2 a / sqrt(pi).
        assert found.rows == (
            ("train", "1", "3", "4.5", "2.3", "6.8", ""),
            ("val", "0", "0", "-", "-", "-", ""),
            ("test", "0", "0", "-", "-", "-", ""),
        )
        assert found.notes[:2] == ("classes: object", "images: 16 x 20 px")
        assert found.notes[2].startswith("network: unet with 0.")
        assert found.notes[2].endswith(" M weights, 1 channels, stride 4 px")

    def test_pixels_of_two_masks_are_counted(self, tmp_path: Path) -> None:
        one, two = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
        one[0:4, 0:4], two[3:6, 2:6] = 255, 255
        kaggle(tmp_path, [one, two])
        assert survey_recipe(recipe(tmp_path, "kaggle_nuclei")).notes[-1] == (
            "overlaps: 2 px in 1 of 1 images are in several masks; the first mask keeps them"
        )

    def test_objects_that_overlap_are_those_of_a_sigmoid_head(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, disc(32, 6))
        load = Folder.load

        def overlapping(folder: Folder, entry: Entry) -> Sample:
            sample = load(folder, entry)
            assert sample.truth is not None
            return replace(sample, truth=twice(sample.truth))

        monkeypatch.setattr(Folder, "load", overlapping)
        with pytest.raises(InputError) as caught:
            survey_recipe(recipe(tmp_path))
        assert str(caught.value) == (
            "0: found objects that overlap, wanted each pixel in one object; part them, or use "
            "head.name=semantic with head.activation=sigmoid."
        )
        sigmoid = ["head={name: semantic, activation: sigmoid}"]
        assert survey_recipe(recipe(tmp_path), overrides=sigmoid).rows[0][:3] == ("train", "1", "2")

    def test_a_step_of_augmentation_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, disc(32, 6))
        with pytest.raises(RecipeError, match=r"augment\[0\]"):
            survey_recipe(recipe(tmp_path), overrides=["augment=[{D5: {}}]"])

    def test_an_encoder_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, disc(32, 6))
        with pytest.raises(RecipeError, match=r"model\.encoder: found 'resnet19'"):
            survey_recipe(recipe(tmp_path), overrides=["model.encoder=resnet19"])

    def test_a_class_to_split_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, disc(32, 6))
        with pytest.raises(RecipeError, match=r"instances\.split: found 'cel'"):
            survey_recipe(recipe(tmp_path), overrides=["instances.split={cel: none}"])

    def test_channels_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, disc(32, 6))
        with pytest.raises(InputError, match="DAPI"):
            survey_recipe(recipe(tmp_path), overrides=["data.channels=[DAPI]"])


class TestFirstRecipe:
    @pytest.mark.parametrize(
        ("radius", "grid", "patch"),
        [(3, 30.0, 256), (10, None, 128), (60, 30.0, 128)],
    )
    def test_the_scale_follows_the_objects(
        self, radius: int, grid: float | None, patch: int, tmp_path: Path
    ) -> None:
        images, labels = write(tmp_path, disc(128, radius), count=2)
        write_first_recipe(images, labels, tmp_path / "r.yaml")
        made = load_recipe(tmp_path / "r.yaml")
        assert (made.data.diameter_px, made.train.patch_px) == (grid, patch)
        assert made.data.channels == "grey"
        assert made.data.root == str(tmp_path)

    def test_small_objects_are_a_twentieth_of_the_median(self, tmp_path: Path) -> None:
        labels = np.zeros((64, 64), np.uint8)
        labels[0:20, 0:20] = 1
        images, masks = write(tmp_path, labels)
        write_first_recipe(images, masks, tmp_path / "r.yaml")
        assert load_recipe(tmp_path / "r.yaml").instances.min_area_px == 20

    @pytest.mark.parametrize(("count", "parts"), [(1, "1 0 0"), (2, "1 1 0"), (3, "1 1 1")])
    def test_few_images_are_split_so_that_a_check_takes_them(
        self, count: int, parts: str, tmp_path: Path
    ) -> None:
        images, labels = write(tmp_path, disc(64, 12), count=count)
        out = tmp_path / "r.yaml"
        write_first_recipe(images, labels, out)
        splits = open_source(load_recipe(out)).splits
        assert [len(splits.train), len(splits.val), len(splits.test)] == [*map(int, parts.split())]

    def test_colour_images_keep_their_colours(self, tmp_path: Path) -> None:
        images, labels = write(tmp_path, disc(32, 8))
        pixels = np.zeros((32, 32, 3), np.uint8)
        tifffile.imwrite(images / "0.tif", pixels, photometric="rgb")
        write_first_recipe(images, labels, tmp_path / "r.yaml")
        assert load_recipe(tmp_path / "r.yaml").data.channels == "rgb"

    @pytest.mark.parametrize(
        ("kinds", "wanted"),
        [
            (("grey", "grey"), "grey"),
            (("rgb", "rgb"), "rgb"),
            (("grey", "rgb"), "rgb"),
            (("rgba", "grey"), "rgb"),
            (("DAPI",), "grey"),
            (("c0 c1", "c0 c1"), ("c0", "c1")),
            (("c0 c1 c2 c3 c4",), ("c0", "c1", "c2", "c3", "c4")),
            (("DAPI GFP RFP", "GFP DAPI RFP"), ("DAPI", "GFP", "RFP")),
            (("488 561",), ("488", "561")),
        ],
    )
    def test_channels_are_those_that_a_check_takes(
        self, kinds: tuple[str, ...], wanted: str | tuple[str, ...], tmp_path: Path
    ) -> None:
        images, labels = write(tmp_path, disc(64, 12), count=3)
        for number, kind in zip(range(3), kinds * 3, strict=False):
            write_channels(images / f"{number}.tif", kind)
        out = tmp_path / "r.yaml"
        write_first_recipe(images, labels, out)
        assert load_recipe(out).data.channels == wanted
        small = ["model.weights=null", "model.depth=2", "model.decoder_channels=[16, 8]"]
        assert survey_recipe(out, overrides=small).rows[0][0] == "train"

    def test_images_that_no_choice_of_channels_fits_are_refused(self, tmp_path: Path) -> None:
        images, labels = write(tmp_path, disc(64, 12), count=3)
        write_channels(images / "1.tif", "DAPI GFP")
        with pytest.raises(InputError) as caught:
            write_first_recipe(images, labels, tmp_path / "r.yaml")
        assert str(caught.value) == (
            f"{images}: found channels DAPI, GFP in 1 and grey in 0, wanted the same in every "
            "image; keep one kind of image in the folder."
        )
        write_channels(images / "1.tif", "DAPI DAPI")
        with pytest.raises(InputError) as caught:
            write_first_recipe(images, labels, tmp_path / "r.yaml")
        assert str(caught.value) == (
            f"{images}: found channels DAPI, DAPI in 1, wanted a name of its own for each; "
            "name them in the files."
        )
        assert not (tmp_path / "r.yaml").exists()

    def test_the_header_says_what_was_found(self, tmp_path: Path) -> None:
        images, labels = write(tmp_path, disc(64, 10), count=3)
        out = tmp_path / "r.yaml"
        said = write_first_recipe(images, labels, out)
        text = out.read_text(encoding="utf-8")
        assert said[0] == "3 images, 3 objects"
        assert text.startswith("# Written by `domainseg init` after a look at the data.\n")
        assert f"#   domainseg train {out}\n" in text
        assert "# Found: 3 images, 3 objects.\n" in text
        assert list(yaml.safe_load(text)) == [
            "data",
            "augment",
            "model",
            "head",
            "train",
            "instances",
        ]

    def test_masks_without_an_object_are_refused(self, tmp_path: Path) -> None:
        images, labels = write(tmp_path, np.zeros((16, 16), np.uint8))
        with pytest.raises(InputError) as caught:
            write_first_recipe(images, labels, tmp_path / "r.yaml")
        assert str(caught.value) == (
            f"{labels}: found no object, wanted label images with objects; check them."
        )
        assert not (tmp_path / "r.yaml").exists()

    def test_a_recipe_that_is_there_is_kept(self, tmp_path: Path) -> None:
        images, labels = write(tmp_path, disc(16, 4))
        out = tmp_path / "r.yaml"
        out.write_text("mine", encoding="utf-8")
        with pytest.raises(OutputError):
            write_first_recipe(images, labels, out)
        assert out.read_text(encoding="utf-8") == "mine"
