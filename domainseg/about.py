"""What a model says of itself: its card, from the file's own metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domainseg.errors import UsageError, sentence
from domainseg.instances.evaluation import Evaluation
from domainseg.loaders.cards import find_card
from domainseg.models.model_file import ModelCard, find_model, model_sha256, read_model, save_model
from domainseg.outside import sizes_seen
from domainseg.recipe import recipe_from_json
from domainseg.recipe_sections import About
from domainseg.shipped import shipped_models

MB = 1e6
FEWEST = 5
"""Images of a kind, below which a card says that they are too few for scores of their own."""

_MADE_UP = {
    "scenes": "made-up micrographs, with exact truth",
    "wafers": "made-up fields of patterned wafers, with exact truth",
    "wafer_maps": "made-up wafer maps, with exact zones",
}
"""What loaders draw that read no data."""

Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]


def about_model(about: About) -> dict[str, Any]:
    """Return what a recipe says of its model, with licence and citation of each data set.

    Raises:
        MissingInputError: a data card that there is not.
        RecipeError: a card that cannot be read.
    """
    cards = {name: find_card(name) for name in about.cards}
    return {
        "title": about.title,
        "licence": about.licence,
        "limits": list(about.limits),
        "data": [
            {"card": name, "title": one.title, "licence": one.licence, "citation": one.citation}
            for name, one in cards.items()
        ],
    }


def keep_tested(model: Path, found: Evaluation) -> None:
    """Keep what an evaluation of a model as it is found in its card; the weights stay.

    Kinds of fewer than FEWEST images are named and have no scores of their own.
    The file is another one then: runs that were made with it are not gone on with.

    Raises:
        ModelFileError: the file is no model.
        UsageError: it ships, or the part that was evaluated is one that it learned from.
        OutputError: it cannot be written.
    """
    path = find_model(model)
    card, weights = read_model(path)
    part = str(card.recipe["evaluate"]["part"])
    found_in = None
    if path in shipped_models().values():
        found_in = f"the part {part} of a model that ships"
    elif part in ("train", "all"):
        found_in = f"the part {part}, which the model learned from"
    if found_in is not None:
        raise UsageError(
            sentence(
                "--keep",
                found=f"scores of {found_in}",
                wanted="those of held-out data, for a model of yours",
                fix="drop --keep",
            )
        )
    few = {one.name: one.images for one in found.kinds if one.images < FEWEST}
    told = replace(found, kinds=tuple(one for one in found.kinds if one.name not in few))
    tables = [
        {"header": list(header), "rows": [list(row) for row in rows]}
        for header, rows in told.tables()
    ]
    tested = {"part": part, "tables": tables, "few": few}
    save_model(path, weights, replace(card, tested=tested))


@dataclass(frozen=True, slots=True)
class Portrait:
    """A model's card as it is shown.

    Attributes:
        name: of the model.
        facts: what is known of it, name and value, in order; several lines may share a name.
        tables: of its scores on held-out data.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


def portrait(model: Path) -> Portrait:
    """Return the card of a model file, or of a model that ships, as it is shown.

    Raises:
        MissingInputError: no such file.
        ModelFileError: no model.
    """
    path = find_model(model)
    card, weights = read_model(path)
    parameters = sum(one.numel() for one in weights.values()) / 1e6
    size = path.stat().st_size / MB
    facts = [
        *_said(card),
        ("classes", ", ".join(card.classes)),
        ("channels", ", ".join(card.channels)),
        ("network", f"{_network(card, path)}, {parameters:.1f} M numbers, {size:.1f} MB"),
        *_begun_from(card),
        *_learned(card),
        ("validated", ", ".join(f"{name} {value:.4f}" for name, value in card.scores.items())),
        *_data(card),
        ("sha256", model_sha256(path)),
    ]
    tables = tuple(
        (tuple(one["header"]), tuple(tuple(row) for row in one["rows"]))
        for one in card.tested.get("tables", ())
    )
    if tables:
        facts.append(("scores", f"on the part {card.tested['part']} of its data, never trained on"))
        few = card.tested.get("few", {}).items()
        facts += [("too few", f"{name}, images: {count}; counted in all") for name, count in few]
    return Portrait(path.stem, tuple(facts), tables)


def _said(card: ModelCard) -> Iterator[tuple[str, str]]:
    about = card.about
    if about.get("title"):
        yield "for", about["title"]
    yield from (("limit", limit) for limit in about.get("limits", ()))
    yield "licence", about.get("licence") or "not stated"


def _network(card: ModelCard, path: Path) -> str:
    recipe = recipe_from_json(card.recipe, where=str(path))
    return f"{recipe.model.name} on {recipe.model.encoder}, head {recipe.head.name}"


def _begun_from(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Yield what weights the training began from, where it did not begin from chance."""
    weights, encoder = card.recipe["model"].get("weights"), card.recipe["model"]["encoder"]
    if weights is not None:
        yield "began", f"with weights of {encoder} for {weights}"


def _learned(card: ModelCard) -> Iterator[tuple[str, str]]:
    told = card.training
    names = ("images", "objects", "steps", "minutes")
    yield "trained", ", ".join(f"{told[name]:,} {name}" for name in names if name in told)
    if (sizes := sizes_seen(card)) is not None:
        yield "objects", f"{sizes.low:.3g} to {sizes.high:.3g} px across, the median of an image"
    if card.tuned:
        chosen = card.tuned.get("rules", {})
        yield "tuned", ", ".join(f"{name} {value}" for name, value in chosen.items())


def _data(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Yield what a model was trained on, as far as its card knows it."""
    for one in card.about.get("data", ()):
        yield "data", f"{one['title']} ({one['licence']})"
        yield "cite", one["citation"]
    data = card.recipe["data"]
    for loader in (data["loader"], *(one["loader"] for one in data.get("also") or ())):
        if (drawn := _MADE_UP.get(loader["name"])) is not None:
            yield "data", f"{drawn} ({loader['train']:,} images, seed {loader['seed']})"
