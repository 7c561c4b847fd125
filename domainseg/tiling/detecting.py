"""A detector's pass over windows: detections of each, on disk or in memory."""

from __future__ import annotations

import io
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainseg.atomic import atomic_path, atomic_text, make_folder, writing_below
from domainseg.errors import InputError, sentence
from domainseg.images.normalise import Range, apply_range
from domainseg.instances.detections import GRID_TOP, Detections
from domainseg.instances.tile_graph import Box
from domainseg.records import Plane, Tile
from domainseg.tiling.forward import UNIT, Precision
from domainseg.tiling.grid import Lattice, core_in_window, covers, tiles
from domainseg.tiling.stream import Mask, Spent, Tell, in_order

WINDOWS = "windows.json"
"""How an image was cut into the windows whose detections lie beside it."""


_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error)
"""What reading an archive that was cut or changed may raise."""


class FoundTensors(Protocol):
    """What a detector finds in one window, N objects."""

    @property
    def boxes(self) -> Tensor:
        """Float ``(N, 4)``, ``x0, y0, x1, y1``."""
        ...

    @property
    def classes(self) -> Tensor:
        """Integer ``(N,)``, from 0."""
        ...

    @property
    def scores(self) -> Tensor:
        """Float ``(N,)`` in [0, 1]."""
        ...

    @property
    def masks(self) -> Tensor:
        """Float ``(N, M, M)``, probabilities."""
        ...

    @property
    def proposals_cut(self) -> bool:
        """Whether a limit of proposals was met."""
        ...

    @property
    def detections_cut(self) -> bool:
        """Whether the limit of detections was met."""
        ...

    @property
    def regions(self) -> Tensor | None:
        """Uint8 ``(h, w)``, class + 1 of regions, 0 of other pixels; or None."""
        ...


@dataclass(frozen=True, slots=True)
class WindowDetections:
    """What a detector finds in one window.

    Attributes:
        detections: px of the window.
        proposals_cut: whether a limit of proposals was met.
        detections_cut: whether the limit of detections was.
        regions: uint8, class + 1 of the pixels of regions, 0 of others: of the whole window as
            it is found, of its core when it is put into the image; None of a model without.
        inspected: bool ``(h, w)``, where the part of the image that the window shows is looked
            at; None for all of it.
    """

    detections: Detections
    proposals_cut: bool
    detections_cut: bool
    regions: NDArray[np.uint8] | None = None
    inspected: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Detector:
    """A detecting network on one device in one precision.

    Attributes:
        detect: float windows ``(B, C, h, w)`` in [0, 1] to what is found in each.
        device: where the network lives.
        precision: ``bf16`` runs it under autocast; boxes and scores are float32 always.
        intensity: the range to apply to windows that come as they are stored; None for
            windows in [0, 1].
    """

    detect: Callable[[Tensor], Sequence[FoundTensors]]
    device: torch.device
    precision: Precision = "fp32"
    intensity: Range | None = None

    @torch.inference_mode()
    def __call__(self, windows: NDArray[Any]) -> list[WindowDetections]:
        """Return what is found in each of the windows ``(B, C, h, w)``."""
        images = torch.from_numpy(windows).to(self.device, torch.float32)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return [_as_arrays(one) for one in self.detect(images)]


def _as_arrays(found: FoundTensors) -> WindowDetections:
    x0, y0, x1, y1 = found.boxes.float().cpu().unbind(1)
    corners = torch.stack([torch.stack([y0, x0], 1), torch.stack([y1, x1], 1)], 1)
    grids = (found.masks.float() * GRID_TOP).round().to(torch.uint8)
    detections = Detections(
        corners.numpy(),
        grids.cpu().numpy(),
        found.classes.cpu().numpy().astype(np.int16),
        found.scores.float().cpu().numpy(),
    )
    regions = None if found.regions is None else found.regions.cpu().numpy()
    return WindowDetections(detections, found.proposals_cut, found.detections_cut, regions)


