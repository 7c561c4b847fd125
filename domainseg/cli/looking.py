"""Verbs that look and change nothing: list, init, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainseg.cli.screen import say, show_table
from domainseg.errors import UsageError, sentence


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command("list")(list_parts)
    app.command()(init)
    app.command()(doctor)


def list_parts(
    what: Annotated[
        str | None, typer.Argument(help="models: what is known of each one that ships.")
    ] = None,
    model: Annotated[
        Path | None, typer.Argument(help="One of these, or a model file, alone.")
    ] = None,
) -> None:
    """List recipes, models that ship, example rules, data cards and the parts of recipes."""
    if what is not None:
        _list_models(what, model)
        return
    from domainseg import catalog
    from domainseg.loaders.cards import list_cards
    from domainseg.shipped import shipped, shipped_models

    rows = [
        ("recipes", ", ".join(sorted(p.stem for p in shipped("recipes").glob("*.yaml")))),
        ("trained", ", ".join(shipped_models())),
        ("rules", ", ".join(sorted(p.stem for p in (shipped("recipes") / "rules").glob("*.yaml")))),
        ("data cards", ", ".join(list_cards())),
        ("loaders", ", ".join(catalog.names(catalog.LOADERS))),
        ("models", ", ".join(catalog.names(catalog.MODELS))),
        ("heads", ", ".join(catalog.names(catalog.HEADS))),
    ]
    for name, parts in rows:
        say(f"{name:<12}{parts}")


def _list_models(what: str, model: Path | None) -> None:
    from domainseg.about import portrait
    from domainseg.shipped import shipped_models

    if what != "models":
        raise UsageError(
            sentence("list", found=f"'{what}'", wanted="models, or nothing", fix="write models")
        )
    for number, path in enumerate(list(shipped_models().values()) if model is None else [model]):
        if number:
            say("")
        shown = portrait(path)
        say(shown.name)
        for name, value in shown.facts:
            say(f"  {name:<10}{value}")
        for table in shown.tables:
            show_table(*table)


def init(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    masks: Annotated[Path, typer.Argument(help="Folder of label images of the same names.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Recipe to write.")] = Path(
        "recipe.yaml"
    ),
    model: Annotated[
        str, typer.Option("--model", help="unet, or mask_rcnn, with anchors of the objects' sizes.")
    ] = "unet",
) -> None:
    """Look at images and masks and write a recipe that fits them."""
    from domainseg.survey import write_first_recipe

    for line in write_first_recipe(images, masks, out, model=model):
        say(line)
    say(f"{out}  train it with: domainseg train {out}")


def doctor() -> None:
    """Say what this machine offers: versions, processor, devices."""
    from domainseg.machine import describe_machine

    for name, value in describe_machine().items():
        say(f"{name:<32}{value}")
