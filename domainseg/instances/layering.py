"""Objects that may overlap, laid out in layers of which each is a label map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.runs import ObjectRuns, runs_of_instances
from domainseg.instances.shared_pixels import boxes_of, find_shared
from domainseg.instances.tile_graph import Box
from domainseg.records import Instances

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layered:
    """The objects of an image in layers; in one layer no two share a pixel.

    Attributes:
        objects: ids are labels, 1 to N through all layers, in raster order within each.
        boxes: int64 ``(N, 2, 2)``, half-open, px of the image.
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)``.
        layers: number of layers, at least 1.
        starts: int64 ``(layers + 1,)``; layer i holds objects ``starts[i]`` to ``starts[i + 1]``.
    """

    objects: ObjectRuns
    boxes: Ints
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    layers: int
    starts: Ints

    links: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.objects)

    def first(self, layer: int) -> int:
        """Return the smallest label of a layer."""
        return int(self.starts[layer]) + 1

    def classes_of(self, layer: int) -> NDArray[np.int16]:
        """Return the class of each object of a layer, int16 ``(n,)``."""
        return self.classes[self.starts[layer] : self.starts[layer + 1]]

    def scores_of(self, layer: int) -> NDArray[np.float32]:
        """Return the score of each object of a layer, float32 ``(n,)``."""
        return self.scores[self.starts[layer] : self.starts[layer + 1]]

    def boxes_of(self, layer: int) -> NDArray[np.int32]:
        """Return the box of each object of a layer, int32 ``(n, 2, 2)``, px of the image."""
        return self.boxes[self.starts[layer] : self.starts[layer + 1]].astype(np.int32)

    def labels(self, box: Box) -> tuple[NDArray[np.int32], ...]:
        """Return the labels of each layer in a box of the image, int32 ``(h, w)``, 0 background."""
        (y0, x0), (y1, x1) = box
        before = (self.boxes[:, 0] < np.array((y1, x1))).all(axis=1)
        hit = np.asarray(before & (self.boxes[:, 1] > np.array((y0, x0))).all(axis=1), np.bool_)
        painted = []
        for first, last in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            out = np.zeros((y1 - y0, x1 - x0), np.int32)
            rows = first + np.flatnonzero(hit[first:last])
            _paint(self.objects.runs, self.objects.offsets, rows, y0, x0, out)
            painted.append(out)
        return tuple(painted)


def layered(
    objects: ObjectRuns, *, classes: NDArray[np.int16], scores: NDArray[np.float32]
) -> Layered:
    """Return objects, in raster order of their first pixels, in as few layers as come first.

    Each goes, in their order, to the first layer in which nothing that is there shares a pixel
    with it; so objects that overlap nothing are in the first.
    """
    of_layer = _first_free(find_shared(objects).pairs, len(objects))
    layers = int(of_layer.max(initial=0)) + 1
    order = np.argsort(of_layer, kind="stable")
    lengths = np.diff(objects.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
    runs = objects.runs[np.repeat(objects.offsets[:-1][order], lengths) + steps]
    placed = ObjectRuns(np.arange(1, len(objects) + 1), runs, offsets, objects.shape)
    starts = np.searchsorted(of_layer[order], np.arange(layers + 1)).astype(np.int64)
    return Layered(placed, boxes_of(placed), classes[order], scores[order], layers, starts)


@kernel
def _first_free(pairs: Ints, count: int) -> Ints:
    """Return the layer of each object; ``pairs`` are sorted, the smaller index first."""
    layers = np.zeros(count, np.int64)
    # For each object the layers of those before it that it overlaps, as they are decided.
    order = np.argsort(pairs[:, 1] * count + pairs[:, 0])
    at = 0
    for i in range(count):
        begun = at
        while at < len(order) and pairs[order[at], 1] == i:
            at += 1
        layer = 0
        taken = True
        while taken:
            taken = False
            for k in range(begun, at):
                if layers[pairs[order[k], 0]] == layer:
                    taken = True
                    layer += 1
                    break
        layers[i] = layer
    return layers


@kernel
def _paint(runs: Ints, offsets: Ints, rows: Ints, y0: int, x0: int, out: NDArray[np.int32]) -> None:
    height, width = out.shape
    for i in rows:
        for k in range(offsets[i], offsets[i + 1]):
            y = runs[k, 0] - y0
            if not 0 <= y < height:
                continue
            start = max(runs[k, 1] - x0, 0)
            stop = min(runs[k, 1] + runs[k, 2] - x0, width)
            for x in range(start, stop):
                out[y, x] = i + 1


def numbered_planes(instances: Instances) -> tuple[NDArray[np.int32], ...]:
    """Return objects that may overlap as planes ``(H, W)``: row i is i + 1, 0 is background.

    In one plane no two share a pixel; there is at least one.
    """
    objects = runs_of_instances(instances)
    of_layer = _first_free(find_shared(objects).pairs, len(objects))
    planes = []
    for layer in range(int(of_layer.max(initial=0)) + 1):
        out = np.zeros(objects.shape, np.int32)
        rows = np.flatnonzero(of_layer == layer)
        _paint(objects.runs, objects.offsets, rows, 0, 0, out)
        planes.append(out)
    return tuple(planes)
