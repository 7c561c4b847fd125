"""A recipe's data: the loader opened, split, and its classes renamed, merged and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, RecipeError, sentence
from domainseg.loaders.splits import Splits, split
from domainseg.recipe import Recipe
from domainseg.records import MAX_CLASSES, Array, Dataset, Entry, Instances, Sample

DROPPED = -1


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Source classes to the classes a recipe trains.

    Attributes:
        names: classes of the recipe.
        targets: int16 ``(source classes,)``; index into ``names``, or ``DROPPED``.
    """

    names: tuple[str, ...]
    targets: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a recipe's samples come from."""

    dataset: Dataset
    splits: Splits
    class_map: ClassMap

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names after renaming, merging and dropping."""
        return self.class_map.names

    def load(self, entry: Entry) -> Sample:
        """Return the sample with its classes mapped; objects of dropped classes are gone."""
        sample = self.dataset.load(entry)
        truth, semantic = sample.truth, sample.semantic
        if truth is not None:
            truth = map_instances(truth, self.class_map)
        if semantic is not None:
            semantic = map_semantic(semantic, self.class_map)
        return replace(sample, truth=truth, semantic=semantic)


def open_source(recipe: Recipe) -> Source:
    """Return the data of a recipe; no pixel is read.

    Raises:
        InputError: the folder is missing, empty, or its files do not pair up.
        RecipeError: the recipe names classes the data has not.
    """
    data = recipe.data
    root = Path(data.root or ".")
    dataset = data.loader.open(root, select=recipe.image.select or None)
    class_map = map_classes(dataset.classes, data.classes)
    if len(class_map.names) > MAX_CLASSES:
        raise RecipeError(
            sentence(
                "data.classes",
                found=f"{len(class_map.names)} classes",
                wanted=f"at most {MAX_CLASSES}",
                fix="merge or drop some",
            )
        )
    return Source(dataset, split(dataset.entries(), data.split, root=root), class_map)


def map_classes(source: tuple[str, ...], mapping: Mapping[str, str | None] | None) -> ClassMap:
    """Return the class map of ``data.classes``; without one, every class keeps its name."""
    if mapping is None:
        return ClassMap(source, np.arange(len(source), dtype=np.int16))
    unknown = sorted(set(mapping) - set(source))
    if unknown:
        raise RecipeError(
            sentence(
                "data.classes",
                found=f"'{unknown[0]}'",
                wanted=f"classes of the data ({', '.join(source)})",
                fix="correct the name",
            )
        )
    wanted = [mapping.get(name, name) for name in source]
    names = tuple(dict.fromkeys(name for name in wanted if name is not None))
    if not names:
        raise RecipeError(
            sentence(
                "data.classes", found="every class dropped", wanted="at least one", fix="keep one"
            )
        )
    targets = [DROPPED if name is None else names.index(name) for name in wanted]
    return ClassMap(names, np.array(targets, np.int16))


def map_instances(instances: Instances, class_map: ClassMap) -> Instances:
    """Return the instances with mapped classes, without those of dropped classes.

    An object inside one that is dropped has no parent any more.
    """
    classes = class_map.targets[instances.classes] if len(instances) else instances.classes
    kept = classes != DROPPED
    lengths = np.diff(instances.offsets)
    parents = instances.parents
    if parents is not None:
        # A parent that is dropped is no longer there to be pointed at.
        parents = np.where(np.isin(parents, instances.ids[kept]), parents, 0)[kept]
    return replace(
        instances,
        ids=instances.ids[kept],
        boxes=instances.boxes[kept],
        runs=instances.runs[np.repeat(kept, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
        classes=classes[kept],
        scores=instances.scores[kept],
        parents=parents,
    )


def map_semantic(semantic: Array, class_map: ClassMap) -> Array:
    """Return a class plane (0 background, class + 1) with mapped classes; dropped become 0."""
    table = np.concatenate([[0], class_map.targets + 1]).astype(semantic.dtype)
    return np.asarray(table[semantic])


def truth_labels(sample: Sample) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Return the truth as labels 1 to N ``(H, W)``, and the class of each label ``(N + 1,)``.

    Raises:
        InputError: the sample has no truth, or its objects overlap.
    """
    truth = sample.truth
    if truth is None:
        raise InputError(
            sentence(
                sample.id,
                found="no annotation",
                wanted="objects to learn or to score",
                fix="add it",
            )
        )
    numbered = replace(truth, ids=np.arange(1, len(truth) + 1, dtype=np.int64))
    try:
        labels = numbered.to_label_map()
    except ValueError as error:
        raise InputError(
            sentence(
                sample.id,
                found="objects that overlap",
                wanted="each pixel in one object",
                fix="part them",
            )
        ) from error
    return labels.astype(np.int32), np.concatenate([[0], truth.classes]).astype(np.int16)
