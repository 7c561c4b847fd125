"""From the folders of runs to a report: read, look closer at what is worst, write the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import polars as pl

from domainseg import __version__
from domainseg.atomic import atomic_text
from domainseg.errors import OutputError, UsageError, sentence
from domainseg.instances.overlaps import overlap_maps
from domainseg.report import html, json
from domainseg.report.crops import LEGEND, Comparison, draw_mistake, draw_whole, without_outlines
from domainseg.report.document import Document, Picture, Section
from domainseg.report.evidence import (
    Evaluation,
    Evidence,
    InspectedImage,
    Scores,
    WorstCase,
)
from domainseg.report.mistakes import Mistake, find_mistakes, instructive
from domainseg.report.pictures import Shot, encode_within, shrink
from domainseg.report.run_folder import (
    LABELS,
    OVERLAY,
    SCORES,
    TRUTH,
    image_folders,
    picture_factor,
    read_image,
    read_label_map,
    read_objects,
    read_picture,
)
from domainseg.report.scores_file import read_evaluation, together
from domainseg.report.sections.agreement import agreement
from domainseg.report.sections.method import method
from domainseg.report.sections.overview import overview
from domainseg.report.sections.per_image import per_image
from domainseg.report.sections.pictures import evenly_spaced, pictures
from domainseg.report.sections.provenance import provenance
from domainseg.report.sections.sizes import sizes
from domainseg.report.sections.wording import counted
from domainseg.report.sections.worst import worst_cases
from domainseg.report.visible import shortened
from domainseg.report.wording import FOOTER

PAGE = "report.html"
NUMBERS = "report.json"

_GALLERY = 16
_GALLERY_BYTES = 6_500_000
_WORST = 6
_CROPS = 4
_CROPS_BYTES = 3_000_000


@dataclass(frozen=True, slots=True)
class _Found:
    """An image, its folder, and its row of an evaluation."""

    folder: Path
    image: InspectedImage
    scores: Scores | None


def inspect(runs: Sequence[Path | str], *, out: Path | str, title: str | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` of one or more runs into ``out``.

    A run is the folder of one image, or one with several of those in it. ``out``
    is created where it is missing. ``title`` is by default the first run's
    ``report.title``, without one the name of the run. Equal runs give equal bytes.

    Returns:
        the path of the page.

    Raises:
        UsageError: for no run, or one that is named twice.
        InputError: when a run is missing, unfinished, damaged or of another schema.
        OutputError: when the files cannot be written.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    evidence = gather(folders)
    document = compose(evidence, title=title or _title(folders, evidence))
    page, numbers = html.render(document), json.render(document)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            sentence(
                out,
                found=error.strerror or "no folder",
                wanted="a folder to write into",
                fix="choose another output folder",
            )
        ) from error
    atomic_text(out / NUMBERS, numbers)
    atomic_text(out / PAGE, page)
    return out / PAGE


def compose(evidence: Evidence, *, title: str) -> Document:
    """Return the report of the evidence; sections without anything to say are left out."""
    sections: tuple[Section | None, ...] = (
        overview(evidence),
        pictures(evidence),
        sizes(evidence),
        agreement(evidence),
        worst_cases(evidence, legend=LEGEND),
        per_image(evidence),
        method(evidence),
        provenance(evidence),
    )
    models = dict.fromkeys(shortened(image.model.name) for image in evidence.images)
    return Document(
        title=title,
        subtitle=(
            f"{counted(evidence.objects.height, 'object')} in "
            f"{counted(len(evidence.images), 'image')}, segmented with {', '.join(models)}"
        ),
        sections=tuple(section for section in sections if section is not None),
        generator=f"domainseg {__version__}",
        footer=FOOTER,
    )


def gather(runs: Sequence[Path]) -> Evidence:
    """Return what the runs say, with pictures and the worst cases drawn; errors as `inspect`."""
    _require_distinct(runs)
    found: list[_Found] = []
    evaluations: list[Evaluation] = []
    for run in runs:
        whole = _evaluation_in(run)
        for folder in image_folders(run):
            own = None if folder == run else _evaluation_in(folder)
            image = read_image(folder)
            names = {folder.name, folder.relative_to(run).as_posix(), image.name}
            found.append(_Found(folder, image, _scores(own or whole, names, image)))
            evaluations += [own] if own and not whole else []
        evaluations += [whole] if whole else []
    found = _distinct(found)
    return Evidence(
        images=tuple(one.image for one in found),
        objects=pl.concat([read_objects(one.folder, one.image) for one in found]),
        pictures=_pictures(found),
        evaluation=together([one.scores for one in found if one.scores], evaluations),
        worst=_worst(found),
    )


def _require_distinct(runs: Sequence[Path]) -> None:
    if not runs:
        raise UsageError("report: found no run, wanted at least one; name the folder of a run.")
    for run, times in Counter(run.resolve() for run in runs).items():
        if times > 1:
            raise UsageError(
                sentence(run, found="a run named twice", wanted="each run once", fix="name it once")
            )


def _title(runs: Sequence[Path], evidence: Evidence) -> str:
    """Return the title that the first run's recipe sets, else the name or the number of runs."""
    report = evidence.images[0].model.recipe.get("report")
    title = report.get("title") if isinstance(report, Mapping) else None
    if isinstance(title, str) and title:
        return title
    return runs[0].resolve().name if len(runs) == 1 else counted(len(runs), "run")


