"""The network's pass over tiles: windows in, quantised maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.images.normalise import Range, low_and_scale, pixels_last
from domainseg.records import Maps, Plane, Tile, quantise_height, quantise_logit
from domainseg.tiling.grid import Lattice, core_in_window, covers, read_window, tiles

Precision = Literal["fp32", "bf16"]
UNIT = (0.0, 1.0)
"""Where what the network sees ends."""
NOTHING_BELOW = 0.5
"""Value of the channel of support below which nothing can be."""
LEAST_LOGIT = -8.0
"""The least that maps hold."""


class MapTensors(Protocol):
    """Maps of a batch of windows, each ``(B, L, h, w)``: logit, height in [0, 1], class index."""

    @property
    def foreground(self) -> Tensor:
        """Logit, float."""
        ...

    @property
    def height(self) -> Tensor:
        """In [0, 1], float."""
        ...

    @property
    def classes(self) -> Tensor:
        """Class index, uint8."""
        ...


@dataclass(frozen=True, slots=True)
class MapMaker:
    """A network with the head that reads its scores, on one device in one precision.

    Attributes:
        network: float ``(B, C, h, w)`` to scores ``(B, outputs, h, w)``, in eval mode.
        encode: scores to maps.
        layers: number of layers of the maps.
        device: where the network lives.
        precision: ``bf16`` runs the network under autocast; maps are always made in float32.
        intensity: the range to apply to windows that come as they are stored; None for
            windows in [0, 1]. The result is that of `images.normalise.apply_range`, bit by bit.
        support: index of the channel that is 0 where nothing can be, as off the dies of a wafer
            map: where it is below a half, foreground is the least. None for no such channel.
        folded: whether its normalisations are folded into its convolutions: under bfloat16 the
            two round otherwise.
        symmetries: 8 averages the scores over the symmetries of the square (turns by 90
            degrees and mirrors), at 8 times the cost; 1 runs the network once.
    """

    network: nn.Module
    encode: Callable[[Tensor], MapTensors]
    layers: int
    device: torch.device
    precision: Precision = "fp32"
    folded: bool = False
    symmetries: Literal[1, 8] = 1
    intensity: Range | None = None
    support: int | None = None

    @torch.inference_mode()
    def __call__(self, windows: NDArray[Any]) -> MapTensors:
        """Return the maps of windows ``(B, C, h, w)``, float32 or as `intensity` says."""
        images = self._prepared(torch.from_numpy(windows).to(self.device))
        scores = self._averaged(images)
        # A caller may itself be under autocast; maps are float32 whoever asks.
        with torch.autocast(self.device.type, enabled=False):
            made = self.encode(scores)
            if self.support is not None:
                off = images[:, self.support, None] < NOTHING_BELOW
                made.foreground.masked_fill_(off, LEAST_LOGIT)
            return made

    @torch.inference_mode()
    def scores(self, windows: Tensor) -> Tensor:
        """Return the network's scores of windows ``(B, C, h, w)``, float32.

        With 8 symmetries each is undone before the scores are added up in float32, in one
        order, so that equal windows give equal bits.
        """
        return self._averaged(self._prepared(windows.to(self.device)))

    def _averaged(self, images: Tensor) -> Tensor:
        total = self._run(images)
        for turn in range(1, self.symmetries):
            total = total + _turned_back(self._run(_turned(images, turn)), turn)
        return total / self.symmetries if self.symmetries > 1 else total

    def _prepared(self, windows: Tensor) -> Tensor:
        """Return windows on the device: float32, in [0, 1] where a range is set."""
        if self.intensity is None:
            return windows.to(torch.float32)
        if self.device.type == "cpu":
            last = pixels_last(windows.numpy(), self.intensity, clip=UNIT)
            return torch.from_numpy(last).permute(0, 3, 1, 2)
        images = windows.to(torch.float32, copy=True)
        low, scale = (
            torch.from_numpy(values).to(self.device).view(1, -1, 1, 1)
            for values in low_and_scale(self.intensity)
        )
        # Three steps, as in numpy: one that fuses them would round otherwise.
        return images.sub_(low).mul_(scale).clamp_(*UNIT)

    def _run(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            scores: Tensor = self.network(images)
        return scores.float()


def _turned(images: Tensor, turn: int) -> Tensor:
    """Return ``(B, C, h, w)`` under symmetry ``turn``, 0 to 7: quarter turns, from 4 mirrored."""
    mirrored = images.flip(3) if turn >= 4 else images
    return torch.rot90(mirrored, turn % 4, (2, 3))


def _turned_back(images: Tensor, turn: int) -> Tensor:
    """Undo ``_turned``."""
    upright = torch.rot90(images, -(turn % 4), (2, 3))
    return upright.flip(3) if turn >= 4 else upright


def forward_maps(make_maps: MapMaker, plane: Plane, lattice: Lattice) -> Maps:
    """Return the maps of a whole float32 ``(C, H, W)`` plane, held in memory.

    Each pixel comes from the one tile whose core it lies in.
    """
    height, width = plane.shape[1:]
    full = (make_maps.layers, height, width)
    maps = Maps(np.zeros(full, np.uint8), np.zeros(full, np.uint16), np.zeros(full, np.uint8))
    for group in batches(tiles((height, width), lattice), lattice.batch):
        made = make_maps(stack_windows(plane, group, lattice))
        for tile, core in zip(group, maps_of_cores(made, group), strict=True):
            (y0, x0), (y1, x1) = tile.core
            maps.foreground[:, y0:y1, x0:x1] = core.foreground
            maps.height[:, y0:y1, x0:x1] = core.height
            maps.classes[:, y0:y1, x0:x1] = core.classes
    return maps


def stack_windows(plane: Plane, group: Sequence[Tile], lattice: Lattice) -> NDArray[Any]:
    """Return the windows of one batch, ``(B, C, h, w)``: float32, of 8 and 16 bits as stored.

    A short batch is filled up with its last window: networks promise equal bits only
    for equal batch shapes. The one window of a small image has a shape of its own anyway.
    """
    dtype = plane.dtype if plane.dtype in (np.uint8, np.uint16) else np.float32
    windows = [np.asarray(read_window(plane, tile), dtype) for tile in group]
    alone = len(group) == 1 and covers(group[0], plane)
    if not alone:
        windows += [windows[-1]] * (lattice.batch - len(windows))
    # Of one window no copy is made: it is a large part of what reading it costs.
    return windows[0][None] if len(windows) == 1 else np.stack(windows)


def maps_of_cores(made: MapTensors, group: Sequence[Tile]) -> Iterator[Maps]:
    """Yield the quantised maps of the core of each tile, from the maps of their windows."""
    for at, tile in enumerate(group):
        yield maps_of_core(made, tile, at)


def maps_of_core(made: MapTensors, tile: Tile, at: int) -> Maps:
    """Return the quantised maps of a tile's core; its window is number ``at`` of the batch."""
    rows, columns = core_in_window(tile)
    return Maps(
        foreground=quantise_logit(_numpy(made.foreground[at, :, rows, columns])),
        height=quantise_height(_numpy(made.height[at, :, rows, columns])),
        classes=_numpy(made.classes[at, :, rows, columns]),
    )


def batches(grid: Sequence[Tile], size: int) -> Iterator[Sequence[Tile]]:
    """Yield the tiles in groups of ``size``, the last of what is left."""
    for start in range(0, len(grid), size):
        yield grid[start : start + size]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