def read_padded(plane: Plane, tile: Tile, intensity: Range | None) -> NDArray[np.float32]:
    """Return a window ``(C, h, w)`` in [0, 1]; beyond the image it is 0.

    A mirrored border would show objects that are not there, and halves as wholes.
    """
    (top, left), (height, width) = tile.origin, tile.shape
    (y0, x0), (y1, x1) = shown(tile, (plane.shape[1], plane.shape[2]))
    window = np.zeros((plane.shape[0], height, width), np.float32)
    region = np.asarray(plane[:, y0:y1, x0:x1])
    if intensity is not None:
        region = apply_range(region, intensity, clip=UNIT)
    window[:, y0 - top : y1 - top, x0 - left : x1 - left] = region
    return window


def shown(tile: Tile, shape: tuple[int, int]) -> Box:
    """Return what a window shows of an image ``(H, W)``."""
    (top, left), (height, width) = tile.origin, tile.shape
    return (
        (max(top, 0), max(left, 0)),
        (min(top + height, shape[0]), min(left + width, shape[1])),
    )


def _put(
    found: WindowDetections, tile: Tile, shape: tuple[int, int], mask: Mask | None
) -> WindowDetections:
    """Return what was found in a window as a part of its image."""
    regions, seen = found.regions, None if mask is None else mask(shown(tile, shape))
    if regions is not None:
        regions = regions[core_in_window(tile)]
        if mask is not None:
            regions = regions * mask(tile.core)
    inspected = None if seen is None or seen.all() else seen
    return replace(found, regions=regions, inspected=inspected)


def windows_of(
    plane: Plane, group: Sequence[Tile], lattice: Lattice, intensity: Range | None
) -> NDArray[np.float32]:
    """Return the windows of one batch, filled up with its last one, ``(B, C, h, w)``."""
    windows = [read_padded(plane, tile, intensity) for tile in group]
    if not (len(group) == 1 and covers(group[0], plane)):
        windows += [windows[-1]] * (lattice.batch - len(windows))
    return np.stack(windows)


def detect_windows(
    detector: Detector,
    plane: Plane,
    lattice: Lattice,
    *,
    mask: Mask | None = None,
    offset: tuple[int, int] = (0, 0),
) -> Iterator[tuple[Tile, WindowDetections]]:
    """Yield what is found in each window of a plane ``(C, H, W)``, in raster order.

    ``mask`` tells where it is looked at, None for everywhere; ``offset`` moves the borders of
    the cores, as in `grid.tiles`.
    """
    shape = (plane.shape[1], plane.shape[2])
    grid = tiles(shape, lattice, offset=offset)
    for start in range(0, len(grid), lattice.batch):
        group = grid[start : start + lattice.batch]
        found = detector(windows_of(plane, group, lattice, detector.intensity))
        for tile, one in zip(group, found, strict=False):
            yield tile, _put(one, tile, shape, mask)


