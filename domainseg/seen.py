"""What a network sees of an image, by the kind of its head, and the objects that follow from it.

Two kinds: maps, which are decoded, and detections in windows, which are gathered. Both are kept
in the run's folder, so that objects can be made again with other rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from domainseg.errors import InputError, sentence
from domainseg.gathering import Gathered, gather, object_rules
from domainseg.images.regions import Inspected
from domainseg.images.resample import Grid
from domainseg.instances.layering import Layered
from domainseg.model_plane import ModelPlane
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.panoptic import merged, write_merged
from domainseg.recipe import Recipe
from domainseg.records import Sample
from domainseg.results import SCRATCH, Found, write_results
from domainseg.run_files import PANOPTIC
from domainseg.run_folder import DETECTIONS, MAPS
from domainseg.segmenter import Segmenter, decode_options
from domainseg.tiling.decoding import BlockWork, decoding
from domainseg.tiling.detecting import existing_detections, open_detections, stream_detections
from domainseg.tiling.grid import core_shape
from domainseg.tiling.plan import GPU_QUEUES, QUEUES, WorkPlan, plan_work
from domainseg.tiling.store import existing_store, open_store
from domainseg.tiling.stream import Spent, stream_maps

Tell = Callable[[str, int, int], None]
"""Called with the stage of a run, parts done and parts in all."""


@dataclass(frozen=True, slots=True)
class Looking:
    """How a network looks at an image.

    Attributes:
        segmenter: the network.
        area: what of the image is inspected, None for all of it.
        max_memory_mb: what the process may use, None for no bound.
        network_mb: peak memory of the process with the network at work.
    """

    segmenter: Segmenter
    area: Inspected | None = None
    max_memory_mb: float | None = None
    network_mb: float = 0.0

    def plan(self, plane: ModelPlane, *, layers: int) -> WorkPlan:
        """Return how the work is cut into blocks and queues."""
        return plan_work(
            self.segmenter.lattice,
            layers=layers,
            channels=plane.shape[0],
            shape=(plane.shape[1], plane.shape[2]),
            max_memory_mb=self.max_memory_mb,
            threads=torch.get_num_threads(),
            network_mb=self.network_mb,
            queues=QUEUES if self.on_processor else GPU_QUEUES,
        )

    @property
    def on_processor(self) -> bool:
        """Whether the network runs on the CPU."""
        return self.segmenter.engine.device.type == "cpu"


@dataclass(frozen=True, slots=True)
class Making:
    """What objects are made by, of what the network saw.

    Attributes:
        sample: the image, of which intensities are measured.
        sha256: of it.
        recipe: with the rules.
        classes: the model's.
        scale: pixels of the model grid a pixel of the image, ``(y, x)``.
        work: how the decoding is cut.
    """

    sample: Sample
    sha256: str
    recipe: Recipe
    classes: tuple[str, ...]
    scale: tuple[float, float]
    work: BlockWork

    def grid(self, shape: tuple[int, int]) -> Grid:
        """Return the grid of maps of a shape ``(H, W)``."""
        _, height, width = self.sample.image.shape
        return Grid(self.scale, shape, (height, width))


@dataclass(frozen=True, slots=True)
class Made:
    """The objects, and what a run's record and its warnings say beside."""

    found: Found
    record: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Seen(Protocol):
    """One kind of what a network sees."""

    @property
    def name(self) -> str:
        """Name of it in a run's folder."""
        ...

    def look(
        self, folder: Path, looking: Looking, plane: ModelPlane, tell: Tell
    ) -> tuple[Spent, BlockWork]:
        """Keep in ``folder`` what the network sees; return what that cost, and how to go on.

        Raises:
            InputError: the image cannot be read.
            OutputError: a file cannot be written.
        """
        ...

    def require_whole(self, folder: Path) -> None:
        """Raise InputError where the network did not look at all of the image."""
        ...

    def make(self, folder: Path, making: Making, tell: Tell) -> Made:
        """Write the objects of what lies in ``folder``.

        Raises:
            RecipeError: a rule names a class that there is not.
            InputError: what the network saw is damaged, or the image cannot be read.
            OutputError: a file cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeenMaps:
    """Maps, decoded."""

    name: ClassVar[str] = MAPS

    def look(
        self, folder: Path, looking: Looking, plane: ModelPlane, tell: Tell
    ) -> tuple[Spent, BlockWork]:
        """Keep the maps of an image on disk."""
        made, lattice = looking.segmenter.make_maps, looking.segmenter.lattice
        plan = looking.plan(plane, layers=made.layers)
        shape = plane.grid.model_shape
        core = core_shape(shape, lattice)
        stored = plane.stored
        spent = stream_maps(
            made if stored is None else replace(made, intensity=plane.intensity),
            plane if stored is None else stored,
            open_store(folder / self.name, layers=made.layers, shape=shape, core=core),
            lattice,
            mask=None if looking.area is None else partial(looking.area.on_grid, plane.grid),
            queue=plan.queue,
            readers=1 if looking.on_processor else plan.queue,
            tell=partial(tell, "tiles"),
        )
        return spent, BlockWork(plan.block_px, plan.workers)

    def require_whole(self, folder: Path) -> None:
        """Raise InputError where maps were dropped, or those of a tile are missing."""
        store = existing_store(folder / self.name)
        if (missing := store.missing()) is not None:
            raise _partly(store.path, "maps of the tile", missing)

    def make(self, folder: Path, making: Making, tell: Tell) -> Made:
        """Write the objects that the maps hold."""
        store = existing_store(folder / self.name)
        decoded = decoding(
            store,
            decode_options(making.recipe, making.classes),
            grid=making.grid(store.shape),
            scratch=folder / SCRATCH / "decode",
            work=making.work,
            tell=partial(tell, "decoding"),
        )
        return Made(
            write_results(
                folder,
                making.sample,
                decoded,
                class_names=making.classes,
                sha256=making.sha256,
                work=making.work,
                tell=tell,
            )
        )


@dataclass(frozen=True, slots=True)
class SeenDetections:
    """Detections in windows, gathered."""

    name: ClassVar[str] = DETECTIONS

    def look(
        self, folder: Path, looking: Looking, plane: ModelPlane, tell: Tell
    ) -> tuple[Spent, BlockWork]:
        """Keep the detections of every window of an image on disk."""
        engine, lattice = looking.segmenter.detector, looking.segmenter.lattice
        assert engine is not None
        plan, stored = looking.plan(plane, layers=1), plane.stored
        spent = stream_detections(
            engine if stored is None else replace(engine, intensity=plane.intensity),
            plane if stored is None else stored,
            open_detections(folder / self.name, plane.grid.model_shape, lattice),
            lattice,
            mask=None if looking.area is None else partial(looking.area.on_grid, plane.grid),
            queue=plan.queue,
            tell=partial(tell, "tiles"),
        )
        return spent, BlockWork(plan.block_px, plan.workers)

    def require_whole(self, folder: Path) -> None:
        """Raise InputError where detections were dropped, or those of a window are missing."""
        store = existing_detections(folder / self.name)
        if (missing := store.missing()) is not None:
            raise _partly(store.path, "detections of the window", missing.core[0])

    def make(self, folder: Path, making: Making, tell: Tell) -> Made:
        """Write the objects that the windows' detections are parts of."""
        store = existing_detections(folder / self.name)
        rules = object_rules(making.recipe, making.classes)
        grid, windows = making.grid(store.shape), len(store.tiles)
        held: list[Gathered] = []

        @contextmanager
        def gathering() -> Iterator[Layered]:
            held.append(
                gather(
                    store.windows(),
                    rules,
                    grid=grid,
                    tell=lambda done: tell("gathering", done, windows),
                )
            )
            yield held[0].objects

        found = write_results(
            folder,
            making.sample,
            gathering(),
            class_names=making.classes,
            sha256=making.sha256,
            work=making.work,
            tell=tell,
        )
        warnings = held[0].warnings()
        if isinstance(making.recipe.head, PanopticHead):
            segments = merged(held[0], making.recipe.head)
            if segments is not None:
                write_merged(folder, making.sample.id, segments, making.classes, making.recipe.head)
            else:
                said = "nothing of the image was looked at, or it has too many pixels to be held"
                warnings += (f"no {PANOPTIC}: {said}",)
        return Made(found, held[0].to_record(), warnings)


def seen_by(recipe: Recipe) -> Seen:
    """Return what the network of a recipe sees."""
    return SeenMaps() if recipe.head.family == "maps" else SeenDetections()


def _partly(path: Path, parts: str, missing: tuple[int, int]) -> InputError:
    return InputError(
        sentence(
            path,
            found=f"no {parts} at y {missing[0]}, x {missing[1]}",
            wanted="those of all of the image",
            fix="predict the image again with --restart and without --drop-maps",
        )
    )
