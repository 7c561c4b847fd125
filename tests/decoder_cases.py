"""Random maps, options and tilings for the laws of the decoder."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.basins import Decoded, DecodeOptions
from domainseg.instances.tile_graph import Box
from domainseg.records import UNSEEN, Maps

Planes = tuple[NDArray[np.bool_], NDArray[np.int64]]
Rng = np.random.Generator


# Families of maps: foreground (bool) and height (0 .. 65535) of one plane.


def bumps(rng: Rng, shape: tuple[int, int]) -> Planes:
    y, x = np.indices(shape)
    height = np.zeros(shape)
    for _ in range(int(rng.integers(1, 8))):
        cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1, 6)
        height = np.maximum(height, np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / r**2))
    return height > 0.1, np.rint(height * 65535).astype(np.int64)


def plateaus(rng: Rng, shape: tuple[int, int]) -> Planes:
    inside, height = bumps(rng, shape)
    return inside, height // 13107 * 13107


def blocks(rng: Rng, shape: tuple[int, int]) -> Planes:
    size = int(rng.integers(2, 25))
    coarse = rng.integers(0, 3, (shape[0] // size + 1, shape[1] // size + 1))
    height = np.repeat(np.repeat(coarse, size, 0), size, 1)[: shape[0], : shape[1]]
    return rng.random(shape) < 0.95, height * 20000


def spiral(rng: Rng, shape: tuple[int, int]) -> Planes:
    inside = np.zeros(shape, bool)
    height = np.zeros(shape, np.int64)
    low, high = [0, 0], [shape[0] - 1, shape[1] - 1]
    y = x = step = 0
    turns = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for leg in range(2 * min(shape)):
        dy, dx = turns[leg % 4]
        while low[0] <= y + dy <= high[0] and low[1] <= x + dx <= high[1]:
            inside[y, x], height[y, x] = True, step
            y, x, step = y + dy, x + dx, step + int(rng.integers(-1, 4))
        if leg % 2:
            low, high = [v + 1 for v in low], [v - 1 for v in high]
    inside[y, x], height[y, x] = True, step
    return inside, (height - height.min()) * 40


def comb(rng: Rng, shape: tuple[int, int]) -> Planes:
    inside = np.zeros(shape, bool)
    inside[:, ::2] = True
    inside[int(rng.integers(0, shape[0]))] = True
    ramp = np.indices(shape)[int(rng.integers(0, 2))] * int(rng.choice([0, 1, 700]))
    return inside, np.asarray(ramp + rng.integers(0, 2, shape), np.int64)


def twins(rng: Rng, shape: tuple[int, int]) -> Planes:
    inside, height = bumps(rng, shape)
    half = slice(None, shape[1] // 2), slice(shape[1], (shape[1] - 1) // 2, -1)
    inside[:, half[1]], height[:, half[1]] = inside[:, half[0]], height[:, half[0]]
    return inside, height


def full(rng: Rng, shape: tuple[int, int]) -> Planes:
    return np.ones(shape, bool), np.full(shape, int(rng.choice([0, 65535])))


def noise(rng: Rng, shape: tuple[int, int]) -> Planes:
    levels = int(rng.choice([2, 3, 10, 65536]))
    height = rng.integers(0, levels, shape) * (65535 // (levels - 1))
    return rng.random(shape) < rng.choice([0.4, 0.6, 0.8]), height


FAMILIES = (bumps, plateaus, blocks, spiral, comb, twins, full, noise)


def random_maps(rng: Rng, classes: int, *, largest: int = 30) -> Maps:
    layers = int(rng.integers(1, 3))
    shape = (int(rng.integers(1, largest)), int(rng.integers(1, largest)))
    planes = [FAMILIES[int(rng.integers(len(FAMILIES)))](rng, shape) for _ in range(layers)]
    inside = np.stack([plane[0] for plane in planes])
    quanta = np.where(inside, rng.integers(128, 256, inside.shape), rng.integers(0, 128))
    kinds = rng.integers(0, classes, inside.shape)
    if rng.random() < 0.6:
        kinds = np.repeat(np.repeat(kinds, 5, 1), 5, 2)[:, : shape[0], : shape[1]]
    if rng.random() < 0.3:
        kinds = np.where(~inside & (rng.random(inside.shape) < 0.05), UNSEEN, kinds)
    return Maps(
        quanta.astype(np.uint8),
        np.stack([plane[1] for plane in planes]).astype(np.uint16),
        kinds.astype(np.uint8),
    )


def random_options(rng: Rng, classes: int) -> DecodeOptions:
    areas, scores = rng.choice([0, 0, 4], classes), rng.choice([0.0, 0.0, 0.9], classes)
    each = rng.random() < 0.5
    least = rng.choice([0.2, 0.5, 0.5, 0.85], classes)
    return DecodeOptions(
        threshold=tuple(least.tolist()) if rng.random() < 0.4 else 0.5,
        split=tuple((rng.random(classes) < 0.6).tolist()) if rng.random() < 0.5 else True,
        prominence=float(rng.choice([0.0, 0.02, 0.3, 1.0])),
        merge_classes=bool(rng.random() < 0.5),
        min_area_px=tuple(areas.tolist()) if each else int(areas[0]),
        max_area_px=None if rng.random() < 0.7 else 60,
        min_score=tuple(scores.tolist()) if each else float(scores[0]),
        fill_holes=bool(rng.random() < 0.5),
    )


def random_tiles(rng: Rng, shape: tuple[int, int]) -> list[Box]:
    """Rows of tiles, each row cut at columns of its own, in any order."""

    def cuts(length: int) -> list[int]:
        inner = rng.integers(1, length, int(rng.integers(0, 7))).tolist() if length > 1 else []
        return sorted({0, *inner, length})

    tiles = [
        ((y0, x0), (y1, x1))
        for y0, y1 in pairwise(cuts(shape[0]))
        for x0, x1 in pairwise(cuts(shape[1]))
    ]
    return [tiles[i] for i in rng.permutation(len(tiles))]


def assert_same(found: Decoded, wanted: Decoded | dict[str, Any]) -> None:
    for field in fields(Decoded):
        if field.name == "links":
            continue  # a count; links have laws of their own
        one = getattr(found, field.name)
        two = wanted[field.name] if isinstance(wanted, dict) else getattr(wanted, field.name)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two, err_msg=field.name)
