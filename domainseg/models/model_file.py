"""A trained model is one ``.safetensors`` file: weights, and a card of JSON in its metadata.

Loading never unpickles: the format holds tensors and text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from domainseg.atomic import atomic_path
from domainseg.errors import MissingInputError, ModelFileError, sentence
from domainseg.shipped import shipped_models

SCHEMA = 3
"""Of the card; 1 had no ``tuned``, and 2 neither ``about``, ``seen`` nor ``tested``; both are
still read."""
_ADDED = {1: ("tuned", "about", "seen", "tested"), 2: ("about", "seen", "tested")}
_KEY = "domainseg"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a trained model.

    Attributes:
        recipe: the resolved recipe as plain values.
        classes: class names, in the order of the head's outputs.
        channels: names of the channels the network was trained on.
        stride_px: coarsest stride of the network.
        halo_px: context on each side of a core.
        halos: readings of the halo's measurement, ``halo_px, difference, flipped`` each.
        whole_window_layers: layers that see the whole window, whatever the halo.
        diameter_px: median equivalent diameter of the training objects, px of the images.
        training: images, objects, steps, minutes, device, precision.
        data: facts of the training data (card, licence, citation) where known.
        scores: validation scores by name.
        versions: of the packages it was trained with.
        tuned: how the rules of decoding were chosen: aim, part, what they find before and
            after, calibration of the scores; empty where they are the recipe's own.
        about: title, data sets with licence and citation, licence of the weights, limits.
        seen: how the training images look and how large their objects are; empty where that
            was not measured.
        tested: what `evaluate` found on held-out data: part, tables, kinds of too few images.
    """

    recipe: Mapping[str, Any]
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    stride_px: int
    halo_px: int
    halos: tuple[Mapping[str, float], ...]
    whole_window_layers: tuple[str, ...]
    diameter_px: float | None
    training: Mapping[str, Any]
    data: Mapping[str, Any]
    scores: Mapping[str, float]
    versions: Mapping[str, str]
    tuned: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)
    tested: Mapping[str, Any] = field(default_factory=dict)


def save_model(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights and card to ``path``; the file appears whole or not at all.

    Raises:
        OutputError: when it cannot be written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    text = json.dumps({"schema": SCHEMA, **asdict(card)}, sort_keys=True)
    # The library's own writing of files hides what the system said was wrong.
    # One key only: the library writes several in an order that changes from run to run.
    content = save(tensors, metadata={_KEY: text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def find_model(path: Path) -> Path:
    """Return the file that ``path`` names: itself, or a model that ships, by its bare name."""
    if path.is_file() or path.parent != Path() or path.suffix:
        return path
    return shipped_models().get(path.name, path)


def _named() -> str:
    names = ", ".join(shipped_models())
    return f", or name one that ships: {names}" if names else ""


def read_card(path: Path) -> ModelCard:
    """Return the card of a model file; no weight is read.

    Raises:
        MissingInputError: no such file.
        ModelFileError: truncated, not safetensors, or not written by domainseg.
    """
    return _open(path, weights=False)[0]


def read_model(path: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Return the card and the weights of a model file, on the CPU; errors as ``read_card``."""
    return _open(path, weights=True)


def model_sha256(path: Path) -> str:
    """Return the SHA-256 of the file, in hexadecimal digits."""
    with find_model(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path, *, weights: bool) -> tuple[ModelCard, dict[str, Tensor]]:
    path = find_model(path)
    if not path.is_file():
        raise MissingInputError(
            sentence(
                path,
                found="no such file",
                wanted="a model",
                fix=f"train one with `domainseg train`{_named()}",
            )
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            card = _card(path, metadata)
            tensors = {key: file.get_tensor(key) for key in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            sentence(
                path,
                found="a truncated or foreign file",
                wanted="a .safetensors model of domainseg",
                fix="copy it again, or train it again",
            )
        ) from error
    return card, tensors


def _card(path: Path, metadata: Mapping[str, str]) -> ModelCard:
    if _KEY not in metadata:
        raise ModelFileError(
            sentence(
                path,
                found="safetensors without a domainseg card",
                wanted="a model written by `domainseg train`",
                fix="train the recipe to get one",
            )
        )
    values = json.loads(metadata[_KEY])
    wanted = {"schema", *(f.name for f in fields(ModelCard))}
    schema = values.get("schema") if isinstance(values, dict) else None
    if isinstance(schema, int) and (added := _ADDED.get(schema)):
        values |= {"schema": SCHEMA, **{name: {} for name in added if name not in values}}
    if not isinstance(values, dict) or set(values) != wanted or values.pop("schema") != SCHEMA:
        raise ModelFileError(
            sentence(
                path,
                found="a card of another version",
                wanted=f"schema {SCHEMA}",
                fix="use the version of domainseg that wrote it, or train it again",
            )
        )
    for name in ("classes", "channels", "halos", "whole_window_layers"):
        values[name] = tuple(values[name])
    return ModelCard(**values)
