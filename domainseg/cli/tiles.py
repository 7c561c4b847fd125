"""Verbs about images that are cut into tiles: check, verify-tiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg.cli.options import (
    AUTO,
    Device,
    DiameterOrAuto,
    DiameterPx,
    Precision,
    Select,
    SpacingUm,
    diameter_of,
    selection,
)
from domainseg.cli.screen import Meter, say, show_table, warn
from domainseg.errors import GateError, UsageError, sentence

if TYPE_CHECKING:
    from domainseg.runs import RunOptions


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(check)
    app.command("verify-tiling")(verify)


def check(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe file, the name of one that ships, or with --image a model file."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Predict memory, disk and time of this image instead.")
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(metavar="GB", help="With --image: what may be used.")
    ] = None,
    select: Select = None,
    spacing_um: SpacingUm = None,
    diameter_px: DiameterOrAuto = None,
) -> None:
    """Read a recipe and every image and label it names; say what is there.

    With --image say instead what a prediction of all of that image will take.
    """
    asked: dict[str, object] = {
        "--max-memory": max_memory,
        "--select": select,
        "--spacing-um": spacing_um,
        "--diameter-px": diameter_px,
    }
    idle = [name for name, value in asked.items() if value is not None]
    if image is not None:
        from domainseg.runs import RunOptions

        options = RunOptions(
            overrides=tuple(overrides or ()),
            select=selection(select),
            spacing_um=spacing_um,
            diameter_px=diameter_of(diameter_px),
            estimate_diameter=diameter_px == AUTO,
            max_memory_mb=None if max_memory is None else 1000 * max_memory,
        )
        _check_image(recipe, image, options)
        return
    if idle:
        raise UsageError(
            sentence(
                "check",
                found=f"{idle[0]} without --image",
                wanted="options that take effect",
                fix=f"drop {idle[0]} or give --image",
            )
        )
    from domainseg.survey import survey_recipe

    found = survey_recipe(recipe, overrides=tuple(overrides or ()))
    show_table(found.header, found.rows)
    for note in found.notes:
        say(note)


def _check_image(recipe: Path, image: str, options: RunOptions) -> None:
    from domainseg.budget import predict_budget

    budget = predict_budget(recipe, image, options=options)
    show_table(*budget.table())
    for note in budget.notes:
        say(note)


def verify(
    model: Annotated[Path, typer.Argument(help="A model file.")],
    image: Annotated[str, typer.Argument(help="An image, best of 4 Mpx or more.")],
    core: Annotated[
        list[int] | None,
        typer.Option(help="Side of a core to try, px; repeatable [the model's, / 2, / 4]."),
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change of the recipe, KEY=VALUE.")
    ] = None,
    select: Select = None,
    spacing_um: SpacingUm = None,
    diameter_px: DiameterPx = None,
    untiled_mpx: Annotated[
        float, typer.Option(help="Largest part of the image that is run in one piece.")
    ] = 24.0,
    json: Annotated[Path | None, typer.Option(help="Write every figure here.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Measure what the tiles of a model change; exit code 1 beyond the tolerances."""
    from domainseg.verify_tiling import VerifyOptions, verify_tiling, write_verification

    options = VerifyOptions(
        cores=tuple(core or ()),
        overrides=tuple(change or ()),
        select=selection(select),
        spacing_um=spacing_um,
        diameter_px=diameter_px,
        untiled_mpx=untiled_mpx,
        device=device,
        precision=precision,
    )
    with Meter("pass") as meter:
        found = verify_tiling(model, image, options=options, tell=meter.step)
    show_table(*found.compared.table())
    say(found.compared.summary())
    for warning in found.warnings:
        warn(warning)
    if json is not None:
        write_verification(found, json)
        say(str(json))
    if not found.passed:
        raise GateError(found.refusal())
