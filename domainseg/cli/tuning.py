"""The verb that chooses rules of decoding: tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from domainseg.cli.options import Device, Precision
from domainseg.cli.screen import RunMeter, say, show_table, warn
from domainseg.errors import UsageError, sentence

if TYPE_CHECKING:
    from domainseg.quality.calibration import CalibrationMethod
    from domainseg.quality.tuning import AimName
    from domainseg.tune import Tuned

AIMS = ("f1", "recall", "escape")
CALIBRATIONS = ("temperature", "isotonic")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(tune)


def tune(
    model: Annotated[Path, typer.Argument(help="A model file; it will hold the rules.")],
    data_root: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Folder of data [the recipe's].")
    ] = None,
    aim: Annotated[
        str,
        typer.Option(help="f1, recall (at a false-call budget), or escape (a bound of its rate)."),
    ] = "f1",
    false_calls_per_mpx: Annotated[
        float | None, typer.Option(help="Budget, for the aim recall.")
    ] = None,
    escape_rate: Annotated[
        float | None, typer.Option(help="Largest share of defects missed, for the aim escape.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
    calibration: Annotated[str, typer.Option(help="temperature or isotonic.")] = "temperature",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a copy instead [MODEL].")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change of the recipe, KEY=VALUE.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Choose thresholds on validation data for a stated aim; the model file keeps them."""
    from domainseg.quality.tuning import Aim
    from domainseg.runs import RunOptions
    from domainseg.tune import tune as choose

    for name, value, known in (("--aim", aim, AIMS), ("--calibration", calibration, CALIBRATIONS)):
        if value not in known:
            raise UsageError(
                sentence(
                    f"tune {name}",
                    found=f"'{value}'",
                    wanted=f"one of {', '.join(known)}",
                    fix="correct it",
                )
            )
    stated = Aim(
        name=cast("AimName", aim),
        false_calls_per_mpx=false_calls_per_mpx,
        escape_rate=escape_rate,
    )
    options = RunOptions(overrides=tuple(change or ()), device=device, precision=precision)
    with RunMeter() as meter:
        tuned = choose(
            model,
            data_root,
            aim=stated,
            out=out,
            part=split,
            calibration=cast("CalibrationMethod", calibration),
            options=options,
            tell=meter.part,
        )
    _show(tuned)


def _show(tuned: Tuned) -> None:
    rows = []
    for name, found in (("before", tuned.before), ("after", tuned.after)):
        figures = (found.recall, found.precision, found.f1)
        rows.append(
            (
                name,
                *(f"{figure:.4f}" for figure in figures),
                f"{found.false_per_mpx:.3g}",
                f"{found.escape_bound:.4f}",
            )
        )
    header = ("rules", "recall", "precision", "F1", "false calls per Mpx", "escape rate at most")
    show_table(header, rows)
    for name, value in tuned.rules.items():
        say(f"instances.{name}={value}")
    if tuned.errors is None:
        warn("scores not calibrated: too few objects, or all right or all wrong.")
    else:
        before, after = tuned.errors
        say(f"expected calibration error {before:.4f} before, {after:.4f} after")
    budget = tuned.aim.false_calls_per_mpx
    if budget is not None and budget * tuned.after.mpx < 1:
        warn(
            f"{tuned.after.mpx:.3g} Mpx of images are too few to tell {budget:g} false calls per "
            "Mpx from none; tune on more."
        )
    if not tuned.kept:
        warn("no rules keep the bound on these images; these come nearest.")
    say(str(tuned.model))
