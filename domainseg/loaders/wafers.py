"""Made-up wafer inspection images with exact truth, as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from domainseg.errors import InputError, RecipeError, sentence
from domainseg.loaders.wafer_look import WaferLook
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.records import Entry, Instances, Sample

Place = Literal["anywhere", "die_edge", "wafer_edge"]
PLACES: tuple[Place, ...] = get_args(Place)
IN_MEMORY_PX = 1 << 26
"""Largest image a data set loads whole, in px: about 0.4 GB with its labels."""
MARGIN = 1.02
"""Side of the image of a whole wafer in diameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wafers(WaferLook):
    """Made-up wafers in three splits; the column ``split`` names them.

    An image is a function of (seed, split, number): its place, defects, grain and noise
    stand in no other, and more images in one split change no other.

    Attributes:
        name: of the layout.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        view: ``field`` for windows of a wafer, ``wafer`` for whole wafers.
        height: of a field, px; that of a whole wafer follows from diameter and pixel size.
        width: of a field, px.
        field_at: where on the wafer the middle of a field lies; each takes one of these.
        defects: least and greatest number in a field.
        density_per_cm2: of the defects on a whole wafer, in the mean.
        good: share of the images without any defect.
        circuits: number of different dies in a split; each image takes one, and no die of
            one split is in another.
        levels: contrast to noise of all defects of an image, taken in turn, image after
            image; the level is the entry's kind. Empty: each defect has its own, from
            ``contrast_to_noise``.
        seed: any integer.
    """

    name: Literal["wafers"] = "wafers"
    train: int = 64
    val: int = 16
    test: int = 16
    view: Literal["field", "wafer"] = "field"
    height: int = 512
    width: int = 512
    field_at: tuple[Place, ...] = ("anywhere", "anywhere", "anywhere", "die_edge", "wafer_edge")
    defects: tuple[int, int] = (1, 6)
    density_per_cm2: float = 2.0
    good: float = 0.2
    circuits: int = 4
    levels: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        WaferLook.__post_init__(self)
        least = {"train": 0, "val": 0, "test": 0, "height": 1, "width": 1, "circuits": 1}
        for name, low in least.items():
            _require(name, getattr(self, name) >= low, f"an integer from {low} up", self)
        low, high = self.defects
        _require("defects", 0 <= low <= high, "two integers from 0 up, the least first", self)
        _require("good", 0 <= self.good <= 1, "a number from 0 to 1", self)
        positive = 0 <= self.density_per_cm2 <= 1e4
        _require("density_per_cm2", positive, "a number from 0 to 10000", self)
        _require("levels", all(level > 0 for level in self.levels), "numbers above 0", self)
        known = self.field_at and not set(self.field_at) - set(PLACES)
        _require("field_at", bool(known), f"some of {', '.join(PLACES)}", self)

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> WaferSet:
        """Return the data set; nothing is read, so ``root`` only has its place in the protocol.

        Raises:
            RecipeError: when ``select`` asks for part of a stack, which a wafer is not.
        """
        if select:
            raise RecipeError(
                sentence(
                    "image.select",
                    found=f"{dict(select)!r} for made-up wafers in {root}",
                    wanted="nothing, as a wafer is not a stack",
                    fix="remove it",
                )
            )
        return WaferSet(self)

    def look(self) -> WaferLook:
        """Return the fields that the pixels depend on."""
        return WaferLook(**{field.name: getattr(self, field.name) for field in fields(WaferLook)})

    def entry(self, split: str, number: int) -> Entry:
        """Return what is known of an image before it is computed."""
        name = f"{split}-{number:05d}"
        level = self._level(number)
        kind = None if level is None else f"cnr {level:g}"
        tags = ("good",) if self._is_good(name) else ()
        columns = {"split": split} | ({} if kind is None else {"kind": kind})
        return Entry(name, group=name, kind=kind, tags=tags, columns=columns)

    def plane(self, entry: Entry) -> WaferPlane:
        """Return the lazy plane of an entry, of any size."""
        rng = np.random.default_rng(self._hash(entry.id, "place"))
        split = entry.id.partition("-")[0]
        circuit = self._hash(f"circuit {split} {rng.integers(self.circuits)}", "pattern")
        level = self._level(int(entry.id.rpartition("-")[2]))
        if self.view == "wafer":
            side = 2 * int(np.ceil(500.0 * MARGIN * self.wafer_diameter_mm / self.spacing_um))
            size, center = (side, side), (0.5 * side - 0.5, 0.5 * side - 0.5)
            radius_cm = 0.05 * self.wafer_diameter_mm - 0.1 * self.edge_exclusion_mm
            count = int(rng.poisson(self.density_per_cm2 * np.pi * radius_cm**2))
        else:
            size, center = (self.height, self.width), self._field(rng)
            count = int(rng.integers(self.defects[0], self.defects[1] + 1))
        return WaferPlane(
            self.look(),
            self._hash(entry.id, "image"),
            size,
            center,
            circuit,
            0 if self._is_good(entry.id) else count,
            None if level is None else (level, level),
        )

    def _field(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return ``(y, x)`` px of the wafer's centre in a field at a place drawn for it."""
        at = self.field_at[int(rng.integers(len(self.field_at)))]
        size = np.array([self.height, self.width]) * self.spacing_um
        radius = 500.0 * self.wafer_diameter_mm
        far, angle = radius * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        shift = rng.uniform(-0.3, 0.3)
        if at == "wafer_edge":
            film = radius - 1000.0 * self.edge_exclusion_mm
            far = (film if rng.random() < 0.5 else radius) + shift * size.min()
        where = far * np.array([np.sin(angle), np.cos(angle)])
        if at == "die_edge":
            axis = int(rng.integers(2))
            pitch = self.die_um[axis]
            # Borders of dies are half a pitch from the wafer's centre, and whole pitches on.
            border = (np.floor(where[axis] / pitch) + 0.5) * pitch
            where[axis] = border + shift * size[axis]
        y, x = (where / self.spacing_um).tolist()
        return 0.5 * self.height - 0.5 + y, 0.5 * self.width - 0.5 - x

    def _level(self, number: int) -> float | None:
        return self.levels[number % len(self.levels)] if self.levels else None

    def _is_good(self, name: str) -> bool:
        return self._hash(name, "good") < self.good * 2.0**63

    def _hash(self, name: str, purpose: str) -> int:
        """Return a number from 0 to 2**63 - 1 that depends on the seed and both texts alone."""
        text = f"{self.seed}:{name}:{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def _require(name: str, holds: bool, wanted: str, options: Wafers) -> None:
    if holds:
        return
    value: Any = getattr(options, name)
    found = ", ".join(map(str, value)) or "an empty list" if isinstance(value, tuple) else value
    raise RecipeError(sentence(name, found=f"{found}", wanted=wanted, fix="change it"))


@dataclass(frozen=True, slots=True)
class WaferSet:
    """The images that ``Wafers`` names; each is computed when it is loaded."""

    options: Wafers

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the defect classes."""
        return self.options.class_names

    def entries(self) -> tuple[Entry, ...]:
        """Return every image, sorted by id, with its split, level and whether it is good."""
        return tuple(
            self.options.entry(split, number)
            for split in ("test", "train", "val")
            for number in range(getattr(self.options, split))
        )

    def load(self, entry: Entry) -> Sample:
        """Return pixels and truth of an image in memory; tags are its classes, or ``good``.

        Raises:
            InputError: when the image has more than ``IN_MEMORY_PX`` pixels; slice
                ``Wafers.plane(entry)``, or write it to a file, instead.
        """
        plane = self.options.plane(entry)
        height, width = plane.size
        if height * width > IN_MEMORY_PX:
            raise InputError(
                sentence(
                    f"wafer image {entry.id}",
                    found=f"{height} x {width} px",
                    wanted=f"at most {IN_MEMORY_PX} px to load it whole",
                    fix="choose view: field or write them to files",
                )
            )
        region = plane.region(0, height, 0, width)
        classes = dict(enumerate(plane.defects.classes.tolist(), 1))
        truth = Instances.from_label_map(region.labels, classes=classes)
        present = tuple(self.classes[k] for k in np.unique(truth.classes).tolist())
        return Sample(
            id=entry.id,
            image=region.image,
            channels=plane.channels,
            spacing_um=plane.spacing_um,
            truth=truth,
            tags=present or ("good",),
            group=entry.group,
            kind=entry.kind,
        )
