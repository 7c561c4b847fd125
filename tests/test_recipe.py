"""Recipes: what is refused and how it is said, overrides, round trips."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from domainseg.errors import RecipeError
from domainseg.loaders.scenes import Scenes
from domainseg.recipe import (
    Recipe,
    load_recipe,
    loader_options,
    recipe_from_json,
    with_overrides,
)
from domainseg.shipped import shipped

RECIPE = """\
# A small one.
data:
  loader:
    name: scenes
    train: 4
  split: {by: column}
  normalise:
    low_percentile: 1
augment:
  - D4: {p: 1.0}
model:
  name: unet
  weights: null
  depth: 3
  decoder_channels: [32, 16, 8]
head:
  name: height
train:
  batch: 4
  max_steps: 10
instances:
  prominence: 0.2
"""
SHIPPED = sorted(shipped("recipes").glob("*.yaml"))


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Return the sentence for a recipe, with ``r.yaml`` for its path."""

    def refuse(text: str, *overrides: str) -> str:
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides)
        return str(caught.value).replace(str(path), "r.yaml")

    return refuse


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_recipe(path)


def changed(old: str, new: str) -> str:
    assert RECIPE.count(old) == 1
    return RECIPE.replace(old, new)


REFUSED = {
    "unknown key of a section": (
        changed("  batch: 4\n", "  btch: 4\n"),
        "r.yaml:19: train.btch is not an option; did you mean 'batch'?",
    ),
    "unknown section": (
        changed("instances:\n", "instnces:\n"),
        "r.yaml:21: instnces is not an option; did you mean 'instances'?",
    ),
    "unknown section instead of a needed one": (
        changed("train:\n", "trian:\n"),
        "r.yaml:18: trian is not an option; did you mean 'train'?",
    ),
    "unknown option of the loader": (
        changed("    train: 4\n", "    trains: 4\n"),
        "r.yaml:5: data.loader.trains is not an option; did you mean 'train'?",
    ),
    "unknown option of the model": (
        changed("  depth: 3\n", "  dept: 3\n"),
        "r.yaml:14: model.dept is not an option; did you mean 'depth'?",
    ),
    "unknown option of the head": (
        changed("  name: height\n", "  name: height\n  zzz: 1\n"),
        "r.yaml:18: head.zzz is not an option; it takes name, smooth_px, height_weight.",
    ),
    "unknown option of the split": (
        changed("{by: column}", "{by: column, colum: part}"),
        "r.yaml:6: data.split.colum is not an option; did you mean 'column'?",
    ),
    "unknown option of the normalisation": (
        changed("    low_percentile: 1\n", "    low_percentil: 1\n"),
        "r.yaml:8: data.normalise.low_percentil is not an option; did you mean 'low_percentile'?",
    ),
    "text for a whole number": (
        changed("  batch: 4\n", "  batch: many\n"),
        "r.yaml:19: train.batch is 'many', wanted a whole number.",
    ),
    "fraction for a whole number": (
        changed("  batch: 4\n", "  batch: 4.5\n"),
        "r.yaml:19: train.batch is 4.5, wanted a whole number.",
    ),
    "text for a number": (
        changed("  prominence: 0.2\n", "  prominence: a lot\n"),
        "r.yaml:22: instances.prominence is 'a lot', wanted a number.",
    ),
    "too small": (
        changed("  batch: 4\n", "  batch: 0\n"),
        "r.yaml:19: train.batch is 0, wanted a number above 0.",
    ),
    "below the least": (
        changed("  prominence: 0.2\n", "  prominence: -1\n"),
        "r.yaml:22: instances.prominence is -1, wanted 0 or more.",
    ),
    "above the most": (
        changed("  prominence: 0.2\n", "  prominence: 1.5\n"),
        "r.yaml:22: instances.prominence is 1.5, wanted 1 or less.",
    ),
    "a limit itself, where it is out": (
        changed("  prominence: 0.2\n", "  threshold: 1\n"),
        "r.yaml:22: instances.threshold is 1, wanted a number below 1, or a section with options.",
    ),
    "no number": (
        changed("  batch: 4\n", "  learning_rate: .inf\n"),
        "r.yaml:19: train.learning_rate is inf, wanted a finite number.",
    ),
    "text for yes or no": (
        changed("  prominence: 0.2\n", "  fill_holes: some\n"),
        "r.yaml:22: instances.fill_holes is 'some', wanted true or false.",
    ),
    "number for text": (
        changed("  split: {by: column}\n", "  root: 7\n  split: {by: column}\n"),
        "r.yaml:6: data.root is 7, wanted text.",
    ),
    "not one of the choices": (
        changed("  batch: 4\n", "  device: gpu\n"),
        "r.yaml:19: train.device is 'gpu', wanted 'auto', 'cpu', 'cuda' or 'mps'.",
    ),
    "no branch of a union": (
        changed("  split: {by: column}\n", "  channels: 5\n  split: {by: column}\n"),
        "r.yaml:6: data.channels is 5, wanted 'rgb', 'grey' or 'die_map', or a list.",
    ),
    "inside a branch of a union": (
        changed("  split: {by: column}\n", "  channels: [DAPI, 5]\n  split: {by: column}\n"),
        "r.yaml:6: data.channels.1 is 5, wanted text.",
    ),
    "inside the other branch of a union": (
        changed("  prominence: 0.2\n", "  split: {cell: yes}\n"),
        "r.yaml:22: instances.split.cell is true, wanted 'prominence' or 'none'.",
    ),
    "inside a list of a part": (
        changed("[32, 16, 8]", "[32, x, 8]"),
        "r.yaml:15: model.decoder_channels.1 is 'x', wanted a whole number.",
    ),
    "null for a section": (
        changed("instances:\n  prominence: 0.2\n", "instances:\n"),
        "r.yaml:21: instances is null, wanted a section with options.",
    ),
    "a step of the augmentation that is text": (
        changed("  - D4: {p: 1.0}\n", "  - D4\n"),
        "r.yaml:10: augment.0 is 'D4', wanted a section with options.",
    ),
    "a part that is text": (
        changed("head:\n  name: height\n", "head: height\n"),
        "r.yaml:16: head is 'height', wanted a section with options.",
    ),
    "missing section": (
        changed("head:\n  name: height\n", ""),
        "r.yaml: head is missing; add it.",
    ),
    "missing option": (
        changed("  loader:\n    name: scenes\n    train: 4\n", ""),
        "r.yaml:2: data.loader is missing; add it.",
    ),
    "unknown loader": (
        changed("    name: scenes\n", "    name: sceens\n"),
        "r.yaml:4: data.loader.name is 'sceens', which is not a part; did you mean 'scenes'?",
    ),
    "unknown model": (
        changed("  name: unet\n", "  name: x\n"),
        "r.yaml:12: model.name is 'x', which is not a part; there are fcn, fpn, mask_rcnn, unet.",
    ),
    "unknown head": (
        changed("  name: height\n", "  name: heigt\n"),
        "r.yaml:17: head.name is 'heigt', which is not a part; did you mean 'height'?",
    ),
    "part without a name": (
        changed("  name: unet\n", ""),
        "r.yaml:11: model.name is missing; it is one of fcn, fpn, mask_rcnn, unet.",
    ),
    "two ends of training": (
        changed("  max_steps: 10\n", "  max_steps: 10\n  max_minutes: 3\n"),
        "r.yaml:18: train: found max_minutes and max_steps, wanted one of max_minutes, "
        "max_epochs, max_steps; set the others to null.",
    ),
    "no end of training": (
        changed("  max_steps: 10\n", ""),
        "r.yaml:18: train: found no end, wanted one of max_minutes, max_epochs, max_steps; add it.",
    ),
    "two scales": (
        changed("  split: {by: column}\n", "  spacing_um: 1\n  diameter_px: 30\n"),
        "r.yaml:2: data: found spacing_um and diameter_px, wanted one of them, as each sets the "
        "model grid; remove the other.",
    ),
    "patch off the stride": (
        changed("  batch: 4\n", "  patch_px: 100\n"),
        "r.yaml:19: train.patch_px is 100, wanted a multiple of 8, the stride of model.depth 3; "
        "change it.",
    ),
    "core off the stride": (
        changed("instances:\n", "tiling: {core_px: 1001}\ninstances:\n"),
        "r.yaml:21: tiling.core_px is 1001, wanted a multiple of 8, the stride of model.depth 3; "
        "change it.",
    ),
    "halo off the stride": (
        changed("instances:\n", "tiling: {halo_px: 20}\ninstances:\n"),
        "r.yaml:21: tiling.halo_px is 20, wanted a multiple of 8, the stride of model.depth 3; "
        "change it.",
    ),
    "semantic head that splits": (
        changed("  prominence: 0.2\n", "  split: prominence\n").replace("height", "semantic"),
        "r.yaml:22: instances.split is prominence, but head semantic draws no height to split by; "
        "use head.name=height or instances.split=none.",
    ),
    "semantic head that splits one class": (
        changed("  prominence: 0.2\n", "  split: {cell: prominence}\n").replace(
            "height", "semantic"
        ),
        "r.yaml:22: instances.split is prominence, but head semantic draws no height to split by; "
        "use head.name=height or instances.split=none.",
    ),
    "a model's own check": (
        changed("[32, 16, 8]", "[32, 16]"),
        "r.yaml:15: model.decoder_channels has 2 numbers, wanted one per level, that is 3.",
    ),
    "a head's own check": (
        changed("  name: height\n", "  name: height\n  smooth_px: 9\n"),
        "r.yaml:18: head.smooth_px is 9.0, wanted 0 to 8.",
    ),
    "a loader's own check": (
        changed("    train: 4\n", "    diameter_px: 1\n"),
        "r.yaml:5: data.loader.diameter_px: found 1, wanted a number from 4 to 512; change it.",
    ),
    "the split's own check": (
        changed("{by: column}", "{by: hash, val: 2}"),
        "r.yaml:6: data.split: found val 2 and test 0.15, wanted shares of at least 0 that leave "
        "something to train; make them smaller.",
    ),
    "the normalisation's own check": (
        changed("    low_percentile: 1\n", "    low_percentile: 99.9\n"),
        "r.yaml:7: data.normalise: normalisation: found percentiles 99.9 and 99.8, wanted "
        "0 <= low < high <= 100; correct low_percentile and high_percentile.",
    ),
    "a key twice": (
        changed("  max_steps: 10\n", "  max_steps: 10\n  batch: 8\n"),
        "r.yaml:21: batch is set in line 19 too; remove one.",
    ),
    "not YAML": (
        changed("  batch: 4\n", "  batch: 4: 5\n"),
        "r.yaml:19: this is not YAML, mapping values are not allowed here; correct it.",
    ),
    "a date that is none": (
        changed("  batch: 4\n", "  batch: 2001-13-01\n"),
        "r.yaml: this is not YAML, month must be in 1..12; correct it.",
    ),
    "empty": (
        "",
        "r.yaml: found no sections, wanted data, model, head, train; add them.",
    ),
    "a list": (
        "- data\n",
        "r.yaml: found no sections, wanted data, model, head, train; add them.",
    ),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_is_named_with_its_file_line_and_key(
    text: str, said: str, refusal: Callable[..., str]
) -> None:
    assert refusal(text) == said


@pytest.mark.parametrize("said", [said for _, said in REFUSED.values()], ids=REFUSED.keys())
def test_an_error_is_one_sentence(said: str) -> None:
    body = said.split(": ", 1)[1]
    assert re.fullmatch(r".*[^.?][.?]", body)
    assert not re.search(r"[.?] ", body)
    assert "\n" not in said


def test_bytes_that_are_no_text_are_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"r\.yaml: this is not YAML, 'utf-8' codec can't decode"):
        load_recipe(path)


