"""The verb that scores: evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg.cli.options import AUTO, Device, DiameterOrAuto, Precision, diameter_of
from domainseg.cli.screen import Meter, say, show_table
from domainseg.errors import UsageError, sentence

if TYPE_CHECKING:
    from domainseg.instances.evaluation import Evaluation
    from domainseg.runs import RunOptions


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(evaluate)


def evaluate(
    model: Annotated[Path | None, typer.Argument(help="A model file.")] = None,
    data_root: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Folder of data.")
    ] = None,
    labels: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="PRED TRUTH", help="Score label images instead of a model."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep predictions here, to report on.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change of the recipe, KEY=VALUE, as evaluate.defects=true."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all [the recipe's evaluate.part].")
    ] = None,
    kinds: Annotated[
        Path | None, typer.Option(help="CSV with columns image and kind, for --labels.")
    ] = None,
    diameter_px: DiameterOrAuto = None,
    true_diameter: Annotated[
        bool, typer.Option("--true-diameter", help="That of each image's annotated objects.")
    ] = False,
    restart: Annotated[bool, typer.Option(help="Replace results of other settings.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the scores in the model's card.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write every figure here.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Score a model on data with truth, or label images against label images."""
    from domainseg.evaluate import evaluate_labels, write_evaluation
    from domainseg.runs import RunOptions

    if (labels is None) == (model is None):
        raise UsageError(
            sentence(
                "evaluate",
                found="both a model and --labels" if labels else "neither a model nor --labels",
                wanted="one of them",
                fix="give MODEL DATA, or --labels PRED TRUTH",
            )
        )
    idle: dict[str, object] = {"--kinds": kinds}
    if labels is not None:
        diameters = {"--diameter-px": diameter_px, "--true-diameter": true_diameter or None}
        idle = {"-o": out, "--set": change, "--split": split, "--keep": keep or None, **diameters}
    asked = [name for name, value in idle.items() if value is not None]
    _refuse_idle(asked, "with a model" if labels is None else "with --labels")
    if keep:
        changed: dict[str, object] = {
            "-o": out,
            "--set": change,
            "--split": split,
            "--diameter-px": diameter_px,
            "--true-diameter": true_diameter or None,
        }
        others = [name for name, value in changed.items() if value is not None]
        _refuse_idle(others, "with --keep, which keeps the scores of the model as it is")
    if labels is not None:
        found = evaluate_labels(*labels, kinds=kinds)
    else:
        assert model is not None
        options = RunOptions(
            overrides=tuple(change or ()),
            diameter_px=diameter_of(diameter_px),
            estimate_diameter=diameter_px == AUTO,
            restart=restart,
            device=device,
            precision=precision,
        )
        found = _score(
            model, data_root, out=out, part=split, true_diameter=true_diameter, options=options
        )
    _show(found)
    if keep and model is not None:
        from domainseg.about import keep_tested

        keep_tested(model, found)
    if json is not None:
        write_evaluation(found, json)
        say(str(json))


def _refuse_idle(asked: Sequence[str], where: str) -> None:
    """Raise UsageError where an option was given that would do nothing."""
    if asked:
        raise UsageError(
            sentence(
                "evaluate",
                found=f"{asked[0]} {where}",
                wanted="options that take effect",
                fix=f"drop {asked[0]}",
            )
        )


def _score(
    model: Path,
    data_root: Path | None,
    *,
    out: Path | None,
    part: str | None,
    true_diameter: bool,
    options: RunOptions,
) -> Evaluation:
    from domainseg.evaluate import evaluate_model

    with Meter("image") as meter:
        return evaluate_model(
            model,
            data_root,
            out=out,
            part=part,
            true_diameter=true_diameter,
            options=options,
            tell=meter.step,
        )


def _show(found: Evaluation) -> None:
    """Print the tables of what was scored, an empty line between them."""
    for number, table in enumerate(found.tables()):
        if number:
            say("")
        show_table(*table)
