"""The folder of a training: new, interrupted or finished, and the images prepared in it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from domainseg.atomic import atomic_text, make_folder
from domainseg.errors import InputError, OutputError, sentence
from domainseg.images.normalise import Range
from domainseg.images.resample import Grid, resample_labels
from domainseg.instances.layering import numbered_planes
from domainseg.model_plane import ModelPlane, median_diameter, model_plane, object_diameter
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.heads.head import Truth
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.model_file import ModelCard, read_card
from domainseg.outside import looks_of
from domainseg.recipe import Recipe, load_recipe, recipe_from_json, with_overrides
from domainseg.records import Array, Sample
from domainseg.run_folder import difference
from domainseg.sources import Source, annotated, labelled, presence, truth_labels
from domainseg.training.loop import LAST
from domainseg.training.prepared import Places, Prepared, find_places, save_planes
from domainseg.training.size_weights import size_weights

MODEL = "model.safetensors"
RESOLVED = "recipe.yaml"
IMAGES = "images.sha256"
ENDING = ("keep", "file_precision")
"""Values of ``train`` that matter after the last step only."""
FREE = frozenset(
    {"data.root", "train.workers", "evaluate", "report", "about", *(f"train.{e}" for e in ENDING)}
)
"""What a resumed training may be told otherwise: none of it changes its steps."""


def plan_training(recipe: Path, out: Path, *, overrides: Sequence[str], resume: bool) -> Recipe:
    """Return the recipe to run; with ``resume`` its end is the one that was planned before.

    Raises:
        RecipeError: the recipe cannot be read.
        OutputError: ``out`` holds a training that is not to be resumed, or another one, or
            cannot be created.
    """
    plan = load_recipe(recipe, overrides)
    resolved = out / RESOLVED
    if resume and resolved.is_file():
        return _resumed(plan, load_recipe(resolved), out)
    if (out / MODEL).exists() or (out / "checkpoints").exists():
        raise OutputError(
            sentence(
                out,
                found=f"a training without its {RESOLVED}" if resume else "a training",
                wanted="both, or neither to begin with" if resume else "a new folder",
                fix="choose another folder" if resume else "go on with --resume, or choose another",
            )
        )
    make_folder(out)
    return plan


def _resumed(plan: Recipe, before: Recipe, out: Path) -> Recipe:
    """Return ``plan`` with the steps of ``before``, which must be the same training."""
    if plan.train.max_minutes is not None:
        ends = [f"train.max_steps={before.train.max_steps}", "train.max_minutes=null"]
        if before.train.max_steps is not None:
            plan = with_overrides(plan, ends)
    if changed := difference(before.to_json(), plan.to_json(), leave_out=FREE):
        raise OutputError(
            sentence(
                out,
                found=f"a training with another {changed}",
                wanted="the recipe that it began with",
                fix="resume with that recipe, or choose another folder",
            )
        )
    return plan


def ended(out: Path, plan: Recipe) -> ModelCard | None:
    """Return the card of a training that has ended as ``plan`` wants it to, None of another.

    Raises:
        OutputError: the model is to be written anew, and its checkpoints are gone.
    """
    if not (out / MODEL).exists():
        return None
    card = read_card(out / MODEL)
    before = recipe_from_json(card.recipe, where=str(out / MODEL)).train
    same = all(getattr(before, name) == getattr(plan.train, name) for name in ENDING)
    if not same and not (out / "checkpoints" / f"{LAST}.ckpt").is_file():
        raise OutputError(
            sentence(
                out,
                found=f"a model without its checkpoints, and another {' or '.join(ENDING)}",
                wanted="the checkpoints that it was made from",
                fix="restore them, or leave these values as they were",
            )
        )
    return card if same else None


def minutes_before(out: Path) -> float:
    """Return the minutes that an interrupted training trained, 0 without one."""
    path = out / "metrics.csv"
    if not path.is_file():
        return 0.0
    with path.open(encoding="utf-8", newline="") as file:
        return max((float(row["minutes"]) for row in csv.DictReader(file)), default=0.0)


def keep_digest(digest: str, out: Path, *, resume: bool) -> None:
    """Write down what was prepared; a resumed training must be shown the same.

    Raises:
        InputError: it is another.
    """
    path = out / IMAGES
    if resume and (out / "checkpoints").exists() and path.is_file():
        before = path.read_text(encoding="utf-8").strip()
        if before != digest:
            raise InputError(
                sentence(
                    out,
                    found="a training on other images or labels",
                    wanted="those that it began with, prepared by the same version",
                    fix="restore them, or choose another folder",
                )
            )
    atomic_text(path, digest + "\n")


def prepare(
    source: Source, recipe: Recipe, folder: Path, *, ranges: Mapping[str, Range]
) -> tuple[tuple[Prepared, ...], float | None]:
    """Return the training images on the model grid with their targets, and the median diameter.

    The diameter is that of circles of the objects' areas, px of the images, over all
    training objects, None where images have labels and no object is drawn; where the recipe
    works at a diameter, an image without objects is scaled as if it held such. Files go to
    ``folder``. ``ranges`` holds the intensity range of each group where images are normalised
    by group.

    Raises:
        InputError: an image cannot be used, or no image has an object.
    """
    entries = source.splits.train
    diameter = median_diameter(source, entries)
    by_label = recipe.head.learns_labels and any(
        set(entry.tags) & set(source.dataset.classes) for entry in entries
    )
    if diameter is None and not by_label:
        raise InputError(
            sentence(
                recipe.data.root or "data",
                found=f"no object in {len(entries)} training images",
                wanted="objects to learn",
                fix="check the labels and the split",
            )
        )
    make_folder(folder)
    prepared = []
    for number, entry in enumerate(entries):
        sample = source.load(entry)
        plane = model_plane(
            recipe,
            sample,
            diameter_px=object_diameter(sample) or diameter,
            intensity=ranges.get(entry.group),
        )
        path = folder / f"{number:06d}.npy"
        one = _prepare_one(recipe, sample, plane, path, classes=source.classes)
        prepared.append(replace(one, looks=looks_of(recipe, plane)))
    return tuple(prepared), diameter


def _prepare_one(
    recipe: Recipe, sample: Sample, plane: ModelPlane, path: Path, *, classes: Sequence[str]
) -> Prepared:
    if isinstance(recipe.head, DetectionHead):
        regions = isinstance(recipe.head, PanopticHead)
        return _prepare_objects(sample, plane, path, regions=regions)
    weight: Array = np.ones(plane.grid.model_shape, bool)
    if sample.ignore is not None:
        weight = resample_labels(sample.ignore.astype(np.uint8), plane.grid) == 0
    tags = labelled(sample, classes) if recipe.head.learns_labels else None
    if tags is None:
        annotation = annotated(sample)
        truth = _truth_on_grid(recipe, sample, plane.grid, classes=len(classes))
        places = find_places(annotation, scale_yx=plane.grid.scale_yx)
        kinds = annotation.classes
    else:
        # An image with a label has no object to draw patches around; its classes count.
        truth = Truth(np.zeros(weight.shape, np.int32), np.zeros(1, np.int16), tags=tags)
        places = Places.none()
        kinds = np.flatnonzero(tags).astype(np.int16)
    targets = recipe.head.targets(truth, classes=len(classes))
    if (size_px := recipe.train.equal_size_px) is not None:
        ring_px = recipe.train.equal_size_ring_px
        weight = weight * size_weights(truth.labels, size_px=size_px, ring_px=ring_px)
    image = plane[:, 0 : plane.shape[1], 0 : plane.shape[2]]
    sha256 = save_planes(path, image, targets, weight)
    return Prepared(
        path=path,
        channels=image.shape[0],
        shape=plane.grid.model_shape,
        centres=places.centres,
        classes=kinds,
        areas_px=places.areas_px,
        sides_px=places.sides_px,
        kind=sample.kind,
        sha256=sha256,
    )


def _prepare_objects(sample: Sample, plane: ModelPlane, path: Path, *, regions: bool) -> Prepared:
    """Prepare an image whose objects are found one by one; each keeps its number, from 1.

    With ``regions`` the first target plane is class + 1 of regions; the last plane is 1 where
    nothing is known.
    """
    grid = plane.grid
    truth = annotated(sample)
    ignored = np.zeros(grid.model_shape, bool)
    if sample.ignore is not None:
        ignored = resample_labels(sample.ignore.astype(np.uint8), grid) > 0
    planes = [resample_labels(one, grid) for one in numbered_planes(truth)]
    if regions:
        semantic = sample.semantic
        if semantic is None:
            semantic = np.zeros(truth.shape, np.uint8)
        planes.insert(0, resample_labels(semantic.astype(np.int32), grid))
    places = find_places(truth, scale_yx=grid.scale_yx)
    image = plane[:, 0 : plane.shape[1], 0 : plane.shape[2]]
    sha256 = save_planes(
        path, image, np.stack(planes).astype(np.float32), ignored, whole_numbers=True
    )
    return Prepared(
        path=path,
        channels=image.shape[0],
        shape=grid.model_shape,
        centres=places.centres,
        classes=truth.classes,
        areas_px=places.areas_px,
        sides_px=places.sides_px,
        kind=sample.kind,
        sha256=sha256,
    )


def _truth_on_grid(recipe: Recipe, sample: Sample, grid: Grid, *, classes: int) -> Truth:
    overlapping = recipe.head.overlapping
    labels, class_of = truth_labels(sample, overlapping=overlapping)
    planes = presence(sample, classes) if overlapping else None
    return Truth(
        labels=resample_labels(labels, grid),
        classes=class_of,
        semantic=None if sample.semantic is None else resample_labels(sample.semantic, grid),
        presence=None if planes is None else np.stack([resample_labels(p, grid) for p in planes]),
    )