class TestOverrides:
    def test_a_value_is_read_as_yaml(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["train.learning_rate=3e-4", "data.channels=[DAPI, GFP]"])
        assert made.train.learning_rate == 3e-4
        assert made.data.channels == ("DAPI", "GFP")
        assert made.data.channel_count == 2

    def test_an_option_of_a_part_is_reached(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["data.loader.train=9", "head.smooth_px=2"])
        assert dataclasses.asdict(made.data.loader)["train"] == 9
        assert dataclasses.asdict(made.head)["smooth_px"] == 2.0

    def test_a_section_that_was_not_there_is_made(self, recipe: Recipe) -> None:
        assert with_overrides(recipe, ["report.title=Run 7"]).report.title == "Run 7"

    def test_one_end_of_training_takes_the_place_of_another(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["train.max_steps=null", "train.max_epochs=2"])
        assert (made.train.max_steps, made.train.max_epochs) == (None, 2)

    @pytest.mark.parametrize(
        "root", ["2024", "007", "1e3", "true", "a #1", "a: b", "[x", "/d/it's", "C:\\data"]
    )
    def test_a_folder_is_taken_as_it_is_written(self, recipe: Recipe, root: str) -> None:
        assert with_overrides(recipe, [f"data.root={root}"]).data.root == root

    def test_quotes_around_text_are_taken_off(self, recipe: Recipe) -> None:
        assert with_overrides(recipe, ['data.root="a b"']).data.root == "a b"

    @pytest.mark.parametrize("text", ["", "null", "~"])
    def test_nothing_and_null_unset_a_folder(self, recipe: Recipe, text: str) -> None:
        assert with_overrides(recipe, [f"data.root={text}"]).data.root is None

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            (
                "train.seed",
                "command line: found 'train.seed', wanted key.path=value; correct it.",
            ),
            (
                "=3",
                "command line: found '=3', wanted key.path=value; correct it.",
            ),
            (
                "train..seed=3",
                "command line: found 'train..seed=3', wanted key.path=value; correct it.",
            ),
            (
                "train.seed=[1",
                "command line: found 'train.seed=[1', wanted a YAML value; quote it.",
            ),
            (
                "augment.0.D4.p=1",
                "command line: found 'augment.0.D4.p', wanted the key of a section, which augment "
                "is not; set augment itself.",
            ),
            (
                "train.sed=3",
                "command line: train.sed is not an option; did you mean 'seed'?",
            ),
            (
                "trian.seed=3",
                "command line: trian is not an option; did you mean 'train'?",
            ),
            (
                "data.loader.trains=3",
                "command line: data.loader.trains is not an option; did you mean 'train'?",
            ),
            (
                "train.batch=x",
                "command line: train.batch is 'x', wanted a whole number.",
            ),
            (
                "model.name=unett",
                "command line: model.name is 'unett', which is not a part; did you mean 'unet'?",
            ),
            (
                "train.patch_px=100",
                "command line: train.patch_px is 100, wanted a multiple of 8, the stride of "
                "model.depth 3; change it.",
            ),
            (
                "model.depth=2",
                "r.yaml:15: model.decoder_channels has 3 numbers, wanted one per level, that is 2.",
            ),
        ],
    )
    def test_a_mistake_is_blamed_on_the_command_line(
        self, override: str, said: str, refusal: Callable[..., str]
    ) -> None:
        assert refusal(RECIPE, override) == said

    def test_a_mistake_of_the_file_is_not(self, refusal: Callable[..., str]) -> None:
        text = changed("  batch: 4\n", "  batch: x\n")
        said = "r.yaml:19: train.batch is 'x', wanted a whole number."
        assert refusal(text, "train.seed=3") == said


