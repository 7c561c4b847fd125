"""The records every layer shares: frozen, numpy only, channel-first, planes ``(y, x)``.

Lengths are micrometres where a pixel size is known; a pixel size that is not
known is ``None``, never 1.0. Boxes are half-open: ``[[y0, x0], [y1, x1]]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Spacing = tuple[float, float]

LOGIT_STEPS = 16
"""Quanta of the foreground map per unit of logit."""
LOGIT_ZERO = 128
"""The quantum of logit 0, that is of foreground probability 0.5."""
HEIGHT_MAX = 65535
"""The quantum of height 1."""
MAX_CLASSES = 255
"""Object classes a map can name; class 0 of a map is the first class, not background."""
UNSEEN = 255
"""What stands for the class where nobody looked (outside regions, tissue, whole tiles): such
background is no hole, whatever lies around it."""


@runtime_checkable
class Plane(Protocol):
    """Anything ``(C, H, W)`` that is sliced like an array: numpy, zarr, or a lazy image."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, H, W)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one plane, each with its own pixels; objects may overlap.

    Attributes:
        ids: int64 ``(N,)``, positive, unique, in the order of the rows.
        boxes: int64 ``(N, 2, 2)``, ``[[y0, x0], [y1, x1]]`` half-open, px.
        runs: int64 ``(R, 3)``, rows ``(row, start, length)`` of every object in
            raster order, object after object.
        offsets: int64 ``(N + 1,)``; object i owns ``runs[offsets[i]:offsets[i + 1]]``.
        classes: int16 ``(N,)``, index into the class names.
        scores: float32 ``(N,)`` in [0, 1].
        parents: int64 ``(N,)`` id of the enclosing object (nucleus in cell; 0 none), or None.
        shape: ``(H, W)`` of the plane.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    runs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    shape: tuple[int, int]
    parents: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_label_map(
        cls,
        labels: Array,
        *,
        classes: Mapping[int, int] | None = None,
        scores: Mapping[int, float] | None = None,
    ) -> Instances:
        """Return one object per positive label of an integer ``(H, W)`` map, ids ascending.

        ``classes`` and ``scores`` map a label to its class index (default 0) and
        score (default 1). Gaps in the numbering are kept: label 7 becomes id 7.
        """
        height, width = labels.shape
        runs, owners = _runs_of_labels(labels)
        ids, starts = np.unique(owners, return_index=True)
        offsets = np.append(starts, len(runs)).astype(np.int64)
        return cls(
            ids=ids.astype(np.int64),
            boxes=_boxes_of_runs(runs, offsets),
            runs=runs,
            offsets=offsets,
            classes=np.array([(classes or {}).get(int(i), 0) for i in ids], np.int16),
            scores=np.array([(scores or {}).get(int(i), 1.0) for i in ids], np.float32),
            shape=(int(height), int(width)),
        )

    @classmethod
    def joined(cls, parts: Sequence[Instances]) -> Instances:
        """Return the objects of one or more sets of one plane, set after set; they may overlap.

        Their ids must differ; parents are left out.
        """
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            boxes=np.concatenate([part.boxes for part in parts]),
            runs=np.concatenate([part.runs for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            classes=np.concatenate([part.classes for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            shape=parts[0].shape,
        )

    def areas_px(self) -> NDArray[np.int64]:
        """Return the number of pixels of each object, int64 ``(N,)``."""
        total = np.concatenate([[0], np.cumsum(self.runs[:, 2])]).astype(np.int64)
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]], np.int64)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return the pixels of object ``index`` as bool ``(h, w)`` inside its own box."""
        (y0, x0), (y1, x1) = self.boxes[index]
        out = np.zeros((y1 - y0, x1 - x0), bool)
        for row, start, length in self.runs[self.offsets[index] : self.offsets[index + 1]]:
            out[row - y0, start - x0 : start - x0 + length] = True
        return out

    def to_label_map(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Return the ids as an integer ``(H, W)`` map, 0 for background.

        The dtype is int32, or int64 where an id needs it.

        Raises:
            ValueError: when two objects share a pixel, since a map would lose one.
        """
        wide = len(self.ids) > 0 and int(self.ids.max()) > np.iinfo(np.int32).max
        flat: Array = np.zeros(self.shape[0] * self.shape[1], np.int64 if wide else np.int32)
        pixels = _pixels_of_runs(self.runs, self.shape[1])
        owners = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        flat[pixels] = np.repeat(self.ids[owners], self.runs[:, 2])
        if np.count_nonzero(flat) != int(self.runs[:, 2].sum()):
            raise ValueError(
                f"{len(self)} objects overlap: a label map holds one object per pixel; "
                "keep them as runs, or decide which object owns the shared pixels"
            )
        return flat.reshape(self.shape)


