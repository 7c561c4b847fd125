"""The model file: what was saved comes back, and what is not ours is refused in one sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from domainseg.errors import MissingInputError, ModelFileError, OutputError
from domainseg.models.model_file import (
    SCHEMA,
    ModelCard,
    model_sha256,
    read_card,
    read_model,
    save_model,
)

CARD = ModelCard(
    recipe={"data": {"channels": ["DAPI", "GFP"]}},
    classes=("cell", "nucleus"),
    channels=("DAPI", "GFP"),
    stride_px=32,
    halo_px=192,
    halos=({"halo_px": 0, "difference": 0.5, "flipped": 0.25},),
    whole_window_layers=("a (SqueezeExcite)",),
    diameter_px=12.5,
    training={"steps": 7},
    data={"root": "café"},
    scores={"val_mean_ap": 0.5},
    versions={"torch": "2.15"},
)
WEIGHTS = {
    "a": torch.arange(6.0).view(2, 3).T,
    "b": torch.tensor(3),
    "c": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
}
FOREIGN = (
    "found a truncated or foreign file, wanted a .safetensors model of domainseg; "
    "copy it again, or train it again."
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    save_model(file, WEIGHTS, CARD)
    return file


def test_card_and_weights_come_back(path: Path) -> None:
    card, weights = read_model(path)
    assert card == CARD
    assert read_card(path) == CARD
    assert weights.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert torch.equal(weights[key], value)


def test_the_same_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_model(other, dict(reversed(WEIGHTS.items())), CARD)
    assert model_sha256(other) == model_sha256(path)
    save_model(other, WEIGHTS, replace(CARD, halo_px=64))
    assert model_sha256(other) != model_sha256(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        read_card(tmp_path / "no.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'no.safetensors'}: found no such file, wanted a model; "
        "train one with `domainseg train`, or name one that ships: nuclei, wafer, wafermap."
    )


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert str(caught.value) == f"{path}: {FOREIGN}"


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
            return (ran.touch, ())

    file = tmp_path / "trap.safetensors"
    for content in (pickle.dumps(Trap()), b"not a model" * 100):
        file.write_bytes(content)
        with pytest.raises(ModelFileError) as caught:
            read_model(file)
        assert str(caught.value) == f"{file}: {FOREIGN}"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(ModelFileError):
        read_model(file)
    assert not ran.exists()


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(ModelFileError) as caught:
        read_card(file)
    assert str(caught.value) == (
        f"{file}: found safetensors without a domainseg card, wanted a model written by "
        "`domainseg train`; train the recipe to get one."
    )


@pytest.mark.parametrize(
    "card",
    [
        {**asdict(CARD), "schema": SCHEMA + 1},
        asdict(CARD),
        {"schema": SCHEMA},
        {**asdict(CARD), "schema": SCHEMA, "more": 1},
        [1, 2],
    ],
)
def test_a_card_of_another_version_is_refused(tmp_path: Path, card: Any) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, file, metadata={"domainseg": json.dumps(card)})
    with pytest.raises(ModelFileError) as caught:
        read_card(file)
    assert str(caught.value) == (
        f"{file}: found a card of another version, wanted schema {SCHEMA}; "
        "use the version of domainseg that wrote it, or train it again."
    )


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, file, metadata={"domainseg": "{"})
    with pytest.raises(ModelFileError) as caught:
        read_card(file)
    assert str(caught.value) == f"{file}: {FOREIGN}"


def test_a_disk_without_room_keeps_the_model_of_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError) as caught:
        save_model(path, WEIGHTS, replace(CARD, halo_px=0))
    assert str(caught.value) == (
        f"{path}: found no room left on the disk, wanted room for the whole file; "
        "free some space or choose another output folder."
    )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
