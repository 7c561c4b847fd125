"""How far the maps of a network depend on the way an image is cut: measured, never assumed.

Everything is compared with the untiled pass: one window as large as the image, with the
same mirrored halo around it that a tile at the border has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.instances.basins import DecodeOptions, decode
from domainseg.instances.matching import match
from domainseg.instances.overlaps import overlap_maps
from domainseg.records import Maps, Tile
from domainseg.tiling.forward import (
    MapMaker,
    MapTensors,
    batches,
    maps_of_cores,
    stack_windows,
)
from domainseg.tiling.grid import Lattice, core_in_window, read_window, tiles
from domainseg.tiling.halo import FLIP_TOLERANCE, PROBABILITY_TOLERANCE

FloatImage = NDArray[np.float32]
"""A plane ``(C, H, W)`` in memory, as the network sees it."""
SETTING_HEADER = ("method", "core", "halo", "offset", "batch", "threads")
BATCHES = (1, 2, 4)
OFFSETS = ((3 / 8, 5 / 8), (7 / 8, 1 / 8))
"""Offsets of the cores' borders ``(y, x)``, over the core: never a multiple of it."""
OVERLAPS = (0.25, 0.5)
MUCH = 0.9
"""IoU below which an object has not only lost pixels at its rim."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a network over an image.

    Attributes:
        method: ``tiles``; ``naive``: tiles without a halo; ``blend``: windows that overlap,
            their scores averaged under a Gaussian (MONAI's ``SlidingWindowInferer``).
        lattice: how it is cut; of a blend, core + 2 halos are the side of a window.
        offset: of the cores' borders, px, as in ``grid.tiles``.
        threads: of the processor, None = as many as there are.
        overlap: of the windows of a blend, over their side.
    """

    method: Literal["tiles", "naive", "blend"]
    lattice: Lattice
    offset: tuple[int, int] = (0, 0)
    threads: int | None = None
    overlap: float | None = None

    @property
    def judged(self) -> bool:
        """Whether the tolerances hold for it: the other methods are there to compare."""
        return self.method == "tiles"

    def columns(self) -> tuple[str, ...]:
        """Return the setting as the columns `SETTING_HEADER`."""
        overlap = "" if self.overlap is None else f" {100 * self.overlap:.0f} %"
        return (
            self.method + overlap,
            str(self.lattice.core_px),
            str(self.lattice.halo_px),
            f"{self.offset[0]} {self.offset[1]}",
            str(self.lattice.batch),
            "all" if self.threads is None else str(self.threads),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {
            "method": self.method,
            **self.lattice.to_json(),
            "offset": list(self.offset),
            "threads": self.threads,
            "overlap": self.overlap,
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """What one setting changes against the untiled pass.

    Attributes:
        setting: the setting.
        difference: largest difference of foreground probability.
        flipped: share of pixels, of all layers, on the other side of probability 0.5.
        objects: number of objects.
        changed: objects of either side without one of exactly the same pixels on the other.
        changed_much: those without one at IoU >= 0.9.
    """

    setting: Setting
    difference: float
    flipped: float
    objects: int
    changed: int
    changed_much: int

    @property
    def within(self) -> bool:
        """Whether both figures of the maps are within the tolerances of ``halo``."""
        return self.difference <= PROBABILITY_TOLERANCE and self.flipped <= FLIP_TOLERANCE


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All readings of one image.

    Attributes:
        shape: ``(H, W)`` of the image.
        foreground: share of pixels with probability 0.5 or more in the untiled pass.
        objects: number of objects in the untiled pass.
        readings: one for each setting.
    """

    shape: tuple[int, int]
    foreground: float
    objects: int
    readings: tuple[Reading, ...]

    @property
    def beyond(self) -> tuple[Reading, ...]:
        """The readings of judged settings that are not within the tolerances."""
        return tuple(r for r in self.readings if r.setting.judged and not r.within)


def default_settings(
    lattice: Lattice, shape: tuple[int, int], *, cores: Sequence[int] = ()
) -> tuple[Setting, ...]:
    """Return the settings that are looked at on an image ``(H, W)``.

    ``cores`` are sides in px; without them the recorded core, its half and its quarter.
    Cores that hold the whole image cut nothing and are left out. Offsets, batches and
    threads are tried at the largest core that is left; nothing is returned when none is.
    """
    stride = lattice.stride_px
    wanted = cores or [max(stride, lattice.core_px // k // stride * stride) for k in (1, 2, 4)]
    sides = sorted({side for side in wanted if side < max(shape)}, reverse=True)
    if not sides:
        return ()
    ours = [Setting("tiles", replace(lattice, core_px=side)) for side in sides]
    first = ours[0]
    offsets = {
        tuple(max(stride, int(part * sides[0]) // stride * stride) for part in parts)
        for parts in OFFSETS
        if sides[0] > stride
    }
    ours += [replace(first, offset=(y, x)) for y, x in sorted(offsets)]
    ours += [
        replace(first, lattice=replace(first.lattice, batch=batch))
        for batch in BATCHES
        if batch != lattice.batch
    ]
    ours += [replace(first, threads=count) for count in (1, 2) if count < torch.get_num_threads()]
    naive = Setting("naive", replace(first.lattice, halo_px=0))
    return (*ours, naive, *(replace(first, method="blend", overlap=o) for o in OVERLAPS))


def measure_sensitivity(
    make_maps: MapMaker,
    image: FloatImage,
    settings: Sequence[Setting],
    *,
    lattice: Lattice,
    options: DecodeOptions,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Sensitivity:
    """Return what each setting changes in the maps and objects of an image.

    The whole image goes through the network in one piece, with the halo of ``lattice``
    mirrored on each side; memory grows with it. The number of threads is as before
    afterwards.
    """
    tell(0, len(settings) + 1)
    untiled = _Outcome.of(*untiled_maps(make_maps, image, lattice), options)
    readings = []
    for done, setting in enumerate(settings, start=1):
        tell(done, len(settings) + 1)
        with threads(setting.threads):
            logit, maps = run_setting(make_maps, image, setting)
        readings.append(_reading(setting, _Outcome.of(logit, maps, options), untiled))
    tell(len(settings) + 1, len(settings) + 1)
    return Sensitivity(
        shape=(image.shape[1], image.shape[2]),
        foreground=float((untiled.logit >= 0).mean()),
        objects=untiled.objects,
        readings=tuple(readings),
    )


def untiled_maps(
    make_maps: MapMaker, image: FloatImage, lattice: Lattice
) -> tuple[NDArray[np.float32], Maps]:
    """Return logit, float32 ``(L, H, W)``, and maps of one window around the whole image."""
    window = _whole(image, lattice)
    return _core(make_maps(_pixels(image, window)), window)


def run_setting(
    make_maps: MapMaker, image: FloatImage, setting: Setting
) -> tuple[NDArray[np.float32], Maps]:
    """Return logit, float32 ``(L, H, W)``, and maps of an image, cut as asked."""
    if setting.overlap is not None:
        return _blended_maps(make_maps, image, setting.lattice, setting.overlap)
    full = (make_maps.layers, *image.shape[1:])
    logit = np.empty(full, np.float32)
    maps = Maps(np.empty(full, np.uint8), np.empty(full, np.uint16), np.empty(full, np.uint8))
    grid = tiles((full[1], full[2]), setting.lattice, offset=setting.offset)
    for group in batches(grid, setting.lattice.batch):
        made = make_maps(stack_windows(image, group, setting.lattice))
        for i, (tile, core) in enumerate(zip(group, maps_of_cores(made, group), strict=True)):
            (y0, x0), (y1, x1) = tile.core
            logit[:, y0:y1, x0:x1] = _logit(made, tile, index=i)
            maps.foreground[:, y0:y1, x0:x1] = core.foreground
            maps.height[:, y0:y1, x0:x1] = core.height
            maps.classes[:, y0:y1, x0:x1] = core.classes
    return logit, maps


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run the block with ``count`` threads of the processor, None for as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _blended_maps(
    make_maps: MapMaker, image: FloatImage, lattice: Lattice, overlap: float
) -> tuple[NDArray[np.float32], Maps]:
    """Return logit and maps by overlap blending of the scores of windows.

    The image is mirrored by the halo first, as for the untiled pass, so that what is
    compared is the seams and not the borders of the image.
    """
    from monai.inferers.inferer import SlidingWindowInferer

    side = lattice.core_px + 2 * lattice.halo_px
    window = _whole(image, lattice)
    infer = SlidingWindowInferer(
        (side, side),
        lattice.batch,
        overlap,
        mode="gaussian",
        sw_device=make_maps.device,
        device="cpu",
    )
    with torch.inference_mode():
        scores: Any = infer(torch.from_numpy(_pixels(image, window)), make_maps.scores)
        return _core(make_maps.encode(scores), window)


def _whole(image: FloatImage, lattice: Lattice) -> Tile:
    """Return the window that holds an image padded to the stride, and the halo around it."""
    height, width = image.shape[1:]
    stride, halo = lattice.stride_px, lattice.halo_px
    down, across = (-(-length // stride) * stride + 2 * halo for length in (height, width))
    return Tile((-halo, -halo), (down, across), ((0, 0), (height, width)))


def _pixels(image: FloatImage, window: Tile) -> NDArray[np.float32]:
    """Return the pixels of a window as a batch ``(1, C, h, w)``."""
    return np.ascontiguousarray(read_window(image, window)[None], np.float32)


def _core(made: MapTensors, window: Tile) -> tuple[NDArray[np.float32], Maps]:
    """Return logit and maps of the core of the only window of a batch."""
    (maps,) = maps_of_cores(made, (window,))
    # A copy, so that the halo is let go of.
    return _logit(made, window).copy(), maps


def _logit(made: MapTensors, tile: Tile, *, index: int = 0) -> NDArray[np.float32]:
    rows, columns = core_in_window(tile)
    logit: NDArray[np.float32] = made.foreground[index, :, rows, columns].cpu().numpy()
    return logit


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one way to cut gave: logit ``(L, H, W)`` and labels ``(L, H, W)``."""

    logit: NDArray[np.float32]
    labels: NDArray[np.int32]
    objects: int

    @classmethod
    def of(cls, logit: NDArray[np.float32], maps: Maps, options: DecodeOptions) -> _Outcome:
        decoded = decode(maps, options)
        return cls(logit, decoded.labels, len(decoded.areas_px))


def _reading(setting: Setting, got: _Outcome, untiled: _Outcome) -> Reading:
    changed = {1.0: 0, MUCH: 0}
    for truth, labels in zip(untiled.labels, got.labels, strict=True):
        overlaps = overlap_maps(truth, labels)
        for iou in changed:
            counts = match(overlaps, iou).counts
            changed[iou] += counts.missed + counts.false
    return Reading(
        setting=setting,
        difference=_largest_difference(got.logit, untiled.logit),
        flipped=float(((got.logit >= 0) != (untiled.logit >= 0)).mean()),
        objects=got.objects,
        changed=changed[1.0],
        changed_much=changed[MUCH],
    )


def _largest_difference(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Return the largest difference of probability of two logits, plane by plane."""
    return max(
        float((torch.from_numpy(a).sigmoid() - torch.from_numpy(b).sigmoid()).abs().max())
        for a, b in zip(one, two, strict=True)
    )
