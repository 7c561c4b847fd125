"""From a model and an image to a verdict on its tiles: does cutting the image show?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from domainseg.atomic import atomic_text
from domainseg.errors import InputError, UsageError, sentence
from domainseg.images import image_sha256, open_image
from domainseg.model_plane import ModelPlane, model_plane
from domainseg.models.model_file import model_sha256
from domainseg.outside import at_diameter
from domainseg.records import Sample
from domainseg.segmenter import open_segmenter
from domainseg.tiling.grid import Lattice
from domainseg.tiling.sensitivity import (
    Setting,
    default_settings,
)
from domainseg.verify_detection import WHOLE_MPX, compare_objects
from domainseg.verify_maps import compare_maps

UNTILED_MPX = 24.0
"""Largest image that goes through the network in one piece, Mpx of the model grid."""

Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What a verification is told beside model and image.

    Attributes:
        cores: sides of the cores to try, px; empty = the model's, its half and its quarter.
        overrides: ``key=value`` changes of the model's recipe.
        select: how a stack is read, instead of the recipe's ``image.select``.
        spacing_um: pixel size of the image, instead of what the file says.
        diameter_px: median object diameter in the image, for models that work at one.
        untiled_mpx: largest part of the image that is run in one piece.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    cores: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    select: Mapping[str, object] | None = None
    spacing_um: float | None = None
    diameter_px: float | None = None
    untiled_mpx: float = UNTILED_MPX
    device: str = "auto"
    precision: str = "auto"


class Compared(Protocol):
    """What settings change, by the kind of model."""

    @property
    def precision(self) -> str:
        """``fp32`` or ``bf16``, as it was run."""
        ...

    @property
    def passed(self) -> bool:
        """Whether no setting of the model's own tiles shows."""
        ...

    def worst(self) -> tuple[int, Setting, str, str]:
        """Return how many settings show, the worst, how far it goes, and what was wanted."""
        ...

    def summary(self) -> str:
        """Return what the settings are compared with."""
        ...

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return header and one row for each setting."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        ...

    def limits(self) -> tuple[str, ...]:
        """Return what the verdict does not cover."""
        ...


@dataclass(frozen=True, slots=True)
class Verification:
    """What the tiles of a model change on one image.

    Attributes:
        model, image: the files, the image as it was named.
        model_sha256, image_sha256: of each, in hexadecimal digits.
        lattice: the model's.
        region: the part of the model grid that was compared, ``((y0, x0), (y1, x1))``.
        compared: what every setting changes.
        warnings: what limits the verdict, one sentence each.
    """

    model: Path
    model_sha256: str
    image: str
    image_sha256: str
    lattice: Lattice
    region: Box
    compared: Compared
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no setting of the model's own tiles shows."""
        return self.compared.passed

    def refusal(self) -> str:
        """Return the sentence that says by how much the worst setting fails."""
        count, setting, far, wanted = self.compared.worst()
        core, (y, x) = setting.lattice.core_px, setting.offset
        return sentence(
            self.image,
            found=f"{count} settings that show, worst core {core} at offset {y} {x}: {far}",
            wanted=wanted,
            fix=f"set tiling.halo_px above {self.lattice.halo_px}",
        )

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        return {
            "model": {"path": str(self.model), "sha256": self.model_sha256},
            "image": {"path": self.image, "sha256": self.image_sha256},
            "precision": self.compared.precision,
            "lattice": self.lattice.to_json(),
            "region": [list(corner) for corner in self.region],
            "passed": self.passed,
            **self.compared.to_json(),
            "warnings": list(self.warnings),
        }


