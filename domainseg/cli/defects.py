"""The verb that looks at objects as defects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainseg.cli.screen import RunMeter, say, show_table

SHOWN = 20
"""Rows that are printed, those of largest area."""
COLUMNS = ("label", "class", "score", "confidence", "area_um2", "area_px", "length_um")
PLACES = ("die_x", "die_y", "die_xrel_um", "die_yrel_um")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(defects)


def defects(
    run: Annotated[Path, typer.Argument(help="A run folder that predict wrote.")],
    die_grid: Annotated[
        Path | None, typer.Option(help="die_grid.json: adds places on the wafer and in the die.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Where the image is now, if it was moved.")
    ] = None,
) -> None:
    """Contrast, confidence and wafer position of every object; writes defects.parquet."""
    from domainseg.defects import add_defects

    with RunMeter() as meter:
        made = add_defects(run, die_grid=die_grid, image=image, tell=meter.part)
    table = made.table
    to_noise = [name for name in table.columns if name.startswith("contrast_to_noise_")]
    wanted = (*COLUMNS, *to_noise, *PLACES)
    known = {name for name in table.columns if table[name].null_count() < len(table)}
    shown = [name for name in wanted if name in known]
    rows = table.sort("area_px", descending=True).head(SHOWN).select(shown)
    show_table(tuple(shown), [tuple(_text(value) for value in row) for row in rows.iter_rows()])
    say(f"{made.folder / 'defects.parquet'}  {table.height} defects")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