@dataclass(frozen=True, slots=True)
class DetectionStore:
    """What a detector found in the windows of one image, on disk, a file a window.

    Attributes:
        path: the folder.
        shape: ``(H, W)`` of the image on the model grid.
        lattice: how it is cut.
    """

    path: Path
    shape: tuple[int, int]
    lattice: Lattice

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The windows, in raster order."""
        return tiles(self.shape, self.lattice)

    def has(self, number: int) -> bool:
        """Tell whether window ``number`` is there, whole."""
        return self._file(number).is_file()

    def write(self, number: int, found: WindowDetections) -> None:
        """Write what was found in a window, at once or not at all.

        Raises:
            OutputError: when it cannot be written.
        """
        one, area = found.detections, found.inspected
        inspected = np.zeros((0, 0), bool) if area is None else area
        with atomic_path(self._file(number)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                boxes=one.boxes,
                grids=one.grids,
                classes=one.classes,
                scores=one.scores,
                cut=np.array([found.proposals_cut, found.detections_cut]),
                inspected=np.packbits(inspected, axis=1),
                inspected_width=np.int64(inspected.shape[1]),
                regions=np.zeros((0, 0), np.uint8) if found.regions is None else found.regions,
            )

    def read(self, number: int) -> WindowDetections:
        """Return what was found in a window.

        Raises:
            InputError: when its file is missing or damaged.
        """
        try:
            # From memory: numpy leaves a file open that is no archive.
            content = io.BytesIO(self._file(number).read_bytes())
            with np.load(content, allow_pickle=False) as stored:
                detections = Detections(
                    stored["boxes"], stored["grids"], stored["classes"], stored["scores"]
                )
                cut = stored["cut"].tolist()
                width = int(stored["inspected_width"])
                regions = stored["regions"]
                inspected = np.unpackbits(stored["inspected"], axis=1, count=width).view(bool)
        except _DAMAGE as error:
            raise InputError(
                sentence(
                    self._file(number),
                    found="no detections that can be read",
                    wanted="those of every window",
                    fix="predict the image again with --restart",
                )
            ) from error
        return WindowDetections(
            detections,
            bool(cut[0]),
            bool(cut[1]),
            regions if regions.size else None,
            inspected if inspected.size else None,
        )

    def windows(self) -> Iterator[tuple[Tile, WindowDetections]]:
        """Yield what was found in each window, in raster order."""
        for number, tile in enumerate(self.tiles):
            yield tile, self.read(number)

    def missing(self) -> Tile | None:
        """Return the first window that is not there, None where all are."""
        return next((t for i, t in enumerate(self.tiles) if not self.has(i)), None)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.npz"


def open_detections(path: Path, shape: tuple[int, int], lattice: Lattice) -> DetectionStore:
    """Return the store of an image ``(H, W)`` on the model grid at ``path``, with what it holds.

    A store of another shape or of other windows is replaced.

    Raises:
        OutputError: when it cannot be written.
    """
    wanted = DetectionStore(path, shape, lattice)
    try:
        if existing_detections(path) == wanted:
            return wanted
    except InputError:
        pass
    with writing_below(path):
        shutil.rmtree(path, ignore_errors=True)
    make_folder(path)
    told = {"shape": list(shape), "lattice": asdict(lattice)}
    atomic_text(path / WINDOWS, json.dumps(told, indent=2) + "\n")
    return wanted


def existing_detections(path: Path) -> DetectionStore:
    """Return the store at ``path``.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    try:
        told = json.loads((path / WINDOWS).read_text(encoding="utf-8"))
        height, width = told["shape"]
        return DetectionStore(path, (int(height), int(width)), Lattice(**told["lattice"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            sentence(
                path,
                found="no detections",
                wanted="those of a prediction",
                fix="predict the image again with --restart and without --drop-maps",
            )
        ) from error


def stream_detections(
    detector: Detector,
    plane: Plane,
    store: DetectionStore,
    lattice: Lattice,
    *,
    mask: Mask | None = None,
    queue: int = 2,
    tell: Tell = lambda _done, _total: None,
) -> Spent:
    """Fill the store with what is found in a plane ``(C, H, W)``; windows that are there stay.

    A window that shows no pixel of ``mask`` has no objects. Batches are read ahead, up to
    ``queue`` of them; no result depends on it.

    Raises:
        InputError: a region of the plane cannot be read.
        OutputError: the store cannot be written.
    """
    begun = time.monotonic()
    grid, batch, shape = store.tiles, lattice.batch, (plane.shape[1], plane.shape[2])
    kept = sum(store.has(i) for i in range(len(grid)))
    groups = [range(i, min(i + batch, len(grid))) for i in range(0, len(grid), batch)]
    todo = [group for group in groups if not all(store.has(i) for i in group)]
    done, skipped, windows, network_s = kept, 0, 0, 0.0
    tell(done, len(grid))

    def blind(number: int) -> bool:
        """Tell whether nothing of a window is looked at: an object of its own may lie in all."""
        return mask is not None and not mask(shown(grid[number], shape)).any()

    def read(group: range) -> tuple[range, NDArray[np.float32] | None, list[bool]]:
        unseen = [blind(i) for i in group]
        if all(unseen):
            return group, None, unseen
        stack = windows_of(plane, [grid[i] for i in group], lattice, detector.intensity)
        return group, stack, unseen

    with ThreadPoolExecutor(1) as reader:
        for group, stack, unseen in in_order(reader, read, todo, ahead=queue):
            found = [_NOTHING] * len(group)
            if stack is not None:
                started = time.monotonic()
                found = detector(stack)
                network_s += time.monotonic() - started
                windows += len(stack)
            skipped += sum(unseen)
            for number, one, nothing in zip(group, found, unseen, strict=False):
                if not store.has(number):
                    seen = _NOTHING if nothing else _put(one, grid[number], shape, mask)
                    store.write(number, seen)
                    done += 1
            tell(done, len(grid))
    return Spent(time.monotonic() - begun, network_s, windows, skipped, kept)


_NOTHING = WindowDetections(Detections.none(1), False, False)
