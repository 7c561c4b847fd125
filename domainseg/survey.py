"""A look at data before training: what is there, and a first recipe for it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import yaml
from numpy.typing import NDArray

from domainseg.about import about_model
from domainseg.atomic import atomic_text
from domainseg.errors import InputError, OutputError, UsageError, sentence
from domainseg.images.channels import as_channels
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.splits import PARTS
from domainseg.model_plane import model_plane, object_diameter
from domainseg.recipe import Recipe, load_recipe, recipe_from_json
from domainseg.records import Entry, Sample
from domainseg.sources import Source, open_source, skipped_in, truth_labels, with_stuff
from domainseg.training.augment import Augmentation

HEADER = (
    "part",
    "images",
    "objects",
    "median diameter, px",
    "smallest, px",
    "largest, px",
    "kinds",
)
CELLS = 4
"""Cells of its level that the smaller anchor is wide."""
FIRST_MODELS = ("unet", "mask_rcnn")
"""Models that a first recipe can have."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A table of the parts of a data set, and notes of one line each."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@runtime_checkable
class _CountsOverlaps(Protocol):
    """A data set whose files may claim a pixel for several objects."""

    def overlap_px(self, entry: Entry) -> int: ...


def survey_recipe(recipe: Path | str, *, overrides: Sequence[str] = ()) -> Survey:
    """Return what a recipe's data holds; all that a training would refuse is refused here.

    Every image and label is read, the network is built (without pretrained weights), the
    augmentation too.

    Raises:
        RecipeError: the recipe cannot be read or its parts do not fit.
        InputError: an image or a label cannot be used; names the file.
    """
    plan = load_recipe(Path(recipe), overrides)
    source = open_source(plan)
    plan = with_stuff(plan, source)
    plan.splits(source.classes)
    about_model(plan.about)
    Augmentation(plan.augment, crop_px=plan.train.patch_px)
    network = plan.model.without_weights().build(
        plan.data.channel_count, plan.head.outputs(len(source.classes))
    )
    rows, seen = [], []
    for part in PARTS:
        samples = [_checked(plan, source, entry) for entry in getattr(source.splits, part)]
        rows.append(_row(part, samples))
        seen += samples
    weights = sum(p.numel() for p in network.parameters())
    notes = (
        f"classes: {', '.join(source.classes)}",
        _sizes(seen),
        f"network: {plan.model.name} with {weights / 1e6:.1f} M weights, "
        f"{plan.data.channel_count} channels, stride {plan.model.stride} px",
        *_overlaps(source),
        *skipped_in(source),
    )
    return Survey(HEADER, tuple(rows), notes)


def _checked(plan: Recipe, source: Source, entry: Entry) -> _Facts:
    """Return the facts of an image that fits the recipe, objects that overlap included."""
    sample = source.load(entry)
    # An image without objects is scaled by the others' in training; any scale serves here.
    diameter = object_diameter(sample) or plan.data.diameter_px
    model_plane(plan, sample, diameter_px=diameter)
    truth_labels(sample, overlapping=plan.head.overlapping)
    return _Facts.of(sample)


def _sizes(seen: Sequence[_Facts]) -> str:
    shapes = sorted({facts.shape for facts in seen}, key=lambda shape: shape[0] * shape[1])
    (h0, w0), (h1, w1) = shapes[0], shapes[-1]
    return f"images: {h0} x {w0} px" + (f" to {h1} x {w1} px" if len(shapes) > 1 else "")


