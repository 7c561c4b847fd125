"""``domainseg data``: cards, downloads, made-up data, pictures and exports of data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainseg.cli.screen import Meter, say, show_table, warn

app = typer.Typer(help="Data sets: cards, downloads, made-up data.")

Out = Annotated[Path, typer.Argument(help="Folder to write into.")]


@app.command("list")
def list_cards() -> None:
    """List the data sets there is a card for."""
    from domainseg.loaders.cards import list_cards as cards
    from domainseg.loaders.cards import read_card

    rows = []
    for name, path in cards().items():
        card = read_card(path)
        rows.append((name, card.title, card.licence))
    show_table(("card", "title", "licence"), rows)


@app.command()
def fetch(
    card: Annotated[str, typer.Argument(help="Name of a card, or a card's file.")], out: Out
) -> None:
    """Download a data set and check it against its card."""
    from domainseg.loaders.cards import find_card
    from domainseg.loaders.fetch import fetch as download

    found = find_card(card)
    for file in download(found, out):
        state = "verified" if file.verified else "not verified: the card has no sha256"
        say(f"{file.url}  {file.size_bytes} bytes  sha256 {file.sha256}  {state}")
    if found.preparation:
        say(found.preparation)


@app.command()
def make(
    kind: Annotated[str, typer.Argument(help="scenes: micrographs; wafers: wafer inspection.")],
    out: Out,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Options of the loader: train=8 width=512."),
    ] = None,
) -> None:
    """Write made-up images with exact truth, index and labels beside them."""
    from domainseg.errors import UsageError, sentence
    from domainseg.recipe import loader_options

    if kind == "wafers":
        from domainseg.loaders.wafer_files import write_wafers
        from domainseg.loaders.wafers import Wafers

        written = write_wafers(out, loader_options(Wafers, options or ()))
        tables = "classes.csv, defects.csv, die_grid.json"
        tables += ", coco.json" if written.coco else " (too large for coco.json)"
        say(f"{out}  {len(written.images)} images with labels, {tables} and index.csv")
        return
    if kind == "wafer_maps":
        from domainseg.loaders.wafer_map_files import write_wafer_maps
        from domainseg.loaders.wafer_maps import WaferMaps

        paths = write_wafer_maps(out, loader_options(WaferMaps, options or ()))
        say(f"{out}  {len(paths)} maps with zones, classes.csv, coco.json and index.csv")
        return
    if kind != "scenes":
        raise UsageError(
            sentence(
                "data make",
                found=f"'{kind}'",
                wanted="scenes, wafers or wafer_maps",
                fix="correct the name",
            )
        )
    from domainseg.loaders.scenes import Scenes, write_scenes

    paths = write_scenes(out, loader_options(Scenes, options or ()))
    say(f"{out}  {len(paths)} images with labels and index.csv")


@app.command()
def preview(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of one that ships.")],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe.")
    ] = None,
    count: Annotated[int, typer.Option(help="Images of each part of the split.")] = 4,
) -> None:
    """Draw the truth of a recipe's data over its images."""
    from domainseg.preview import write_previews

    for path in write_previews(recipe, out, overrides=tuple(overrides or ()), count=count):
        say(str(path))


@app.command()
def export(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of one that ships.")],
    out: Annotated[Path, typer.Argument(help="COCO file to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe.")
    ] = None,
    part: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    keep_ids: Annotated[
        bool, typer.Option(help="Keep the objects' own ids, where no two have one.")
    ] = False,
) -> None:
    """Write the objects of a recipe's data as COCO instances."""
    from domainseg.loaders.coco_write import file_names, write_instances
    from domainseg.recipe import load_recipe
    from domainseg.sources import entries_of, open_source, skipped_in

    _check_part(part)
    plan = load_recipe(recipe, tuple(overrides or ()))
    source = open_source(plan)
    entries = sorted(entries_of(source, part, where=str(recipe)), key=lambda entry: entry.id)
    with Meter("image") as meter:
        count = write_instances(
            out,
            source,
            entries,
            file_names=file_names(source.dataset, Path(plan.data.root or ".")),
            keep_ids=keep_ids,
            tell=meter.step,
        )
    for said in skipped_in(source):
        warn(said)
    say(f"{out}  {len(entries)} images, {count} objects")


def _check_part(part: str) -> None:
    """Raise UsageError for a word that names no part."""
    from domainseg.errors import UsageError, sentence

    if part not in ("train", "val", "test", "all"):
        raise UsageError(
            sentence(
                "--part",
                found=f"'{part}'",
                wanted="train, val, test or all",
                fix="correct the name",
            )
        )
