"""Model cards: what they say, from the file alone, and scores that are kept in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from domainseg.about import about_model, keep_tested, portrait
from domainseg.cli.app import run
from domainseg.errors import MissingInputError, UsageError
from domainseg.instances.evaluation import LabelPair, evaluate_pairs
from domainseg.models.model_file import model_sha256, read_model, save_model
from domainseg.recipe_sections import About
from domainseg.shipped import shipped_models
from domainseg.survey import survey_recipe
from domainseg.train import train

Write = Callable[..., Path]
Said = pytest.CaptureFixture[str]


def test_licence_and_citation_come_from_the_data_cards() -> None:
    said = about_model(About(title="Nuclei", cards=("dsb2018",), licence="Apache-2.0"))
    assert said["title"] == "Nuclei"
    (data,) = said["data"]
    assert data["licence"] == "CC0-1.0"
    assert "Caicedo" in data["citation"]


def test_a_data_card_that_there_is_not_is_refused() -> None:
    with pytest.raises(MissingInputError, match="dsb2019"):
        about_model(About(cards=("dsb2019",)))


def test_a_training_names_it_before_it_begins(
    tmp_path: Path, recipe_values: Callable[..., dict[str, Any]]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values(about={"cards": ["dsb2019"]})))
    for verb in (lambda: train(recipe, tmp_path / "out"), lambda: survey_recipe(recipe)):
        with pytest.raises(MissingInputError, match="dsb2019"):
            verb()
    assert not (tmp_path / "out" / "prepared").exists()


def test_scores_are_kept_and_the_weights_stay(bright_model: Write, tmp_path: Path) -> None:
    model = bright_model()
    _, before = read_model(model)
    truth = np.kron(np.eye(3, dtype=np.int32), np.ones((4, 4), np.int32))
    kinds = {**dict.fromkeys("abcde", "stained"), "f": "bright", "g": None}
    found = evaluate_pairs([LabelPair(name, truth, truth, kind=kinds[name]) for name in kinds])
    keep_tested(model, found)
    card, after = read_model(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    shown = portrait(model)
    assert card.tested["part"] == "test"
    (table, *_) = shown.tables
    assert table[0][0] == "images of"
    assert [row[:2] for row in table[1]] == [("stained", "5"), ("all", "7")]
    assert "1.000" in table[1][0]
    assert ("too few", "bright, images: 1; counted in all") in shown.facts


def test_scores_of_what_a_model_learned_from_are_not_kept(bright_model: Write) -> None:
    truth = np.eye(3, dtype=np.int32)
    found = evaluate_pairs([LabelPair("a", truth, truth)])
    with pytest.raises(UsageError, match="scores of the part train, which the model learned from"):
        keep_tested(bright_model(evaluate={"part": "train"}), found)
    with pytest.raises(UsageError, match="of a model that ships"):
        keep_tested(Path("wafer"), found)


def test_keep_takes_the_model_as_it_is(bright_model: Write, capsys: Said) -> None:
    assert run(["evaluate", str(bright_model()), "--keep", "--split", "val"]) == 2
    assert capsys.readouterr().err == (
        "error: evaluate: found --split with --keep, which keeps the scores of the model as it is, "
        "wanted options that take effect; drop --split.\n"
    )


def test_a_card_says_what_the_file_holds(bright_model: Write, capsys: Said) -> None:
    model = bright_model(seen={"diameters_px": [8.0, 10.0, 20.0, 50.0, 61.5]})
    card, weights = read_model(model)
    about = about_model(
        About(title="Bright cells", cards=("dsb2018",), licence="CC0-1.0", limits=("No mud.",))
    )
    save_model(model, weights, replace(card, about=about))
    assert run(["list", "models", str(model)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "bright"
    facts = [line.split(maxsplit=1) for line in said[1:]]
    assert ["for", "Bright cells"] in facts
    assert ["limit", "No mud."] in facts
    assert ["licence", "CC0-1.0"] in facts
    assert ["objects", "8 to 61.5 px across, the median of an image"] in facts
    assert ["sha256", model_sha256(model)] in facts
    assert any(name == "data" and value.endswith("(CC0-1.0)") for name, value in facts)


def test_every_model_that_ships_has_a_card(capsys: Said) -> None:
    assert run(["list", "models"]) == 0
    said = capsys.readouterr().out
    for name, path in shipped_models().items():
        assert f"\n{name}\n" in f"\n{said}"
        assert model_sha256(path) in said
        assert path.stat().st_size <= 12e6
    assert "made-up micrographs, with exact truth (60 images, seed 7)" in said
    assert "made-up fields of patterned wafers, with exact truth (1,200 images, seed 11)" in said
    assert "made-up wafer maps, with exact zones (6,000 images, seed 3)" in said


def test_what_is_not_listed_is_refused(capsys: Said) -> None:
    assert run(["list", "weights"]) == 2
    assert capsys.readouterr().err == (
        "error: list: found 'weights', wanted models, or nothing; write models.\n"
    )