class TestFinding:
    def test_the_bare_name_of_a_shipped_recipe_is_enough(self) -> None:
        path = SHIPPED[0]
        assert load_recipe(path.stem) == load_recipe(path)

    def test_a_file_in_the_way_comes_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = SHIPPED[0].name
        (tmp_path / name).write_text(RECIPE, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        assert load_recipe(name).train.max_steps == 10

    def test_a_missing_file_is_answered_with_the_nearest_name(self) -> None:
        with pytest.raises(RecipeError) as caught:
            load_recipe("recipes/scenes-uned.yaml")
        assert str(caught.value) == (
            "recipes/scenes-uned.yaml: found no such file, wanted a recipe; "
            "did you mean 'scenes-unet'?"
        )

    def test_a_name_like_no_other_is_answered_with_all(self) -> None:
        with pytest.raises(RecipeError) as caught:
            load_recipe("q.yaml")
        names = ", ".join(sorted(path.stem for path in SHIPPED))
        assert str(caught.value) == (
            f"q.yaml: found no such file, wanted a recipe; these ship: {names}."
        )


class TestRoundTrips:
    def test_what_was_written_is_what_is_read(self, recipe: Recipe, tmp_path: Path) -> None:
        path = tmp_path / "again.yaml"
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        assert load_recipe(path) == recipe

    def test_every_default_is_written(self, recipe: Recipe) -> None:
        values = yaml.safe_load(recipe.to_yaml())
        assert list(values) == list(Recipe.model_fields)
        assert values["train"]["ema_decay"] == 0.998
        assert values["data"]["loader"]["diameter_px"] == 24.0

    def test_json_is_read_back(self, recipe: Recipe) -> None:
        assert recipe_from_json(recipe.to_json(), where="m.safetensors") == recipe

    def test_a_class_table_survives_json(self, recipe: Recipe) -> None:
        values = recipe.to_json()
        values["data"]["loader"] = {
            "name": "mask_folder",
            "masks": "semantic",
            "classes": {1: "weld", 7: "pore"},
        }
        made = recipe_from_json(values, where="m")
        text = {str(k): v for k, v in made.to_json()["data"]["loader"]["classes"].items()}
        values["data"]["loader"]["classes"] = text
        assert recipe_from_json(values, where="m") == made

    def test_a_mistake_names_the_model_file(self, recipe: Recipe) -> None:
        values = recipe.to_json()
        values["train"]["momentum_"] = 1
        with pytest.raises(RecipeError) as caught:
            recipe_from_json(values, where="m.safetensors")
        assert str(caught.value).startswith(
            "m.safetensors: train.momentum_ is not an option; it takes seed, patch_px, "
        )

    def test_overriding_changes_no_argument(self, recipe: Recipe) -> None:
        before = recipe.to_json()
        with_overrides(recipe, ["train.seed=5", "data.loader.train=7"])
        assert recipe.to_json() == before


class TestSplitting:
    def test_a_height_is_there_to_split_by(self, recipe: Recipe) -> None:
        assert recipe.splits(["a", "b"]) == (True, True)

    def test_a_semantic_head_parts_nothing(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["head={name: semantic}", "instances.split={b: none}"])
        assert made.splits(["a", "b"]) == (False, False)
        made = with_overrides(recipe, ["head={name: semantic}"])
        assert made.splits(["a", "b"]) == (False, False)

    def test_one_word_is_for_all_classes(self, recipe: Recipe) -> None:
        assert with_overrides(recipe, ["instances.split=none"]).splits(["a", "b"]) == (False, False)

    def test_a_class_that_is_not_named_keeps_what_the_head_draws(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["instances.split={b: none}"])
        assert made.splits(["a", "b"]) == (True, False)

    def test_a_class_that_does_not_exist_is_refused(self, recipe: Recipe) -> None:
        made = with_overrides(recipe, ["instances.split={c: none}"])
        with pytest.raises(RecipeError) as caught:
            made.splits(["a", "b"])
        assert str(caught.value) == (
            "instances.split: found 'c', wanted classes of the recipe (a, b); correct the name."
        )


class TestLoaderOptions:
    def test_options_are_put_in(self) -> None:
        made = loader_options(Scenes, ["train=3", "stains=[stained]"])
        assert made == Scenes(train=3, stains=("stained",))

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("tran=3", "command line: tran is not an option; did you mean 'train'?"),
            ("train=x", "command line: train is 'x', wanted a whole number."),
            (
                "diameter_px=1",
                "command line: diameter_px: found 1, wanted a number from 4 to 512; change it.",
            ),
        ],
    )
    def test_a_mistake_names_the_option(self, override: str, said: str) -> None:
        with pytest.raises(RecipeError) as caught:
            loader_options(Scenes, [override])
        assert str(caught.value) == said
