"""The decoder's definition, written slowly on the whole image, in plain Python.

Nothing of the package is used but the records, the options and their integers.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainseg.instances.basins import DecodeOptions
from domainseg.records import UNSEEN, Maps, foreground_quantum, probability

Pixel = tuple[int, int]
EIGHT = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
FOUR = [(-1, 0), (0, -1), (0, 1), (1, 0)]


@dataclass(frozen=True)
class Thing:
    """One object: its pixels, and the numbers of its row."""

    layer: int
    pixels: frozenset[Pixel]
    kind: int
    score: float


class Layer:
    """One layer of the maps, and the relations between its pixels."""

    def __init__(self, maps: Maps, layer: int, options: DecodeOptions) -> None:
        self.options = options
        self.layer = layer
        self.shape = maps.height.shape[1:]
        self.quanta = maps.foreground[layer]
        self.height = maps.height[layer].astype(int)
        self.kind = maps.classes[layer].astype(int)
        self.pixels: list[Pixel] = [
            (int(y), int(x))
            for y, x in np.ndindex(*self.shape)
            if self.quanta[y, x] >= self._quantum(int(self.kind[y, x]))
        ]
        self.inside = set(self.pixels)
        self.neighbours = {
            p: [q for q in self._around(p) if self._linked(p, q)] for p in self.pixels
        }
        self.g = {p: self._steps_to_higher(p) for p in self.pixels}

    def _quantum(self, kind: int) -> int:
        least = self.options.threshold
        if isinstance(least, tuple):
            return 256 if kind == UNSEEN else foreground_quantum(least[kind])
        return foreground_quantum(least)

    def _around(self, p: Pixel) -> list[Pixel]:
        return [(p[0] + dy, p[1] + dx) for dy, dx in EIGHT if (p[0] + dy, p[1] + dx) in self.inside]

    def _linked(self, p: Pixel, q: Pixel) -> bool:
        return self.options.merge_classes or self.kind[p] == self.kind[q]

    def _steps_to_higher(self, start: Pixel) -> int:
        seen, ring = {start}, [start]
        for steps in range(1, 16):
            following = []
            for p in ring:
                for q in self.neighbours[p]:
                    if self.height[q] > self.height[p]:
                        return steps
                    if self.height[q] == self.height[p] and q not in seen:
                        seen.add(q)
                        following.append(q)
            ring = following
        return 16

    def index(self, p: Pixel) -> int:
        return p[0] * int(self.shape[1]) + p[1]

    def order(self, p: Pixel) -> tuple[int, int, int]:
        return int(self.height[p]), -self.g[p], self.index(p)

    def split(self, p: Pixel) -> bool:
        split = self.options.split
        return split if isinstance(split, bool) else bool(split[self.kind[p]])

    def peaks(self) -> dict[Pixel, Pixel]:
        """Return the peak that each pixel ascends to."""
        peak: dict[Pixel, Pixel] = {}
        for p in sorted(self.pixels, key=self.order, reverse=True):
            first = max([p, *self.neighbours[p]], key=self.order)
            peak[p] = p if first == p else peak[first]
        return peak

    def edges(self, peak: dict[Pixel, Pixel]) -> list[tuple[int, int, int, Pixel, Pixel]]:
        """Return height(lo), index(lo), index(hi), lo, hi of all edges, the first one first."""
        edges = [
            (int(self.height[p]), self.index(p), self.index(q), p, q)
            for p in self.pixels
            for q in self.neighbours[p]
            if self.order(p) < self.order(q) and peak[p] != peak[q]
        ]
        return sorted(edges, reverse=True)

    def components(self) -> list[set[Pixel]]:
        """Return the objects before holes, filters and numbers."""
        peak = self.peaks()
        union = {p: p for p in set(peak.values())}

        def top(p: Pixel) -> Pixel:
            while union[p] != p:
                p = union[p]
            return p

        def join(p: Pixel, q: Pixel) -> None:
            low, high = sorted([p, q], key=self.order)
            union[low] = high

        edges = self.edges(peak)
        for *_, p, q in edges:
            if not self.split(p) and not self.split(q):
                join(top(peak[p]), top(peak[q]))
        limit = max(1, math.ceil(self.options.prominence * 65535))
        for level, _, _, p, q in edges:
            one, two = top(peak[p]), top(peak[q])
            if one != two and min(self.height[one], self.height[two]) - level < limit:
                join(one, two)
        members: dict[Pixel, set[Pixel]] = {}
        for p in self.pixels:
            members.setdefault(top(peak[p]), set()).add(p)
        return list(members.values())

    def holes(self, objects: list[set[Pixel]]) -> list[set[Pixel]]:
        """Return for each object the background pixels wholly inside it."""
        rows, columns = self.shape
        owner = {p: i for i, pixels in enumerate(objects) for p in pixels}
        filled: list[set[Pixel]] = [set() for _ in objects]
        seen: set[Pixel] = set()
        for start in np.ndindex(rows, columns):
            if start in self.inside or start in seen:
                continue
            hole, stack, beside, border = {start}, [start], set(), False
            while stack:
                y, x = stack.pop()
                border |= bool(self.kind[y, x] == UNSEEN)
                for q in ((y + dy, x + dx) for dy, dx in FOUR):
                    if not (0 <= q[0] < rows and 0 <= q[1] < columns):
                        border = True
                    elif q in owner:
                        beside.add(owner[q])
                    elif q not in hole:
                        hole.add(q)
                        stack.append(q)
            seen |= hole
            if not border and len(beside) == 1:
                filled[beside.pop()] |= hole
        return filled

    def things(self) -> list[Thing]:
        """Return the objects that pass the filters, by first pixel."""
        o = self.options
        objects = self.components()
        holes = self.holes(objects) if o.fill_holes else [set() for _ in objects]
        chance = np.rint(probability(np.arange(256)).astype(float) * 65535).astype(int)
        found = []
        for pixels, hole in zip(objects, holes, strict=True):
            votes = Counter(int(self.kind[p]) for p in pixels)
            kind = min(votes, key=lambda k: (-votes[k], k))
            score = sum(int(chance[self.quanta[p]]) for p in pixels) / (len(pixels) * 65535)
            area = len(pixels) + len(hole)
            areas, scores = o.min_area_px, o.min_score
            least = areas[kind] if isinstance(areas, tuple) else areas
            worst = scores[kind] if isinstance(scores, tuple) else scores
            if area < least or score < worst:
                continue
            if o.max_area_px is not None and area > o.max_area_px:
                continue
            found.append(Thing(self.layer, frozenset(pixels | hole), kind, score))
        return sorted(found, key=lambda thing: min(thing.pixels))


def decode_slowly(maps: Maps, options: DecodeOptions) -> dict[str, Any]:
    """Return the fields of ``Decoded`` by name."""
    things = [t for layer in range(len(maps.height)) for t in Layer(maps, layer, options).things()]
    labels = np.zeros(maps.height.shape, np.int32)
    for number, thing in enumerate(things, 1):
        for p in thing.pixels:
            labels[thing.layer][p] = number
    places = [np.array(sorted(thing.pixels)) for thing in things]
    boxes = [[p.min(axis=0), p.max(axis=0) + 1] for p in places]
    return {
        "labels": labels,
        "layers": np.array([t.layer for t in things], np.int16),
        "classes": np.array([t.kind for t in things], np.int16),
        "areas_px": np.array([len(t.pixels) for t in things], np.int64),
        "scores": np.array([t.score for t in things], np.float32),
        "boxes": np.array(boxes, np.int64).reshape(-1, 2, 2),
        "centroids": np.array([p.sum(axis=0) / len(p) for p in places], float).reshape(-1, 2),
    }
