"""Verbs that look and change nothing: list, init, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainseg.cli.screen import say


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command("list")(list_parts)
    app.command()(init)
    app.command()(doctor)


def list_parts() -> None:
    """List recipes, models that ship, example rules, data cards and the parts of recipes."""
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
