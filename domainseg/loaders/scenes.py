"""Made-up micrographs with exact truth, as a data set and as files.

The truth is exact by construction: the pixel of a contact belongs to the cell it
lies deepest in. Where a neighbour cuts off the rim of a cell, a few pixels can
stay beyond it: one cell in some 4,000 with the default look is in two pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from domainseg.errors import InputError, RecipeError, sentence
from domainseg.loaders.made_up_files import (
    INDEX,
    begin_data_set,
    tile_regions,
    write_table,
    write_tiles,
)
from domainseg.loaders.scene_plane import Look, Scene
from domainseg.loaders.scene_stains import CHANNELS, Stain
from domainseg.records import Array, Entry, Instances, Sample

IN_MEMORY_PX = 1 << 26
"""Largest scene a data set loads whole, in px: about 0.5 GB with its labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes(Look):
    """Made-up scenes in three splits; the column ``split`` names them.

    A scene is a function of (seed, split, number), so more scenes in one split
    change no other, and no scene stands in two.

    Attributes:
        name: of the layout.
        train: number of training scenes.
        val: number of validation scenes.
        test: number of test scenes.
        height: of each scene, px.
        width: of each scene, px.
        stains: taken in turn, scene after scene; the stain is the entry's kind.
        seed: any integer.
        class_name: of the only object class.
    """

    name: Literal["scenes"] = "scenes"
    train: int = 64
    val: int = 16
    test: int = 16
    height: int = 512
    width: int = 512
    stains: tuple[Stain, ...] = ("fluorescence",)
    seed: int = 0
    class_name: str = "cell"

    def __post_init__(self) -> None:
        Look.__post_init__(self)
        for name, low in (("train", 0), ("val", 0), ("test", 0), ("height", 1), ("width", 1)):
            if (value := getattr(self, name)) < low:
                raise RecipeError(
                    sentence(
                        name, found=f"{value}", wanted=f"an integer from {low} up", fix="change it"
                    )
                )
        if not self.stains or (unknown := sorted(set(self.stains) - set(CHANNELS))):
            raise RecipeError(
                sentence(
                    "stains",
                    found=", ".join(map(repr, unknown)) if self.stains else "an empty list",
                    wanted=f"some of {', '.join(CHANNELS)}",
                    fix="change it",
                )
            )

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> SceneSet:
        """Return the data set; nothing is read, so ``root`` only has its place in the protocol.

        Raises:
            RecipeError: when ``select`` asks for part of a stack, which a scene is not.
        """
        if select:
            raise RecipeError(
                sentence(
                    "image.select",
                    found=f"{dict(select)!r} for made-up scenes in {root}",
                    wanted="nothing, as a scene is not a stack",
                    fix="remove it",
                )
            )
        return SceneSet(self)

    def look(self) -> Look:
        """Return the fields that the pixels depend on."""
        return Look(**{field.name: getattr(self, field.name) for field in fields(Look)})

    def scene(self, entry: Entry) -> Scene:
        """Return the lazy scene of an entry, of any size."""
        text = f"{self.seed}:{entry.id}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        stain = next(name for name in CHANNELS if name == entry.kind)
        return Scene(self.look(), seed, (self.height, self.width), stain)


@dataclass(frozen=True, slots=True)
class SceneSet:
    """The scenes that ``Scenes`` names; each is computed when it is loaded."""

    options: Scenes

    @property
    def classes(self) -> tuple[str, ...]:
        """The one class name."""
        return (self.options.class_name,)

    def entries(self) -> tuple[Entry, ...]:
        """Return every scene, sorted by id, with its split and stain."""
        found = []
        for split in ("test", "train", "val"):
            for number in range(getattr(self.options, split)):
                name = f"{split}-{number:05d}"
                stain = self.options.stains[number % len(self.options.stains)]
                columns = {"split": split, "kind": stain}
                found.append(Entry(name, group=name, kind=stain, columns=columns))
        return tuple(found)

    def load(self, entry: Entry) -> Sample:
        """Return pixels and truth of a scene in memory.

        Raises:
            InputError: when the scene has more than ``IN_MEMORY_PX`` pixels; slice
                ``Scenes.scene(entry)``, or write it to a file, instead.
        """
        scene = self.options.scene(entry)
        height, width = scene.size
        if height * width > IN_MEMORY_PX:
            raise InputError(
                sentence(
                    f"scene {entry.id}",
                    found=f"{height} x {width} px",
                    wanted=f"at most {IN_MEMORY_PX} px to load it whole",
                    fix="make the scenes smaller or write them to files",
                )
            )
        region = scene.region(0, height, 0, width)
        return Sample(
            id=entry.id,
            image=region.image,
            channels=scene.channels,
            spacing_um=scene.spacing_um,
            truth=Instances.from_label_map(region.labels),
            group=entry.group,
            kind=entry.kind,
        )


def write_scenes(out: Path, options: Scenes) -> tuple[Path, ...]:
    """Write every scene to ``images/`` and ``labels/`` and return the images' paths.

    The layout is the mask folder's: tiled TIFF with the pixel size, labels of the
    same name, and ``index.csv`` with the columns split, image, kind, height, width.
    A scene is written tile by tile, so its size costs disk, not memory.

    Raises:
        OutputError: when ``out`` exists and is not an empty folder, or cannot be written.
    """
    begin_data_set(out)
    entries = SceneSet(options).entries()
    written = []
    for entry in entries:
        scene = options.scene(entry)
        written.append(out / "images" / f"{entry.id}.tif")
        write_scene(scene, image=written[-1], labels=out / "labels" / f"{entry.id}.tif")
    # Last, so that a run that was cut short leaves no index that looks whole.
    rows = [(e.columns["split"], e.id, e.kind, options.height, options.width) for e in entries]
    write_table(out / "index.csv", INDEX, rows)
    return tuple(written)


def write_scene(scene: Scene, *, image: Path, labels: Path) -> None:
    """Write the pixels and the labels of one scene as tiled TIFF, without holding either whole.

    Raises:
        OutputError: when a file cannot be written.
    """
    colour = len(scene.channels) == 3
    write_tiles(
        image,
        _image_tiles(scene),
        shape=(*scene.size, 3) if colour else scene.size,
        dtype=scene.dtype,
        spacing_um=scene.spacing_um,
    )
    write_tiles(
        labels,
        _label_tiles(scene),
        shape=scene.size,
        dtype=scene.label_dtype,
        spacing_um=scene.spacing_um,
    )


def _image_tiles(scene: Scene) -> Iterator[Array]:
    for y0, y1, x0, x1 in tile_regions(scene.size):
        tile = scene[:, y0:y1, x0:x1]
        yield tile[0] if len(tile) == 1 else np.ascontiguousarray(np.moveaxis(tile, 0, -1))


def _label_tiles(scene: Scene) -> Iterator[Array]:
    for region in tile_regions(scene.size):
        yield scene.labels(*region)