def _evaluation_in(folder: Path) -> Evaluation | None:
    path = folder / SCORES
    return read_evaluation(path) if path.exists() else None


def _scores(
    evaluation: Evaluation | None, names: Collection[str], image: InspectedImage
) -> Scores | None:
    """Return the row of an image, which goes by one of ``names``."""
    rows = [row for row in evaluation.images if row.name in names] if evaluation else []
    return replace(rows[0], kind=rows[0].kind or image.kind) if rows else None


def _distinct(found: Sequence[_Found]) -> list[_Found]:
    """Return the same, each image and its row under a name of its own.

    Images of one name take as much of their folders' paths as tells them apart.
    """
    names = [one.image.name for one in found]
    depth = 1
    while len(set(names)) < len(names):
        repeated = {name for name, times in Counter(names).items() if times > 1}
        names = [
            "/".join(one.folder.resolve().parts[-depth:]) if name in repeated else name
            for one, name in zip(found, names, strict=True)
        ]
        depth += 1
    return [
        _Found(
            one.folder,
            replace(one.image, name=name),
            replace(one.scores, name=name) if one.scores else None,
        )
        for one, name in zip(found, names, strict=True)
    ]


def _pictures(found: Sequence[_Found]) -> dict[str, Picture]:
    """Return the pictures of at most 16 images, evenly spaced, by image name."""
    by_name = {one.image.name: one for one in found if (one.folder / OVERLAY).exists()}
    shots = {name: _shot(by_name[name]) for name in evenly_spaced(sorted(by_name), _GALLERY)}
    small = encode_within(list(shots.values()), budget=_GALLERY_BYTES)
    return dict(zip(shots, small, strict=True))


def _shot(one: _Found) -> Shot:
    image = one.image
    pixels = read_picture(one.folder / OVERLAY, image.shape[1:])
    objects = counted(image.objects, "object")
    return Shot(
        pixels=shrink(pixels),
        alt=f"{shortened(image.name)} with {objects} outlined.",
        title=image.name,
        note=f"{shortened(image.kind, 40)}, {objects}" if image.kind else objects,
    )


def _worst(found: Sequence[_Found]) -> tuple[WorstCase, ...]:
    """Return at most six images with truth and mistakes, lowest mean AP first."""
    ranked = sorted(
        (one.scores.mean_ap, one.image.name, one)
        for one in found
        if one.scores is not None
        and one.scores.mean_ap is not None
        and one.scores.missed + one.scores.false + one.scores.merged + one.scores.split
        and all((one.folder / name).exists() for name in (TRUTH, LABELS, OVERLAY))
    )
    drawn = [_drawn(one) for _, _, one in ranked[:_WORST]]
    shots = [shot for _, case in drawn for shot in case]
    crops = iter(encode_within(shots, budget=_CROPS_BYTES))
    return tuple(WorstCase(scores, tuple(islice(crops, len(case)))) for scores, case in drawn)


def _drawn(one: _Found) -> tuple[Scores, list[Shot]]:
    """Return the scores of an image, itself with both outlines, and its largest mistakes."""
    assert one.scores is not None  # the caller ranks by them
    truth, predicted = read_label_map(one.folder / TRUTH), read_label_map(one.folder / LABELS)
    overlaps = overlap_maps(truth, predicted, where=one.folder)
    picture = read_picture(one.folder / OVERLAY, truth.shape)
    factor = picture_factor(picture.shape[:2], truth.shape)
    compared = Comparison(
        without_outlines(picture, predicted, factor=factor), truth, predicted, factor
    )
    found = instructive(find_mistakes(overlaps, truth, predicted), limit=_CROPS)
    name = shortened(one.image.name, 40)
    whole = Shot(
        draw_whole(compared), f"{name}, outlines of truth and prediction.", "Whole image", ""
    )
    return one.scores, [whole, *(_mistake_shot(compared, mistake) for mistake in found)]


def _mistake_shot(compared: Comparison, mistake: Mistake) -> Shot:
    (y0, x0), _ = mistake.box
    area = f"{mistake.area_px:,} px"
    words = {
        "missed": f"An object of {area} that was missed",
        "false": f"A prediction of {area} where no object is",
        "merged": f"A prediction of {area} over {len(mistake.truth)} objects",
        "split": f"An object of {area} in {len(mistake.predicted)} pieces",
    }[mistake.kind]
    return Shot(
        draw_mistake(compared, mistake),
        f"{words}, at row {y0}, column {x0}.",
        mistake.kind.capitalize(),
        f"{area} at y {y0}, x {x0}",
    )
