"""What every recipe that ships keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from domainseg.recipe import load_recipe
from domainseg.shipped import shipped
from domainseg.training.augment import Augmentation

RECIPES = sorted(shipped("recipes").glob("*.yaml"))


@pytest.fixture(params=RECIPES, ids=[path.stem for path in RECIPES])
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_are_recipes() -> None:
    assert RECIPES


def test_a_recipe_loads_and_is_read_back_as_it_was(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = tmp_path / path.name
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_a_header_says_what_it_does_and_the_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = "".join(re.findall(r"\A(?:#.*\n)+", text))
    assert f"domainseg train recipes/{path.name}" in header
    assert re.search(r"^# Data: ", header, re.MULTILINE)


def test_a_recipe_reads_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[&*]\w+|<<:|\$\{|!\w", text), "anchors, merges and tags refer elsewhere"


def test_every_patch_that_a_recipe_draws_has_its_size(path: Path) -> None:
    recipe = load_recipe(path)
    side, channels = recipe.train.patch_px, recipe.data.channel_count
    cut = side + 2 * round(side * (recipe.train.margin - 1) / 2)
    augmentation = Augmentation(recipe.augment, crop_px=side)
    rng = np.random.default_rng(0)
    pixels = rng.random((channels, cut, cut), np.float32)
    planes = np.ones((2, cut, cut), np.float32)
    for seed in range(20):
        image, others = augmentation(pixels, planes, seed=seed)
        assert image.shape == (channels, side, side)
        assert others.shape == (2, side, side)
        # Where a step left nothing there is nothing: no more than the corners of a turn.
        assert others[-1].mean() > 0.6
