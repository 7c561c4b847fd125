"""The verb that reports: runs as a page, or judged by rules with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg.cli.screen import say, warn
from domainseg.errors import GateError, IndeterminateError, UsageError, sentence

if TYPE_CHECKING:
    from domainseg.judge import Judged

Runs = Annotated[
    list[Path],
    typer.Argument(help="Folders that predict or evaluate wrote; with --rules KLARF files too."),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--formats",
        help="With --rules: html,json,parquet,csv,klarf,geojson,coco,g85,junit,pdf [all but pdf].",
    ),
]
VERDICT = "verdict"
"""Folder inside a run for what is judged of it."""
ONLY_WITH_RULES = ("gate", "die-grid", "manifest", "formats", "klarf-version")


def add_to(app: typer.Typer) -> None:
    """Add the verb to an application."""
    app.command()(report)


def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the files [the first run; with --rules verdict in it]."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Rules to judge by: a YAML file, or wafer, surface, cells.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Leave with 1 for FAIL and 4 for INDETERMINATE.")
    ] = False,
    die_grid: Annotated[
        Path | None, typer.Option(help="die_grid.json of the images: they are wafers.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV of the images: image, unit_id, lot, step, ...")
    ] = None,
    formats: Formats = None,
    klarf_version: Annotated[str | None, typer.Option(help="1.1, 1.2 or 1.8 [1.2].")] = None,
) -> None:
    """Write one self-contained page about runs; with rules, a verdict on every defect."""
    if rules is None:
        for name, given in zip(
            ONLY_WITH_RULES, (gate, die_grid, manifest, formats, klarf_version), strict=True
        ):
            if given:
                raise UsageError(
                    sentence(f"--{name}", found="no --rules", wanted="a rules file", fix="name one")
                )
        from domainseg.inspection import inspect

        say(str(inspect(runs, out=out or runs[0], title=title)))
        return
    from domainseg.judge import DEFAULT_FORMATS, judge
    from domainseg.quality.klarf import VERSIONS

    if out is None and runs[0].is_file():
        raise UsageError(
            sentence("--out", found="none", wanted="a folder for the files", fix="name one")
        )
    version = klarf_version or "1.2"
    if version not in VERSIONS:
        raise UsageError(
            sentence(
                "--klarf-version",
                found=f"'{version}'",
                wanted=f"one of {', '.join(VERSIONS)}",
                fix="change it",
            )
        )
    judged = judge(
        runs,
        rules=rules,
        out=out or runs[0] / VERDICT,
        title=title,
        formats=_formats(formats) or DEFAULT_FORMATS,
        die_grid=die_grid,
        manifest=manifest,
        klarf_version=version,
    )
    _say(judged)
    if gate:
        _leave(judged)


def _formats(given: str | None) -> list[str]:
    return [] if given is None else [one.strip() for one in given.split(",")]


def _say(judged: Judged) -> None:
    made = judged.assessment
    for line in made.lot.warnings:
        warn(line)
    for result in made.results:
        number = result.number
        value = "not known" if number.value is None else f"{number.value:.4g}"
        interval = number.interval
        within = "" if interval is None else f" ({interval.low:.4g} to {interval.high:.4g})"
        side = "at most" if result.rule.max is not None else "at least"
        say(
            f"{result.outcome:<13} {result.rule.id}: {result.rule.metric} {value}{within}, "
            f"wanted {side} {result.rule.limit:g}"
        )
    for one in made.requirements:
        if not one.met:
            say(f"INDETERMINATE {one.name}: {one.found}, wanted {one.wanted}")
    say(f"{judged.outcome}  {judged.files[0] if judged.files else judged.folder}")


def _leave(judged: Judged) -> None:
    """Raise where the verdict is no pass.

    Raises:
        GateError: it is FAIL.
        IndeterminateError: there is none.
    """
    if judged.outcome == "PASS":
        return
    error = GateError if judged.outcome == "FAIL" else IndeterminateError
    raise error(
        sentence(
            "gate",
            found=f"verdict {judged.outcome}",
            wanted="PASS",
            fix=f"see {judged.folder}",
        )
    )