def _runs_of_labels(labels: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return runs ``(R, 3)`` and their labels ``(R,)``, sorted by label, then raster order."""
    if labels.size == 0:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    width = labels.shape[1]
    flat = np.ascontiguousarray(labels).ravel()
    breaks = np.empty(flat.size, bool)
    breaks[0] = True
    np.not_equal(flat[1:], flat[:-1], out=breaks[1:])
    breaks[::width] = True
    starts = np.flatnonzero(breaks)
    lengths = np.diff(starts, append=flat.size)
    values = flat[starts].astype(np.int64)
    inside = values > 0
    starts, lengths, values = starts[inside], lengths[inside], values[inside]
    order = np.argsort(values, kind="stable")
    starts, lengths, values = starts[order], lengths[order], values[order]
    return np.stack([starts // width, starts % width, lengths], 1).astype(np.int64), values


def _boxes_of_runs(runs: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(offsets) == 1:
        return np.zeros((0, 2, 2), np.int64)
    first = offsets[:-1]
    low = np.minimum.reduceat(runs[:, :2], first, axis=0)
    bottom = np.maximum.reduceat(runs[:, 0], first) + 1
    right = np.maximum.reduceat(runs[:, 1] + runs[:, 2], first)
    return np.stack([low, np.stack([bottom, right], 1)], 1).astype(np.int64)


def _pixels_of_runs(runs: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the linear index of every pixel of the runs, in their order."""
    lengths = runs[:, 2]
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    steps = np.arange(total) - np.repeat(before, lengths)
    return np.asarray(np.repeat(runs[:, 0] * width + runs[:, 1], lengths) + steps, np.int64)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with what is known about it.

    Attributes:
        id: unique within its data set.
        image: ``(C, H, W)`` in its source dtype, numpy or lazily sliceable.
        channels: one name per channel.
        spacing_um: pixel size ``(y, x)`` in micrometres, None when unknown.
        truth: the annotated objects, None when nobody annotated.
        semantic: int ``(H, W)`` class index per pixel (0 background), or None.
        ignore: bool ``(H, W)``, True where the pixel is left out of loss,
            normalisation and metrics (data bar, crowd, unlabelled), or None.
        crowds: regions with a class in which nobody told the objects apart (COCO's
            ``iscrowd``); their pixels are part of ``ignore``; None without any.
        tags: image-level labels (wafer patterns, "good").
        group: what must not straddle a split (plate, lot, patient); the id by default.
        kind: the stratum results are reported by (modality, product), or None.
    """

    id: str
    image: Plane
    channels: tuple[str, ...]
    spacing_um: Spacing | None = None
    truth: Instances | None = None
    semantic: Array | None = None
    ignore: NDArray[np.bool_] | None = None
    crowds: Instances | None = None
    tags: tuple[str, ...] = ()
    group: str = ""
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a data set, named before anything is read.

    ``columns`` holds what an index file says of it (split, kind, plate), as text.
    """

    id: str
    group: str
    kind: str | None = None
    tags: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


class Dataset(Protocol):
    """What a loader opens: cheap to list, read one sample at a time."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the object classes, in the order of ``Instances.classes``."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Return every image, sorted by id; no pixel is read."""
        ...

    def load(self, entry: Entry) -> Sample:
        """Return the sample of ``entry``, validated; raise InputError naming the file."""
        ...


@runtime_checkable
class ListsUnlabelled(Protocol):
    """A loader that leaves out, unless it is asked, the images that nobody has labelled."""

    def with_unlabelled(self) -> Self:
        """Return the loader that lists them too."""
        ...


@runtime_checkable
class HasStuff(Protocol):
    """A loader some of whose classes are regions of ``Sample.semantic``, never objects."""

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of these classes, in the order of ``classes``."""
        ...


@runtime_checkable
class TellsSkipped(Protocol):
    """A data set that leaves out what cannot be used, and says so."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """A sentence for each kind of thing: how many, why, the first few; found so far."""
        ...


@dataclass(frozen=True, slots=True)
class Tile:
    """A window the network sees and the part of it that is kept.

    Attributes:
        origin: ``(y, x)`` of the window in the image; negative where the border is reflected.
        shape: ``(h, w)`` of the window.
        core: ``((y0, x0), (y1, x1))`` half-open, in image pixels; cores partition the image.
    """

    origin: tuple[int, int]
    shape: tuple[int, int]
    core: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Maps:
    """What a dense head predicts, quantised once, so that every reader sees the same numbers.

    Attributes:
        foreground: uint8 ``(L, H, W)``; ``(q - 128) / 16`` is the logit, clipped to [-8, 7.9375].
        height: uint16 ``(L, H, W)``; 65535 is height 1.
        classes: uint8 ``(L, H, W)``; index of the class of the pixel were it foreground, or
            UNSEEN.
    """

    foreground: NDArray[np.uint8]
    height: NDArray[np.uint16]
    classes: NDArray[np.uint8]

    def within(self, inside: NDArray[np.bool_]) -> Maps:
        """Return the maps with background that nobody looked at outside of ``(H, W)``."""
        classes = np.where(inside, self.classes, np.uint8(UNSEEN))
        return Maps(self.foreground * inside, self.height * inside, classes)


def quantise_logit(logit: Array) -> NDArray[np.uint8]:
    """Return float logits of any shape as quanta of 1/16, clipped to [-8, 7.9375]."""
    quanta = np.asarray(logit * LOGIT_STEPS)
    np.rint(quanta, out=quanta)
    quanta += LOGIT_ZERO
    return np.asarray(np.clip(quanta, 0, 255, out=quanta), np.uint8)


def quantise_height(height: Array) -> NDArray[np.uint16]:
    """Return float heights, clipped to [0, 1], as quanta of 1/65535."""
    quanta = np.asarray(np.clip(height, 0.0, 1.0))
    quanta *= HEIGHT_MAX
    return np.asarray(np.rint(quanta, out=quanta), np.uint16)


def foreground_quantum(threshold: float) -> int:
    """Return the smallest quantum whose probability reaches ``threshold``, 0 < threshold < 1."""
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold {threshold} is not a probability between 0 and 1")
    logit = float(np.log(threshold) - np.log1p(-threshold))
    return int(np.clip(np.ceil(logit * LOGIT_STEPS - 1e-9) + LOGIT_ZERO, 0, 256))


def probability(foreground: Array) -> NDArray[np.float32]:
    """Return the foreground probability of uint8 quanta, float32."""
    table = 1.0 / (1.0 + np.exp(-(np.arange(256) - LOGIT_ZERO) / LOGIT_STEPS))
    return np.asarray(table.astype(np.float32)[foreground])