def _overlaps(source: Source) -> tuple[str, ...]:
    """Return a line that counts the pixels that several objects claim, where files can."""
    if not isinstance(source.dataset, _CountsOverlaps):
        return ()
    entries = [entry for part in PARTS for entry in getattr(source.splits, part)]
    counts = [source.dataset.overlap_px(entry) for entry in entries]
    images = sum(count > 0 for count in counts)
    return (
        f"overlaps: {sum(counts)} px in {images} of {len(counts)} images are in several masks; "
        "the first mask keeps them",
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a survey keeps of a sample."""

    id: str
    shape: tuple[int, int]
    diameters_px: NDArray[np.float64]
    sides_px: NDArray[np.float64]
    kind: str | None
    channels: tuple[str, ...]
    shown_as_rgb: bool

    @classmethod
    def of(cls, sample: Sample) -> _Facts:
        areas, sides = np.zeros(0), np.zeros((0, 2))
        if sample.truth is not None:
            areas = sample.truth.areas_px().astype(np.float64)
            sides = (sample.truth.boxes[:, 1] - sample.truth.boxes[:, 0]).astype(np.float64)
        _, height, width = sample.image.shape
        return cls(
            sample.id,
            (height, width),
            np.sqrt(4 / np.pi * areas),
            np.sqrt(sides.prod(1)),
            sample.kind,
            sample.channels,
            _fits(sample, "rgb"),
        )


def _fits(sample: Sample, wanted: str) -> bool:
    try:
        as_channels(sample.image, sample.channels, wanted=wanted, where=sample.id)
    except InputError:
        return False
    return True


def _row(part: str, samples: Sequence[_Facts]) -> tuple[str, ...]:
    diameters = np.concatenate([s.diameters_px for s in samples]) if samples else np.zeros(0)
    figures = (
        [f"{f(diameters):.1f}" for f in (np.median, np.min, np.max)]
        if len(diameters)
        else ["-"] * 3
    )
    kinds = sorted({s.kind for s in samples if s.kind is not None})
    return (part, str(len(samples)), str(len(diameters)), *figures, ", ".join(kinds))


def write_first_recipe(
    images: Path, masks: Path, out: Path, *, model: str = "unet"
) -> tuple[str, ...]:
    """Write a recipe for integer label images beside images; return what was seen, in lines.

    With ``model`` mask_rcnn its anchors are of the objects' sizes.

    Raises:
        InputError: the folders cannot be used, hold no object, or hold images that no one
            choice of channels fits.
        OutputError: ``out`` is there already.
        UsageError: ``model`` is none of `FIRST_MODELS`.
    """
    if model not in FIRST_MODELS:
        raise UsageError(
            sentence(
                "--model",
                found=f"'{model}'",
                wanted=f"one of {', '.join(FIRST_MODELS)}",
                fix="choose one; any other is a change of the recipe that is written",
            )
        )
    if out.exists():
        raise OutputError(
            sentence(
                out, found="a file of that name", wanted="a new one", fix="choose another name"
            )
        )
    root = Path(os.path.commonpath([images.resolve(), masks.resolve()]))
    loader = MaskFolder(
        images=os.path.relpath(images.resolve(), root),
        labels=os.path.relpath(masks.resolve(), root),
    )
    dataset = loader.open(root)
    seen = [_Facts.of(dataset.load(entry)) for entry in dataset.entries()]
    diameters = np.concatenate([s.diameters_px for s in seen])
    if not len(diameters):
        raise InputError(
            sentence(masks, found="no object", wanted="label images with objects", fix="check them")
        )
    low, median, high = np.percentile(diameters, [5, 50, 95])
    found: tuple[str, ...] = (
        f"{len(seen)} images, {len(diameters)} objects",
        f"object diameter {low:.0f} to {high:.0f} px, median {median:.0f}",
    )
    values = _first_values(loader, root, seen, float(median))
    if model == "mask_rcnn":
        scale = _on_grid(float(median)) / float(median)
        sides = np.concatenate([s.sides_px for s in seen]) * scale
        values |= _found_one_by_one(sides)
        anchors = values["model"]
        assert isinstance(anchors, dict)
        found = (*found, f"anchors of {anchors['anchors_px']} px, by the sides of the objects")
    recipe_from_json(values, where=str(out))
    atomic_text(out, _commented(values, out, found))
    return found


def _first_values(
    loader: MaskFolder, root: Path, seen: Sequence[_Facts], diameter: float
) -> dict[str, object]:
    """Return the recipe's values: the model grid, patch and filters follow the objects' size."""
    on_grid = _on_grid(diameter)
    rescaled = on_grid != diameter
    shorter = statistics.median(min(s.shape) for s in seen) * on_grid / diameter
    data: dict[str, object] = {
        "loader": {"name": "mask_folder", "images": loader.images, "labels": loader.labels},
        "root": str(root),
        "channels": _channels(root / loader.images, seen),
        # One image trains, a second validates, a third tests.
        "split": {
            "by": "hash",
            "val": 0.15 if len(seen) > 1 else 0.0,
            "test": 0.15 if len(seen) > 2 else 0.0,
        },
        "normalise": {"per": "image"},
    }
    if rescaled:
        data["diameter_px"] = on_grid
    return {
        "data": data,
        "augment": [
            {"D4": {"p": 1.0}},
            {"Affine": {"scale": [0.75, 1.33], "rotate": [-45, 45], "p": 0.5}},
            {"RandomBrightnessContrast": {"p": 0.5}},
            {"GaussNoise": {"std_range": [0.01, 0.05], "p": 0.2}},
        ],
        "model": {"name": "unet"},
        "head": {"name": "height"},
        "train": {"patch_px": 256 if shorter >= 192 else 128, "max_minutes": 30},
        "instances": {"min_area_px": max(1, round(0.05 * np.pi / 4 * on_grid**2))},
    }


def _on_grid(diameter: float) -> float:
    """Return the diameter on the model grid of objects of a median ``diameter``, px."""
    # Below 10 px the distance map has too few levels to split by, above 80 px an object
    # exceeds what the network sees around a pixel.
    return diameter if 10 <= diameter <= 80 else 30.0


def _found_one_by_one(sides_px: NDArray[np.float64]) -> dict[str, object]:
    """Return what a recipe has otherwise where objects are found one by one."""
    finest, depth, anchors = anchors_for(sides_px)
    return {
        "model": {
            "name": "mask_rcnn",
            "depth": depth,
            "finest": finest,
            "anchors_px": [list(level) for level in anchors],
        },
        "head": {"name": "detection"},
    }


def anchors_for(sides_px: NDArray[np.float64]) -> tuple[int, int, tuple[tuple[float, ...], ...]]:
    """Return the finest and coarsest level of a pyramid and its anchors, for objects' sizes.

    An anchor is four to eight cells of its level wide, two a level, so that one lies near every
    object; the levels reach from the smallest objects to the largest, but for the twentieth
    part at each end.

    Args:
        sides_px: ``(N,)``, square roots of the areas of the objects' boxes, px of the model grid.
    """
    low, high = np.quantile(sides_px, [0.05, 0.95])
    finest = int(np.clip(np.floor(np.log2(low / CELLS)), 1, 3))
    # Never less than two levels: what lies around an object is seen on the coarser one.
    depth = int(np.clip(np.ceil(np.log2(high / CELLS)), finest + 1, 5))
    anchors = tuple(
        (float(CELLS * 2**level), float(round(CELLS * 2 ** (level + 0.5))))
        for level in range(finest, depth + 1)
    )
    return finest, depth, anchors


def _channels(images: Path, seen: Sequence[_Facts]) -> str | list[str]:
    """Return ``data.channels`` for these images: grey, rgb, or the names of their channels.

    Raises:
        InputError: none of these fits all of them.
    """
    if all(sum(name != "alpha" for name in facts.channels) == 1 for facts in seen):
        return "grey"
    if all(facts.shown_as_rgb for facts in seen):
        return "rgb"
    first = next(facts for facts in seen if not facts.shown_as_rgb)
    names = ", ".join(first.channels)
    if len(set(first.channels)) < len(first.channels):
        raise InputError(
            sentence(
                images,
                found=f"channels {names} in {first.id}",
                wanted="a name of its own for each",
                fix="name them in the files",
            )
        )
    for other in seen:
        if sorted(other.channels) != sorted(first.channels):
            raise InputError(
                sentence(
                    images,
                    found=f"channels {names} in {first.id} and {', '.join(other.channels)} in "
                    f"{other.id}",
                    wanted="the same in every image",
                    fix="keep one kind of image in the folder",
                )
            )
    return list(first.channels)


def _commented(values: dict[str, object], out: Path, found: Sequence[str]) -> str:
    lines = [
        "Written by `domainseg init` after a look at the data.",
        "",
        f"  domainseg train {out}",
        "",
        "Data: integer label images beside images of the same names.",
        *(f"Found: {line}." for line in found),
    ]
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
