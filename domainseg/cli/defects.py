"""The verb that looks at objects as defects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg.cli.screen import RunMeter, say, show_table
from domainseg.errors import UsageError, sentence

if TYPE_CHECKING:
    import polars as pl

SHOWN = 20
"""Rows that are printed, those of largest area."""
COLUMNS = (
    *("label", "class", "class_share", "score", "confidence", "area_um2", "area_px"),
    *("length_um", "skeleton_length_um", "mean_width_um"),
)
PLACES = ("die_x", "die_y", "die_xrel_um", "die_yrel_um", "die_repeats")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(defects)


def defects(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders that predict wrote, or folders of such.")
    ],
    die_grid: Annotated[
        Path | None, typer.Option(help="die_grid.json: adds places on the wafer and in the die.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Where the image is now, if it was moved.")
    ] = None,
    repeater_um: Annotated[
        float | None,
        typer.Option(min=0.0, help="Defects of dies this near in place repeat [three pixels]."),
    ] = None,
) -> None:
    """Contrast, confidence and wafer position of every object; writes defects.parquet."""
    import polars as pl

    from domainseg.defects import add_defects
    from domainseg.report.run_folder import image_folders

    folders = [folder for run in runs for folder in image_folders(run)]
    if image is not None and len(folders) > 1:
        raise UsageError(
            sentence(
                "defects --image",
                found=f"{len(folders)} runs",
                wanted="one",
                fix="name the run of this image alone",
            )
        )
    made = []
    with RunMeter() as meter:
        for done, folder in enumerate(folders):
            meter.image(done, len(folders), folder.name)
            made.append(
                add_defects(
                    folder,
                    die_grid=die_grid,
                    image=image,
                    repeater_um=repeater_um,
                    tell=meter.part,
                )
            )
        meter.image(len(folders), len(folders), "")
    _show(pl.concat([one.table for one in made], how="diagonal"), many=len(made) > 1)
    for one in made:
        say(f"{one.folder / 'defects.parquet'}  {one.table.height} defects")


def _show(table: pl.DataFrame, *, many: bool) -> None:
    """Print the largest defects, and what is not known of any."""
    to_noise = [name for name in table.columns if name.startswith("contrast_to_noise_")]
    wanted = (*(("image",) if many else ()), *COLUMNS, *to_noise, *PLACES)
    known = {name for name in table.columns if table[name].null_count() < len(table)}
    shown = [name for name in wanted if name in known]
    rows = table.sort("area_px", descending=True).head(SHOWN).select(shown)
    show_table(tuple(shown), [tuple(_text(value) for value in row) for row in rows.iter_rows()])
    repeating = int(table["repeater"].sum()) if "repeater" in table.columns else 0
    if repeating:
        say(f"{repeating:,} of {table.height:,} lie at the same place of more dies than by chance.")
    if table.height and "confidence" not in known:
        say("no confidence: the model was not tuned, or its rules were changed since.")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
