"""The defects of a made-up wafer image, drawn once from its seed: what, where, how strong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.loaders.scene_cells import kernel
from domainseg.loaders.wafer_classes import MAKERS, Scenery
from domainseg.loaders.wafer_look import DefectClass, Range, WaferLook
from domainseg.loaders.wafer_pattern import BEVEL_UM, Circuit
from domainseg.loaders.wafer_places import Area, Spread, spots, spread_of
from domainseg.loaders.wafer_shapes import CHANGE, Shape, Shapes, gathered, kept_by_blur
from domainseg.quality.die_grid import DieGrid
from domainseg.records import Array

TRIES = 24
"""Places tried for a defect before another class takes its turn."""
APART_PX = 3.0
"""Room kept between two defects where there is any."""
_RANK = {"residue": 0, "scratch": 1}
"""What is laid down first: large faint areas, then scratches, then all that is small."""
_BRIGHTER: dict[DefectClass, bool | None] = {
    "particle": None,
    "scratch": None,
    "bridge": True,
    "open": False,
    "missing_via": False,
    "pit": False,
    "residue": None,
    "edge_chip": False,
}
"""Whether a class adds light; None where one defect does and another takes it."""


class Defects(NamedTuple):
    """The defects of one image; row n has label n + 1.

    Attributes:
        shapes: their geometry.
        classes: int16 ``(N,)``, index into the look's class names.
        contrast_to_noise: float64 ``(N,)``.
        length_um: float64 ``(N,)``, arc length of a scratch's centre line inside the image,
            gaps included; NaN for other classes.
        width_um: float64 ``(N,)``, width of a scratch; NaN for other classes.
    """

    shapes: Shapes
    classes: NDArray[np.int16]
    contrast_to_noise: NDArray[np.float64]
    length_um: NDArray[np.float64]
    width_um: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.classes)


def draw_defects(
    look: WaferLook,
    *,
    grid: DieGrid,
    size: tuple[int, int],
    circuit: Circuit | None,
    count: int,
    contrast_to_noise: Range,
    seed: int,
) -> Defects:
    """Return ``count`` defects, or fewer where no class has a place left in the image.

    Args:
        look: options.
        grid: where the image lies on the wafer.
        size: ``(H, W)`` of the image.
        circuit: of the dies, None on a bare wafer.
        count: how many.
        contrast_to_noise: least and greatest.
        seed: any non-negative integer.
    """
    rng = np.random.default_rng(seed)
    flat = 500.0 * look.wafer_diameter_mm - BEVEL_UM
    area = Area(size, grid.wafer_center_px, flat / look.spacing_um)
    scenery = Scenery(look, grid, circuit, area)
    spread = spread_of(look.placement[int(rng.integers(len(look.placement)))], rng, area)
    names = look.class_names
    # The large first, so that the small can keep clear of them.
    wanted = sorted(rng.integers(0, len(names), count), key=lambda k: _RANK.get(names[k], 2))
    taken = np.zeros((0, 4))
    placed: list[tuple[int, Shape]] = []
    for first in wanted:
        law = area.anywhere if rng.random() < look.stray else spread
        others = rng.permutation([k for k in range(len(names)) if k != first])
        for k in (int(first), *others.tolist()):
            shape = _place(names[k], rng, scenery, law, taken)
            if shape is not None:
                placed.append((k, shape))
                taken = np.concatenate([taken, shape.boxes])
                break
    placed.sort(key=lambda one: _RANK.get(names[one[0]], 2))
    strengths = rng.uniform(*contrast_to_noise, len(placed))
    brighter = rng.random(len(placed)) < 0.5
    return _collected(placed, strengths, brighter, scenery)


def _collected(
    placed: list[tuple[int, Shape]], strengths: Array, brighter: Array, scenery: Scenery
) -> Defects:
    """Return the record of all defects, each with the change that gives its contrast."""
    look = scenery.look
    shapes = gathered([shape for _, shape in placed])
    for n, (k, _) in enumerate(placed):
        adds = _BRIGHTER[look.class_names[k]]
        shapes.rows[n, CHANGE] = 1.0 if (brighter[n] if adds is None else adds) else -1.0
        kept = kept_by_blur(shapes, n, grid=scenery.grid, sigma=look.blur_px)
        shapes.rows[n, CHANGE] *= strengths[n] * look.noise / kept
    return Defects(
        shapes,
        np.array([k for k, _ in placed], np.int16),
        strengths,
        np.array([shape.length_px for _, shape in placed], float) * look.spacing_um,
        np.array([shape.width_px for _, shape in placed], float) * look.spacing_um,
    )


def _place(
    name: DefectClass, rng: np.random.Generator, scenery: Scenery, law: Spread, taken: Array
) -> Shape | None:
    """Return a defect clear of the boxes ``taken`` if a place is found, else on top, else None."""
    found: Shape | None = None
    for _ in range(3):
        for shape in MAKERS[name](rng, scenery, spots(rng, scenery.area, law, count=TRIES)):
            if not _meet(shape.boxes, taken, APART_PX):
                return shape
            found = found or shape
        if found is not None:
            break
    return found


@kernel
def _meet(boxes: Any, taken: Any, apart: float) -> bool:
    """Return whether any of the boxes ``(K, 4)`` comes too close to one that is taken."""
    for k in range(len(boxes)):
        top, left = boxes[k, 0] - apart, boxes[k, 1] - apart
        bottom, right = boxes[k, 2] + apart, boxes[k, 3] + apart
        for n in range(len(taken)):
            if (
                taken[n, 0] < bottom
                and taken[n, 2] > top
                and taken[n, 1] < right
                and taken[n, 3] > left
            ):
                return True
    return False
