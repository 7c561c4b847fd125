"""The network's pass over tiles: windows in, quantised maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.records import Maps, Plane, Tile, quantise_height, quantise_logit
from domainseg.tiling.grid import Lattice, core_in_window, covers, read_window, tiles

Precision = Literal["fp32", "bf16"]


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
    """

    network: nn.Module
    encode: Callable[[Tensor], MapTensors]
    layers: int
    device: torch.device
    precision: Precision = "fp32"

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> MapTensors:
        """Return the maps of float32 windows ``(B, C, h, w)``."""
        images = torch.from_numpy(windows).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            scores = self.network(images)
        # A caller may itself be under autocast; maps are float32 whoever asks.
        with torch.autocast(self.device.type, enabled=False):
            return self.encode(scores.float())


def forward_maps(make_maps: MapMaker, plane: Plane, lattice: Lattice) -> Maps:
    """Return the maps of a whole float32 ``(C, H, W)`` plane, held in memory.

    Each pixel comes from the one tile whose core it lies in.
    """
    height, width = plane.shape[1:]
    full = (make_maps.layers, height, width)
    maps = Maps(np.zeros(full, np.uint8), np.zeros(full, np.uint16), np.zeros(full, np.uint8))
    grid = tiles((height, width), lattice)
    for group in _groups(grid, lattice.batch):
        for tile, core in zip(group, forward_cores(make_maps, plane, group, lattice), strict=True):
            (y0, x0), (y1, x1) = tile.core
            maps.foreground[:, y0:y1, x0:x1] = core.foreground
            maps.height[:, y0:y1, x0:x1] = core.height
            maps.classes[:, y0:y1, x0:x1] = core.classes
    return maps


def forward_cores(
    make_maps: MapMaker, plane: Plane, group: Sequence[Tile], lattice: Lattice
) -> Iterator[Maps]:
    """Yield the quantised maps of the core of each tile of one batch.

    A short batch is filled up with its last window: networks promise equal bits only
    for equal batch shapes. The one window of a small image has a shape of its own anyway.
    """
    windows = [np.asarray(read_window(plane, tile), np.float32) for tile in group]
    alone = len(group) == 1 and covers(group[0], plane)
    if not alone:
        windows += [windows[-1]] * (lattice.batch - len(windows))
    made = make_maps(np.stack(windows))
    for i, tile in enumerate(group):
        rows, columns = core_in_window(tile)
        yield Maps(
            foreground=quantise_logit(_numpy(made.foreground[i, :, rows, columns])),
            height=quantise_height(_numpy(made.height[i, :, rows, columns])),
            classes=_numpy(made.classes[i, :, rows, columns]),
        )


def _groups(grid: Sequence[Tile], size: int) -> Iterator[Sequence[Tile]]:
    for start in range(0, len(grid), size):
        yield grid[start : start + size]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