def verify_tiling(
    model: Path | str,
    image: Path | str,
    *,
    options: VerifyOptions | None = None,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verification:
    """Run a model over an image in one piece and in tiles of many kinds, and compare.

    Of a model that finds objects one by one the objects are compared, of any other the maps.

    ``tell`` is called with passes done and passes in all.

    Raises:
        ModelFileError: the model cannot be used.
        InputError: the image cannot be read, does not fit the model, or fits into one core.
        UsageError: a core that the network or the image does not allow.
    """
    options = options or VerifyOptions()
    segmenter, card = open_segmenter(
        Path(model),
        overrides=options.overrides,
        device=options.device,
        precision=options.precision,
    )
    lattice = segmenter.lattice
    select = segmenter.recipe.image.select if options.select is None else options.select
    with open_image(image, select=select) as opened:
        spacing = opened.spacing_um
        if options.spacing_um is not None:
            spacing = (options.spacing_um, options.spacing_um)
        plane = model_plane(
            at_diameter(segmenter.recipe, card, options.diameter_px),
            Sample(str(image), opened, opened.channels, spacing_um=spacing),
            diameter_px=options.diameter_px or segmenter.diameter_px,
        )
        most = options.untiled_mpx
        if segmenter.detector is not None:
            most = min(most, WHOLE_MPX)
        region = middle(plane.grid.model_shape, most)
        settings = _settings(lattice, region, options.cores, where=image)
        pixels = _pixels(plane, region)
        sha256 = image_sha256(opened.path)
    compare = compare_maps if segmenter.detector is None else compare_objects
    compared = compare(segmenter, pixels, settings, tell=tell)
    return Verification(
        model=Path(model),
        model_sha256=model_sha256(Path(model)),
        image=str(image),
        image_sha256=sha256,
        lattice=lattice,
        region=region,
        compared=compared,
        warnings=(*_part_of(region, plane.grid.model_shape), *compared.limits()),
    )


def middle(shape: tuple[int, int], most_mpx: float) -> Box:
    """Return the box amid an image ``(H, W)``, of its proportions and at most so many Mpx."""
    shrink = min(1.0, math.sqrt(most_mpx * 1e6 / (shape[0] * shape[1])))
    height, width = (max(1, int(length * shrink)) for length in shape)
    y0, x0 = (shape[0] - height) // 2, (shape[1] - width) // 2
    return (y0, x0), (y0 + height, x0 + width)


def write_verification(found: Verification, path: Path) -> None:
    """Write every figure as JSON; raise OutputError when it cannot be written."""
    atomic_text(path, json.dumps(found.to_json(), indent=2) + "\n")


def _settings(
    lattice: Lattice, region: Box, cores: Sequence[int], *, where: object
) -> tuple[Setting, ...]:
    """Return the settings to try on a region, or raise where it cannot be cut as asked."""
    (y0, x0), (y1, x1) = region
    longest = max(y1 - y0, x1 - x0)
    for core in cores:
        if core < 1 or core % lattice.stride_px or core >= longest:
            raise UsageError(
                sentence(
                    "--core",
                    found=str(core),
                    wanted=f"a multiple of the network's stride {lattice.stride_px} below the "
                    f"image's {longest} px",
                    fix="change it",
                )
            )
    settings = default_settings(lattice, (y1 - y0, x1 - x0), cores=cores)
    if not settings:
        raise InputError(
            sentence(
                where,
                found=f"{y1 - y0} x {x1 - x0} px on the model grid, which one core holds",
                wanted=f"more than {lattice.stride_px} px, to be cut",
                fix="take a larger image",
            )
        )
    return settings


def _pixels(plane: ModelPlane, region: Box) -> np.ndarray[Any, np.dtype[np.float32]]:
    (y0, x0), (y1, x1) = region
    return plane[:, y0:y1, x0:x1]


def _part_of(region: Box, shape: tuple[int, int]) -> tuple[str, ...]:
    """Return what is said where not all of an image is compared."""
    (y0, x0), (y1, x1) = region
    if (y1 - y0, x1 - x0) == shape:
        return ()
    return (
        f"of {shape[0]} x {shape[1]} px the middle is compared, y {y0} to {y1} and x {x0} to "
        f"{x1}, because the untiled pass takes memory for every pixel",
    )
