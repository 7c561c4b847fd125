"""Runs and result files judged by rules: a verdict, its page, and tables for machines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from domainseg import __version__
from domainseg.atomic import atomic_path, atomic_text, make_folder, writing_below
from domainseg.errors import UsageError, sentence
from domainseg.gallery import unit_pictures, worst_pictures
from domainseg.graded_outlines import write_coco, write_geojson
from domainseg.lots import read_lot, run_folders
from domainseg.quality.assess import Assessment, Outcome, assess
from domainseg.quality.g85 import MapHeader, write_g85
from domainseg.quality.junit import junit_xml
from domainseg.quality.klarf import Version
from domainseg.quality.klarf_of_lot import klarf_of
from domainseg.quality.klarf_write import write_klarf
from domainseg.quality.lot import Unit
from domainseg.quality.zones import read_zones
from domainseg.report import html, json, pdf
from domainseg.report.judged.compose import judged_document
from domainseg.report.wording import FOOTER
from domainseg.rules_file import find_rules, load_rules

FORMATS = ("html", "json", "parquet", "csv", "klarf", "geojson", "coco", "g85", "junit", "pdf")
DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "pdf")
"""What is written where nothing is asked for; the PDF needs the extra ``pdf``."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What `judge` found and wrote.

    Attributes:
        assessment: numbers, rules and verdict.
        folder: of the files.
        files: that were written, in the order of FORMATS.
    """

    assessment: Assessment
    folder: Path
    files: tuple[Path, ...]

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        return self.assessment.outcome


def judge(
    sources: Sequence[Path | str],
    *,
    rules: Path | str,
    out: Path | str,
    title: str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    die_grid: Path | str | None = None,
    manifest: Path | str | None = None,
    klarf_version: Version = "1.2",
) -> Judged:
    """Write the quality report of runs and KLARF files into ``out``; equal inputs, equal bytes.

    Args:
        sources: folders that ``predict`` wrote, and KLARF files.
        rules: the rules file, or the name of one that ships; files of its zones lie beside it.
        out: folder, created where it is missing.
        title: of the page; by default that of the rules, else the lot's.
        formats: some of FORMATS.
        die_grid: ``die_grid.json`` of the runs' images.
        manifest: table of the runs' images, their units and lots (`manifest`).
        klarf_version: of the files that are written.

    Raises:
        UsageError: no source, an unknown format, rules that cannot be used, or ``out`` is one of
            the sources.
        InputError: a source or a zone cannot be used.
        OutputError: a file cannot be written.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise UsageError(
            sentence(
                "formats", found=unknown[0], wanted=f"some of {', '.join(FORMATS)}", fix="change it"
            )
        )
    folder = Path(out)
    if "pdf" in formats:
        pdf.require()
    file = find_rules(rules)
    law = load_rules(file)
    zones = read_zones(law.zones, file.parent)
    places = [Path(one) for one in sources]
    lot = read_lot(
        places,
        die_grid=None if die_grid is None else Path(die_grid),
        manifest=None if manifest is None else Path(manifest),
    )
    runs = run_folders(places)
    _require_apart(folder, places, runs)
    made = assess(lot, law, zones)
    make_folder(folder)
    shown = bool({"html", "pdf"} & set(formats))
    document = judged_document(
        made,
        title=title or law.title or _title(made),
        generator=_generator(),
        footer=FOOTER,
        pictures=worst_pictures(made, runs) if shown else (),
        units=unit_pictures(made, runs) if shown else (),
        rules_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    writers: dict[str, Callable[[], list[Path]]] = {
        "html": lambda: [_text(folder / "report.html", html.render(document))],
        "json": lambda: [_text(folder / "report.json", json.render(document))],
        "parquet": lambda: _parquet(made, folder),
        "csv": lambda: _csv(made, folder),
        "klarf": lambda: _klarf(made, folder, klarf_version, places),
        "geojson": lambda: _geojson(made, folder, runs),
        "coco": lambda: _coco(made, folder, runs),
        "g85": lambda: _g85(made, folder),
        "junit": lambda: [_bytes(folder / "junit.xml", junit_xml(made, name=document.title))],
        "pdf": lambda: [_bytes(folder / "report.pdf", pdf.render(document))],
    }
    files = []
    with writing_below(folder):
        for name in FORMATS:
            if name in formats:
                files += writers[name]()
    return Judged(made, folder, tuple(files))


def _require_apart(folder: Path, sources: Sequence[Path], runs: Mapping[str, Path]) -> None:
    """Raise UsageError where a table of ours would take the place of one that was read."""
    kept = {run.resolve() for run in runs.values()}
    kept |= {source.resolve() for source in sources if source.is_dir()}
    if folder.resolve() in kept:
        raise UsageError(
            sentence(
                folder,
                found="the folder of what is reported on",
                wanted="another for the report",
                fix="name one, such as a folder inside it",
            )
        )


def _generator() -> str:
    return f"domainseg {__version__}"


def _title(made: Assessment) -> str:
    lots = dict.fromkeys(unit.lot for unit in made.lot.units if unit.lot)
    if lots:
        return f"Lot {', '.join(list(lots)[:3])}"
    return made.lot.units[0].name if len(made.lot.units) == 1 else "Inspection"


def _text(path: Path, text: str) -> Path:
    atomic_text(path, text)
    return path


def _bytes(path: Path, content: bytes) -> Path:
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return path


def _parquet(made: Assessment, folder: Path) -> list[Path]:
    tables = {"defects": made.defects, "dies": made.dies}
    return _tables(folder, ".parquet", tables, pl.DataFrame.write_parquet)


def _csv(made: Assessment, folder: Path) -> list[Path]:
    tables = {"defects": made.defects, "units": made.units}

    def write(table: pl.DataFrame, path: Path) -> None:
        _without_formulas(table).write_csv(path, line_terminator="\r\n")

    return _tables(folder, ".csv", tables, write)


def _tables(
    folder: Path,
    ending: str,
    tables: Mapping[str, pl.DataFrame],
    write: Callable[[pl.DataFrame, Path], object],
) -> list[Path]:
    files = []
    for name, table in tables.items():
        path = folder / f"{name}{ending}"
        with atomic_path(path) as partial:
            write(table, partial)
        files.append(path)
    return files


def _without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of which no cell of text begins as a formula of a spreadsheet does."""
    texts = [name for name, kind in table.schema.items() if kind == pl.String()]
    return table.with_columns(
        pl.when(pl.col(name).str.contains(r"^[=+\-@\t\r]"))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    )


def _klarf(made: Assessment, folder: Path, version: Version, sources: Sequence[Path]) -> list[Path]:
    files = []
    read = {source.resolve() for source in sources}
    for unit, name in _wafers(made):
        path = folder / f"{name}.001"
        if path.resolve() in read:
            path = folder / f"{name}-judged.001"
        write_klarf(path, klarf_of(made, unit, version=version, software=__version__))
        files.append(path)
    return files


def _geojson(made: Assessment, folder: Path, runs: Mapping[str, Path]) -> list[Path]:
    files = []
    for (image, run), name in zip(runs.items(), _file_names(runs), strict=True):
        path = folder / f"{name}.geojson"
        write_geojson(made, run, image, path)
        files.append(path)
    return files


def _coco(made: Assessment, folder: Path, runs: Mapping[str, Path]) -> list[Path]:
    path = folder / "defects.coco.json"
    return [path] if write_coco(made, runs, path) else []


def _g85(made: Assessment, folder: Path) -> list[Path]:
    files = []
    for unit, name in _wafers(made):
        dies = unit.dies
        if dies is None or not dies.listed or not len(dies):
            continue  # a map without the dies that pass would say that all fail
        mine = made.dies.filter(pl.col("unit") == unit.name)
        path = folder / f"{name}.g85.xml"
        header = MapHeader(
            lot=unit.lot,
            wafer=unit.name.rpartition("/")[2],
            product=unit.about.get("device", ""),
            diameter_mm=unit.diameter_mm,
            pitch_um=dies.pitch_um,
            notch=unit.notch,
        )
        write_g85(path, dies.index, mine["passed"].to_numpy(), header)
        files.append(path)
    return files


def _wafers(made: Assessment) -> list[tuple[Unit, str]]:
    """Return each wafer with a file name of its own."""
    wafers = [unit for unit in made.lot.units if unit.dies is not None]
    names = _file_names([unit.name for unit in wafers])
    return list(zip(wafers, names, strict=True))


def _file_names(names: Iterable[str]) -> list[str]:
    """Return a file name of its own for each name, safe everywhere."""
    found: list[str] = []
    taken: set[str] = set()
    for given in names:
        bare = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip(".-")[:80] or "unit"
        name, number = bare, 2
        while name.lower() in taken:
            name, number = f"{bare}-{number}", number + 1
        taken.add(name.lower())
        found.append(name)
    return found
