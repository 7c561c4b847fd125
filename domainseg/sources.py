"""A recipe's data: the loader opened, split, and its classes renamed, merged and dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, RecipeError, sentence
from domainseg.images.regions import Edge, edge_boxes
from domainseg.instances.image_labels import NONE
from domainseg.instances.planes import pixels_of
from domainseg.loaders.splits import Splits, split
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.recipe import Recipe, require_classes
from domainseg.records import (
    MAX_CLASSES,
    Array,
    Dataset,
    Entry,
    HasStuff,
    Instances,
    ListsUnlabelled,
    Sample,
    TellsSkipped,
)

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
    """Where a recipe's samples come from.

    Attributes:
        dataset: the images.
        splits: which of them are for what.
        class_map: their classes to the recipe's.
        ignore_edges_px: rows or columns along the edges that are left out.
    """

    dataset: Dataset
    splits: Splits
    class_map: ClassMap
    ignore_edges_px: Mapping[Edge, int] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names after renaming, merging and dropping."""
        return self.class_map.names

    def load(self, entry: Entry) -> Sample:
        """Return the sample with its classes mapped; objects of dropped classes are gone.

        Raises:
            InputError: nothing is left between the edges; and what the loader raises.
        """
        sample = self.dataset.load(entry)
        if any(self.ignore_edges_px.values()):
            sample = replace(sample, ignore=_without_edges(sample, self.ignore_edges_px))
        truth, crowds, semantic = sample.truth, sample.crowds, sample.semantic
        if truth is not None:
            truth = map_instances(truth, self.class_map)
        if crowds is not None:
            crowds = map_instances(crowds, self.class_map)
        if semantic is not None:
            semantic = map_semantic(semantic, self.class_map)
        tags = self.tags(sample.tags)
        return replace(sample, truth=truth, crowds=crowds, semantic=semantic, tags=tags)

    def tags(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Return image labels with their classes mapped; one of a dropped class is gone."""
        source = self.dataset.classes
        if source == self.classes:
            return tags
        kept = []
        for tag in tags:
            index = int(self.class_map.targets[source.index(tag)]) if tag in source else None
            if index != DROPPED:
                kept.append(tag if index is None else self.classes[index])
        # An image of dropped classes alone has a label still: that it shows none of the others.
        return tuple(dict.fromkeys(kept)) or ((NONE,) if tags else ())


def _without_edges(sample: Sample, widths_px: Mapping[Edge, int]) -> NDArray[np.bool_]:
    """Return what of an image is left out, bool ``(H, W)``, its edges with it."""
    _, height, width = sample.image.shape
    ignore = np.zeros((height, width), bool)
    if sample.ignore is not None:
        ignore |= sample.ignore
    for (y0, x0), (y1, x1) in edge_boxes((height, width), widths_px, where=sample.id):
        ignore[y0:y1, x0:x1] = True
    return ignore


def data_at(recipe: Recipe, root: Path | str) -> Recipe:
    """Return the recipe with its data in another folder, and no further data beside it."""
    section = recipe.data.model_copy(update={"root": str(root), "also": ()})
    return recipe.model_copy(update={"data": section})


def open_whole(recipe: Recipe, root: Path) -> Source:
    """Return the images in ``root`` as the recipe's loader reads them, all of them in ``train``.

    No part is asked for and no further data joined: new images have no split. Nor have they
    labels: a loader that may leave out those without lists them.

    Raises:
        InputError: the folder is missing, empty, or its files do not pair up.
        RecipeError: the recipe names classes the data has not.
    """
    loader = recipe.data.loader
    if isinstance(loader, ListsUnlabelled):
        loader = loader.with_unlabelled()
    dataset: Dataset = loader.open(root, select=recipe.image.select or None)
    entries = tuple(sorted(dataset.entries(), key=lambda entry: entry.id))
    if not entries:
        raise InputError(
            sentence(root, found="no image", wanted="at least one", fix="check the folder")
        )
    class_map = map_classes(dataset.classes, recipe.data.classes)
    parts = Splits(train=entries, val=(), test=())
    return Source(dataset, parts, class_map, recipe.image.ignore_edges_px)


def open_source(recipe: Recipe) -> Source:
    """Return the data of a recipe; no pixel is read.

    Raises:
        InputError: the folder is missing, empty, or its files do not pair up.
        RecipeError: the recipe names classes the data has not.
    """
    data = recipe.data
    root = Path(data.root or ".")
    select = recipe.image.select or None
    dataset: Dataset = data.loader.open(root, select=select)
    splits = split(dataset.entries(), data.split, root=root)
    if data.also:
        further = [one.loader.open(Path(one.root or "."), select=select) for one in data.also]
        names = [one.name for one in data.also]
        dataset = join(dataset, dict(zip(names, further, strict=True)))
        for one, added in zip(data.also, further, strict=True):
            parts = split(added.entries(), one.split, root=Path(one.root or "."))
            splits = _joined(splits, parts, one.name)
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
    return Source(dataset, splits, class_map, recipe.image.ignore_edges_px)


@dataclass(frozen=True, slots=True)
class Joined:
    """Several data sets as one; ids of those after the first begin with ``name/``.

    Attributes:
        first: the data set whose ids stay.
        others: the others by name.
        classes: of all.
        tables: of each other, index of its class to index in ``classes``, int16.
    """

    first: Dataset
    others: Mapping[str, Dataset]
    classes: tuple[str, ...]
    tables: Mapping[str, NDArray[np.int16]]

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries of all, sorted by id."""
        found = list(self.first.entries())
        for name, other in self.others.items():
            found += [_named(entry, name) for entry in other.entries()]
        return tuple(sorted(found, key=lambda entry: entry.id))

    def load(self, entry: Entry) -> Sample:
        """Return the sample of an entry, its classes in the order of `classes`."""
        name, _, rest = entry.id.partition("/")
        if name not in self.others:
            return self.first.load(entry)
        sample = self.others[name].load(replace(entry, id=rest, group=_bare(entry.group)))
        truth, crowds, semantic = sample.truth, sample.crowds, sample.semantic
        table = self.tables[name]
        if truth is not None:
            truth = replace(truth, classes=table[truth.classes])
        if crowds is not None:
            crowds = replace(crowds, classes=table[crowds.classes])
        if semantic is not None:
            semantic = np.concatenate([[0], table + 1]).astype(semantic.dtype)[semantic]
        named = replace(sample, id=entry.id, group=entry.group)
        return replace(named, truth=truth, crowds=crowds, semantic=semantic)


def join(first: Dataset, others: Mapping[str, Dataset]) -> Joined:
    """Return data sets as one.

    Raises:
        RecipeError: they have different classes.
        InputError: an id of the first begins with the name of another.
    """
    classes = first.classes
    tables = {}
    for name, other in others.items():
        if set(other.classes) != set(classes):
            raise RecipeError(
                sentence(
                    f"data.also {name}",
                    found=f"the classes {', '.join(other.classes)}",
                    wanted=f"those of data.loader, {', '.join(classes)}",
                    fix="choose options of the loader that give the same classes",
                )
            )
        tables[name] = np.array([classes.index(c) for c in other.classes], np.int16)
        if taken := [e.id for e in first.entries() if e.id.startswith(f"{name}/")]:
            raise InputError(
                sentence(
                    f"data.also {name}",
                    found=f"an image {taken[0]} of data.loader",
                    wanted="ids that tell the two apart",
                    fix="give it another name",
                )
            )
    return Joined(first, others, classes, tables)


def _named(entry: Entry, name: str) -> Entry:
    return replace(entry, id=f"{name}/{entry.id}", group=f"{name}/{entry.group}")


def _bare(name: str) -> str:
    return name.partition("/")[2]


def _joined(parts: Splits, added: Splits, name: str) -> Splits:
    """Return the parts with those of the data set ``name`` added, each sorted by id."""

    def both(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> tuple[Entry, ...]:
        named = [_named(entry, name) for entry in other]
        return tuple(sorted((*one, *named), key=lambda entry: entry.id))

    return Splits(
        train=both(parts.train, added.train),
        val=both(parts.val, added.val),
        test=both(parts.test, added.test),
    )


def skipped_in(source: Source) -> tuple[str, ...]:
    """Return what the data sets left out so far, a sentence for each kind of thing."""
    dataset = source.dataset
    each: tuple[Dataset, ...] = (dataset,)
    if isinstance(dataset, Joined):
        each = (dataset.first, *dataset.others.values())
    return tuple(said for one in each if isinstance(one, TellsSkipped) for said in one.skipped)


def with_stuff(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe with the classes that are regions written out, where its head draws any.

    Raises:
        RecipeError: it names a class that there is not, or one that has objects; or neither it
            nor the data says which classes are regions.
    """
    head = recipe.head
    if not isinstance(head, PanopticHead):
        return recipe
    dataset = source.dataset
    said = dataset.stuff if isinstance(dataset, HasStuff) else ()
    renamed = source.class_map.targets[[dataset.classes.index(name) for name in said]]
    names = tuple(source.classes[i] for i in sorted({int(i) for i in renamed if i != DROPPED}))
    stuff = names if head.stuff is None else head.stuff
    require_classes("head.stuff", stuff, source.classes)
    if said and (things := sorted(set(stuff) - set(names))):
        raise RecipeError(
            sentence(
                "head.stuff",
                found=f"'{things[0]}', which has objects",
                wanted=f"classes that are regions in the data ({', '.join(names)})",
                fix="leave it out",
            )
        )
    if not stuff:
        raise RecipeError(
            sentence(
                "head.stuff",
                found="no class that is a region",
                wanted="some, from the recipe or the data",
                fix="name them, or use head.name=detection",
            )
        )
    return recipe.model_copy(update={"head": replace(head, stuff=tuple(stuff))})


def entries_of(source: Source, part: str, *, where: str = "data") -> tuple[Entry, ...]:
    """Return the images of train, val, test or all; ``where`` is what an error names.

    Raises:
        InputError: the part is empty.
    """
    splits = source.splits
    chosen = {
        "train": splits.train,
        "val": splits.val,
        "test": splits.test,
        "all": (*splits.train, *splits.val, *splits.test),
    }[part]
    if not chosen:
        raise InputError(
            sentence(
                where,
                found=f"no image in {part}",
                wanted="at least one",
                fix="name another part",
            )
        )
    return chosen


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


def annotated(sample: Sample) -> Instances:
    """Return the truth of a sample; its objects may overlap.

    Raises:
        InputError: nobody annotated the sample.
    """
    if sample.truth is None:
        raise InputError(
            sentence(
                sample.id,
                found="no annotation",
                wanted="objects to learn or to score",
                fix="add it",
            )
        )
    return sample.truth


def labelled(sample: Sample, classes: Sequence[str]) -> NDArray[np.bool_] | None:
    """Return which classes an image without masks is labelled with, bool ``(K,)``.

    None where masks are drawn, or where it has no label either. A label that is no class
    ("None", "good") says that the image has none of them.
    """
    if sample.truth is not None or not sample.tags:
        return None
    return np.array([name in sample.tags for name in classes], bool)


def truth_labels(
    sample: Sample, *, overlapping: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Return the truth as labels 1 to N ``(H, W)``, and the class of each label ``(N + 1,)``.

    With ``overlapping`` objects may share pixels, and the last of them shows.

    Raises:
        InputError: the sample has no truth, or its objects overlap where they must not.
    """
    truth = annotated(sample)
    pixels, owners = pixels_of(truth)
    flat = np.zeros(truth.shape[0] * truth.shape[1], np.int32)
    # Of a pixel that is listed several times numpy keeps the last value.
    flat[pixels] = owners + 1
    if not overlapping and np.count_nonzero(flat) < len(pixels):
        raise InputError(
            sentence(
                sample.id,
                found="objects that overlap",
                wanted="each pixel in one object",
                fix="part them, or use head.name=semantic with head.activation=sigmoid",
            )
        )
    return flat.reshape(truth.shape), np.concatenate([[0], truth.classes]).astype(np.int16)


def presence(sample: Sample, classes: int) -> NDArray[np.bool_]:
    """Return where each class is, bool ``(classes, H, W)``: in an object or the class plane.

    Objects may overlap.

    Raises:
        InputError: the sample has no truth.
    """
    truth = annotated(sample)
    pixels, owners = pixels_of(truth)
    flat = np.zeros((classes, truth.shape[0] * truth.shape[1]), bool)
    flat[truth.classes[owners], pixels] = True
    planes = flat.reshape(classes, *truth.shape)
    if sample.semantic is not None:
        for index, plane in enumerate(planes):
            plane |= sample.semantic == index + 1
    return planes
