"""From the objects of an image to everything a run leaves: labels, table, outlines, overlay.

In blocks, in the memory of a few of them, whatever the size of the image.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from domainseg.atomic import atomic_path
from domainseg.errors import InputError
from domainseg.images import Image, write_labels
from domainseg.images.label_store import (
    CHUNK,
    LabelPlane,
    LabelStore,
    Look,
    Rgba,
    label_store,
    open_label_plane,
    plane_names,
)
from domainseg.images.levels import shrunk
from domainseg.instances.colours import class_colour, object_colour
from domainseg.instances.harvest import Harvest, ObjectFiles, Scene, Sheaf, reap
from domainseg.instances.measure import intensity_quanta
from domainseg.instances.overlay import Canvas
from domainseg.instances.tile_graph import Box
from domainseg.records import Array, Plane, Sample
from domainseg.run_files import COCO, LABEL_STORE, LABELS, OVERLAY
from domainseg.tiling.decoding import BlockWork, block_boxes, spread, window_of
from domainseg.tiling.stream import in_order

SCRATCH = ".scratch"
LABELS_PX = 1 << 26
"""Images of more pixels have no ``labels.tif``, which is written from memory."""
BESIDE_PX = 1 << 24
"""Of larger images it is written when all blocks were looked at: both want memory."""
PNG_LEVEL = 1
"""Of zlib: a third of the time of its default, a tenth larger."""
COLOURED = 1 << 16
"""With more objects no colours are listed: viewers choose their own."""

Tell = Callable[[str, int, int], None]
"""Called with the stage, blocks done and blocks in all."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was written.

    Attributes:
        objects: rows of the table.
        links: objects that there are fewer because some were linked.
        per_class: objects of each class name.
        warnings: what is missing and why, one sentence each.
        seconds: time of each stage.
    """

    objects: int
    links: int
    per_class: Mapping[str, int]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]


class ObjectPlanes(Protocol):
    """The objects of an image in layers of labels, which are painted on demand."""

    def __len__(self) -> int: ...

    @property
    def layers(self) -> int:
        """Number of layers; labels count through all of them."""
        ...

    @property
    def links(self) -> int:
        """Objects that there are fewer because some were linked."""
        ...

    def first(self, layer: int) -> int:
        """Return the smallest label of a layer."""
        ...

    def classes_of(self, layer: int) -> NDArray[np.int16]:
        """Return the class of each object of a layer, int16 ``(n,)``."""
        ...

    def scores_of(self, layer: int) -> NDArray[np.float32]:
        """Return the score of each object of a layer, float32 ``(n,)``."""
        ...

    def boxes_of(self, layer: int) -> NDArray[np.int32]:
        """Return a box around each object of a layer, int32 ``(n, 2, 2)``, px of the image."""
        ...

    def labels(self, box: Box) -> tuple[NDArray[np.int32], ...]:
        """Return the labels of each layer in a box of the image, int32 ``(h, w)``."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    """One image whose objects are known."""

    folder: Path
    sample: Sample
    decoded: ObjectPlanes
    class_names: tuple[str, ...]
    sha256: str
    work: BlockWork

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.sample.image.shape[1]), int(self.sample.image.shape[2]))

    @property
    def layers(self) -> int:
        return self.decoded.layers

    def plane_name(self, layer: int) -> str:
        """Return the name of a layer's labels in the label store."""
        return plane_names(self.layers)[layer]

    @property
    def blocks(self) -> list[Box]:
        # Two threads may not write into one chunk of the labels.
        return block_boxes(self.shape, -(-self.work.block_px // CHUNK) * CHUNK)


def write_results(
    folder: Path,
    sample: Sample,
    decoding: AbstractContextManager[ObjectPlanes],
    *,
    class_names: tuple[str, ...],
    sha256: str,
    work: BlockWork,
    tell: Tell = lambda _stage, _done, _total: None,
) -> Found:
    """Write labels, table, outlines and overlay of the objects into ``folder``.

    ``decoding`` yields the objects while they can be read; entering it is what finds them.

    ``labels.ome.zarr`` always, ``labels.tif`` of images up to LABELS_PX. Where a head decodes
    several layers both show the highest label of each pixel, and every layer stands in full
    in ``labels.ome.zarr/labels/layer0`` ... and ``labels-layer0.tif``, numbered as in the
    column ``layer``.

    Raises:
        InputError: the maps or the image cannot be read.
        OutputError: a file cannot be written.
    """
    seconds: dict[str, float] = {}
    scratch = folder / SCRATCH
    try:
        # Pictures are written beside the objects; what is left of them then is pictures_s.
        with ThreadPoolExecutor(2) as beside:
            pictures: list[Future[None]] = []
            with _timed(seconds, "decode_s"), decoding as decoded:
                job = _Job(folder, sample, decoded, class_names, sha256, work)
                with _timed(seconds, "labels_s"):
                    _write_label_store(job, tell)
                if job.shape[0] * job.shape[1] <= BESIDE_PX:
                    pictures.append(beside.submit(_write_plain, job))
                canvas = _canvas(sample)

                def draw() -> None:
                    pictures.append(beside.submit(_write_overlay, job, canvas))
                    if job.shape[0] * job.shape[1] > BESIDE_PX:
                        pictures.append(beside.submit(_write_plain, job))

                with _timed(seconds, "measure_s"):
                    per_class, coco = _write_objects(job, canvas, scratch, draw, tell)
            tell("overlay", 0, 1)
            with _timed(seconds, "pictures_s"):
                for picture in pictures:
                    picture.result()
            tell("overlay", 1, 1)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds["decode_s"] -= seconds["labels_s"] + seconds["measure_s"]
    warnings = () if coco else (f"no {COCO}: its masks cannot hold an image of 2^32 pixels",)
    return Found(sum(per_class.values()), decoded.links, per_class, warnings, seconds)


def _write_label_store(job: _Job, tell: Tell) -> None:
    look = Look(job.sample.spacing_um, colors=_colours(job))
    largest = len(job.decoded)
    target = job.folder / LABEL_STORE
    blocks = job.blocks

    with (
        label_store(
            target, shape=job.shape, largest=largest, look=look, layers=job.layers
        ) as labels,
        ThreadPoolExecutor(job.work.workers) as pool,
    ):

        def paint(box: Box, labels: LabelStore = labels) -> None:
            labels.write(box, job.decoded.labels(box))

        for done, _ in enumerate(in_order(pool, paint, blocks, ahead=job.work.workers), start=1):
            tell("labels", done, len(blocks))
        labels.build_pyramids(spread(pool, ahead=2 * job.work.workers))


def _colours(job: _Job) -> dict[int, Rgba] | None:
    """Return a colour per label: of its class where there are several, else its own."""
    if len(job.decoded) > COLOURED:
        return None
    many = len(job.class_names) > 1
    colours = {}
    for layer in range(job.layers):
        kinds, first = job.decoded.classes_of(layer).tolist(), job.decoded.first(layer)
        for label, kind in enumerate(kinds, start=first):
            red, green, blue = class_colour(kind) if many else object_colour(label)
            colours[label] = (int(red), int(green), int(blue), 255)
    return colours


def _canvas(sample: Sample) -> Canvas:
    """Return the picture to be drawn: of a pyramid its pixels come from a coarse level."""
    channels, height, width = (int(n) for n in sample.image.shape)
    canvas = Canvas((channels, height, width))
    if isinstance(sample.image, Image) and len(sample.image.levels) > 1 and canvas.factor > 1:
        # A level that nothing else reads may be damaged: then the picture is made without it.
        with suppress(InputError):
            return Canvas((channels, height, width), pixels=shrunk(sample.image, canvas.size))
    return canvas


@dataclass(frozen=True, slots=True)
class _Watched:
    """An image that is averaged into a picture as it is read, a block at a time."""

    plane: Plane
    canvas: Canvas

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plane.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.plane.dtype

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Array:
        channels, rows, columns = key
        block = np.asarray(self.plane[key])
        box = ((rows.start, columns.start), (rows.stop, columns.stop))
        self.canvas.average(block, box, first=channels.start)
        return block

    def read(self, box: Box) -> None:
        """Read a block for the picture alone, a channel at a time."""
        (y0, x0), (y1, x1) = box
        for channel in range(int(self.plane.shape[0])):
            self[channel : channel + 1, y0:y1, x0:x1]


@dataclass(frozen=True, slots=True)
class _LayerOfObjects:
    """One layer whose labels are on disk.

    Attributes:
        canvas: what its objects and the image are drawn into, None where another layer is.
    """

    scene: Scene
    plane: LabelPlane
    image: Plane
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    boxes: NDArray[np.int32]
    first: int
    canvas: Canvas | None

    def reaped(self, box: Box) -> Sheaf:
        """Return what a block tells of its objects; the picture gets its part of it."""
        (y0, x0), (y1, x1) = window_of(box, self.scene.shape)
        window = np.ascontiguousarray(self.plane[y0:y1, x0:x1])
        image, canvas = self.image, self.canvas
        if canvas is not None:
            canvas.outline(window, box)
            if not canvas.averaged:
                image = _Watched(image, canvas)
                if not window.any():
                    image.read(box)  # nothing will be measured here
        return reap(
            window,
            core=box,
            scene=self.scene,
            image=image,
            boxes=self.boxes,
            classes=self.classes,
            scores=self.scores,
            first=self.first,
        )

    def harvest(self, files: ObjectFiles, scratch: Path) -> Harvest:
        """Return what puts the parts of its objects together."""
        return Harvest(
            files,
            scene=self.scene,
            boxes=self.boxes,
            classes=self.classes,
            scores=self.scores,
            scratch=scratch,
            first=self.first,
        )


def _write_objects(
    job: _Job, canvas: Canvas, scratch: Path, draw: Callable[[], None], tell: Tell
) -> tuple[dict[str, int], bool]:
    """Write table and outlines; return the objects of each class, and whether there is COCO.

    Where there is one layer, image and outlines are drawn on the way. ``draw`` is called when
    the last block was looked at.
    """
    quanta = intensity_quanta(job.sample.image, where=job.sample.id)
    drawn = canvas if job.layers == 1 else None
    layers = [_layer(job, number, quanta, drawn) for number in range(job.layers)]
    blocks, ahead = job.blocks, job.work.workers
    with (
        ObjectFiles(job.folder, scene=layers[0].scene) as files,
        ThreadPoolExecutor(job.work.workers) as pool,
    ):
        for number, layer in enumerate(layers):
            harvest = layer.harvest(files, scratch / f"layer{number}")
            sheaves = in_order(pool, layer.reaped, blocks, ahead=ahead)
            for done, sheaf in enumerate(sheaves, start=1 + number * len(blocks)):
                harvest.add(sheaf)
                tell("objects", done, job.layers * len(blocks))
            if number == len(layers) - 1:
                draw()
            harvest.finish()
    return dict(files.per_class), files.coco


def _layer(
    job: _Job, number: int, quanta: NDArray[np.float64], canvas: Canvas | None
) -> _LayerOfObjects:
    sample, decoded = job.sample, job.decoded
    scene = Scene(
        shape=job.shape,
        class_names=job.class_names,
        channels=tuple(sample.channels),
        quanta=quanta,
        spacing_um=sample.spacing_um,
        image_id=sample.id,
        image_sha256=job.sha256,
        layer=number,
    )
    return _LayerOfObjects(
        scene,
        open_label_plane(job.folder / LABEL_STORE, job.plane_name(number)),
        sample.image,
        decoded.classes_of(number),
        decoded.scores_of(number),
        decoded.boxes_of(number),
        decoded.first(number),
        canvas,
    )


def _write_plain(job: _Job) -> None:
    if job.shape[0] * job.shape[1] > LABELS_PX:
        return
    spacing = job.sample.spacing_um
    target = job.folder / LABEL_STORE
    flat = np.asarray(open_label_plane(target)[:])
    write_labels(job.folder / LABELS, flat, spacing_um=spacing)
    for layer in range(job.layers if job.layers > 1 else 0):
        one = np.asarray(open_label_plane(target, f"layer{layer}")[:])
        write_labels(job.folder / f"labels-layer{layer}.tif", one, spacing_um=spacing)


def _write_overlay(job: _Job, canvas: Canvas) -> None:
    if job.layers > 1:
        # Its layers were measured one by one; the picture shows the highest label of each pixel.
        flat, watched = (
            open_label_plane(job.folder / LABEL_STORE),
            _Watched(job.sample.image, canvas),
        )
        for box in job.blocks:
            (y0, x0), (y1, x1) = window_of(box, job.shape)
            canvas.outline(np.asarray(flat[y0:y1, x0:x1]), box)
            if not canvas.averaged:
                watched.read(box)
    with atomic_path(job.folder / OVERLAY) as temporary:
        PillowImage.fromarray(canvas.picture()).save(temporary, compress_level=PNG_LEVEL)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begun
