"""The verbs of KLARF files: show, convert, merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg.cli.screen import say, show_table
from domainseg.errors import OutputError, UsageError, sentence

if TYPE_CHECKING:
    from domainseg.quality.klarf import Klarf, Version, Wafer

app = typer.Typer(help="Look at, convert and stack KLARF files of wafer inspection.")
CM2_UM2 = 1e8
SHOWN = 20
"""Classes that are printed, those with most defects."""

File = Annotated[Path, typer.Argument(help="A KLARF file of version 1.1, 1.2 or 1.8.")]
To = Annotated[str, typer.Option("--to", help="Version that is written: 1.1, 1.2 or 1.8.")]


@app.command()
def show(file: File) -> None:
    """Print what a file says: lot, wafers, inspected area, density, defects by class."""
    from domainseg.quality.klarf_file import read_klarf

    klarf = read_klarf(file)
    facts = [("version", klarf.version), ("lot", klarf.lot)]
    facts += [(name, " ".join(values)) for name, values in klarf.timestamps.items()]
    if klarf.diameter_mm is not None:
        facts.append(("wafer", f"{klarf.diameter_mm:g} mm, {klarf.mark or 'mark unknown'}"))
    if klarf.pitch_um is not None:
        facts.append(("die pitch", f"{klarf.pitch_um[0]:.12g} x {klarf.pitch_um[1]:.12g} um"))
    facts += [(name, " ".join(values)) for name, values in klarf.fields.items() if any(values)]
    for name, value in facts:
        say(f"{name + ':':26s}{_printable(value)}")
    say("")
    header = ("wafer", "slot", "defects", "dies with any", "dies in plan", "area cm2", "per cm2")
    show_table((*header, "95 % interval"), [_row(wafer) for wafer in klarf.wafers])
    _show_classes(klarf)


@app.command()
def convert(
    file: File, out: Annotated[Path, typer.Argument(help="File to write.")], to: To
) -> None:
    """Write a file in another version; what that version has no place for is named."""
    from domainseg.quality.klarf_file import read_klarf
    from domainseg.quality.klarf_write import losses, write_klarf

    version = _version(to)
    klarf = read_klarf(file)
    _refuse_existing(out)
    write_klarf(out, klarf, version=version)
    for loss in losses(klarf, version):
        say(f"left out: {loss}")
    say(f"{out}  version {version}")


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="KLARF files of wafers of one lot.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    to: To = "1.2",
) -> None:
    """Stack the wafers of several files of one lot into one."""
    from domainseg.quality.klarf_file import read_klarf, stacked
    from domainseg.quality.klarf_write import losses, write_klarf

    version = _version(to)
    made = stacked([(str(file), read_klarf(file)) for file in files])
    _refuse_existing(out)
    write_klarf(out, made, version=version)
    for loss in losses(made, version):
        say(f"left out: {loss}")
    say(f"{out}  {len(made.wafers)} wafers")


def _row(wafer: Wafer) -> tuple[str, ...]:
    """Return the row of a wafer."""
    import numpy as np

    from domainseg.quality.statistics import poisson_interval

    count = len(wafer.defects)
    columns = wafer.defects.columns
    plans = [test.plan for test in wafer.tests if test.plan is not None]
    inspected = len(np.unique(np.concatenate(plans), axis=0)) if plans else None
    hit = None
    if "XINDEX" in columns and "YINDEX" in columns:
        hit = len(np.unique(np.stack([columns["XINDEX"], columns["YINDEX"]], 1), axis=0))
    areas = [test.area_um2 for test in wafer.tests if test.area_um2]
    density = interval = "-"
    if len(areas) == 1:
        cm2 = areas[0] / CM2_UM2
        bounds = poisson_interval(count, exposure=cm2)
        density, interval = f"{count / cm2:.4g}", f"{bounds.low:.4g} to {bounds.high:.4g}"
    return (
        _printable(wafer.name),
        "-" if wafer.slot is None else str(wafer.slot),
        str(count),
        "-" if hit is None else str(hit),
        "-" if inspected is None else str(inspected),
        "-" if len(areas) != 1 else f"{areas[0] / CM2_UM2:.4g}",
        density,
        interval,
    )


def _show_classes(klarf: Klarf) -> None:
    """Print the defects of all wafers by class, the most frequent first."""
    import numpy as np

    found = [
        w.defects.columns["CLASSNUMBER"] for w in klarf.wafers if "CLASSNUMBER" in w.defects.columns
    ]
    if not found or not sum(map(len, found)):
        return
    numbers, counts = np.unique(np.concatenate(found), return_counts=True)
    rows = sorted(
        zip(counts.tolist(), numbers.tolist(), strict=True), key=lambda one: (-one[0], one[1])
    )
    say("")
    show_table(
        ("class", "name", "defects"),
        [(f"{n:g}", _printable(klarf.classes.get(n, "-")), str(c)) for c, n in rows[:SHOWN]],
    )
    if len(rows) > SHOWN:
        say(f"and {len(rows) - SHOWN} classes with fewer")


def _printable(text: str) -> str:
    """Return a text of a file for a terminal: what does not print, or turns lines, is escaped."""
    from domainseg.report.visible import shortened, visible

    return shortened(visible(text))


def _version(text: str) -> Version:
    from domainseg.quality.klarf import VERSIONS

    if text not in VERSIONS:
        raise UsageError(
            sentence("--to", found=text, wanted=", ".join(VERSIONS), fix="name one of them")
        )
    return text


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise OutputError(
            sentence(out, found="a file", wanted="a new one", fix="choose another name")
        )
