"""Where a pixel lies on a wafer: die index and position in the die, as KLARF counts them.

The wafer frame has its origin in the wafer's centre, x to the right and y up, with
the notch down. Die ``(xi, yi)`` covers ``[xi * pitch - center, (xi + 1) * pitch -
center)`` along each axis, where ``center`` is the wafer's centre measured from the
lower left corner of die (0, 0): KLARF's ``SampleCenterLocation``.

A ``die_grid.json`` names its axes, so that nobody has to know an order::

    {"pitch_um": {"x": 2400, "y": 2000}, "center_um": {"x": 1200, "y": 1000},
     "wafer_diameter_mm": 300, "notch": "down", "spacing_um": {"x": 0.5, "y": 0.5},
     "images": {"field-1": {"wafer_center_px": {"x": 12345.1, "y": 300.3}}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainseg.errors import InputError, MissingInputError, sentence


class DiePositions(NamedTuple):
    """Places on a wafer, one element each, of the shape of what they were computed from.

    Attributes:
        x_um: float64, from the wafer's centre to the right.
        y_um: float64, from the wafer's centre up.
        xi: int64, column of the die (KLARF ``XINDEX``).
        yi: int64, row of the die, counted upwards (``YINDEX``).
        xrel: float64 in [0, pitch), micrometres from the die's lower left corner (``XREL``).
        yrel: float64 in [0, pitch), micrometres from there upwards (``YREL``).
    """

    x_um: NDArray[np.float64]
    y_um: NDArray[np.float64]
    xi: NDArray[np.int64]
    yi: NDArray[np.int64]
    xrel: NDArray[np.float64]
    yrel: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DieGrid:
    """The dies of a wafer and where an image lies on it.

    Pixel coordinates are those of the object table: the centre of the first pixel is 0.0.

    Attributes:
        pitch_um: ``(y, x)``, from one die to the next, street included.
        center_um: ``(cx, cy)``, the wafer's centre from the lower left corner of die (0, 0).
        wafer_diameter_mm: of the whole disc.
        spacing_um: ``(y, x)``, size of a pixel.
        wafer_center_px: ``(y, x)`` of the wafer's centre in the image; may lie outside it.
    """

    pitch_um: tuple[float, float]
    center_um: tuple[float, float]
    wafer_diameter_mm: float
    spacing_um: tuple[float, float]
    wafer_center_px: tuple[float, float]

    def __post_init__(self) -> None:
        numbers = (*self.pitch_um, self.wafer_diameter_mm, *self.spacing_um)
        if not all(np.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"pitch, diameter and spacing of {self} must be above 0")
        if not np.isfinite((*self.center_um, *self.wafer_center_px)).all():
            raise ValueError(f"the centres of {self} must be finite")

    def positions(self, y_px: ArrayLike, x_px: ArrayLike) -> DiePositions:
        """Return where pixels lie on the wafer; ``x_um == xi * pitch + xrel - cx``, y alike."""
        y_px, x_px = np.broadcast_arrays(np.asarray(y_px, float), np.asarray(x_px, float))
        y_um = (self.wafer_center_px[0] - y_px) * self.spacing_um[0]
        x_um = (x_px - self.wafer_center_px[1]) * self.spacing_um[1]
        return self.locate(y_um, x_um)

    def locate(self, y_um: ArrayLike, x_um: ArrayLike) -> DiePositions:
        """Return the dies that places of the wafer frame, in micrometres, lie in."""
        y, x = np.broadcast_arrays(np.asarray(y_um, float), np.asarray(x_um, float))
        xi, xrel = _cell(x + self.center_um[0], self.pitch_um[1])
        yi, yrel = _cell(y + self.center_um[1], self.pitch_um[0])
        return DiePositions(x.copy(), y.copy(), xi, yi, xrel, yrel)

    def pixels(
        self, y_um: ArrayLike, x_um: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``(y_px, x_px)`` of places of the wafer frame: the inverse of ``positions``."""
        y_px = self.wafer_center_px[0] - np.asarray(y_um, float) / self.spacing_um[0]
        x_px = self.wafer_center_px[1] + np.asarray(x_um, float) / self.spacing_um[1]
        return np.asarray(y_px), np.asarray(x_px)

    def dies(self, *, edge_exclusion_mm: float = 0.0) -> NDArray[np.int64]:
        """Return the dies that lie whole inside the wafer less its edge exclusion.

        int64 ``(N, 2)``, rows ``(xi, yi)``, by yi, then xi.
        """
        radius = max(500.0 * self.wafer_diameter_mm - 1000.0 * edge_exclusion_mm, 0.0)
        x_reach, x_first = _farthest(self.center_um[0], self.pitch_um[1], radius)
        y_reach, y_first = _farthest(self.center_um[1], self.pitch_um[0], radius)
        inside = y_reach[:, None] ** 2 + x_reach[None] ** 2 <= radius**2
        rows, columns = np.nonzero(inside)
        return np.stack([columns + x_first, rows + y_first], 1).astype(np.int64)


def read_die_grids(path: Path) -> dict[str, DieGrid]:
    """Return the grid of each image that a ``die_grid.json`` names, by the image's id.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when it is damaged, lacks a field, or its notch is not down.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a die_grid.json", fix="check the path")
        )
    try:
        text: Any = json.loads(path.read_text("utf-8"))
        return {name: _grid(text, where) for name, where in text["images"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            sentence(
                path,
                found=f"no die grid in it ({type(error).__name__}: {error})",
                wanted="pitch_um, center_um, spacing_um and each image's wafer_center_px with x "
                "and y, wafer_diameter_mm, and the notch down",
                fix="write the file again",
            )
        ) from error


def read_die_plan(path: Path) -> NDArray[np.int64] | None:
    """Return the dies that a ``die_grid.json`` lists as ``dies``, int64 ``(N, 2)``, ``(xi, yi)``.

    None where it lists none; the file is one that `read_die_grids` has read.

    Raises:
        InputError: what it lists are no pairs of whole numbers, or one stands there twice.
    """
    listed = json.loads(path.read_text("utf-8")).get("dies")
    if listed is None:
        return None
    pairs = isinstance(listed, list) and all(
        isinstance(one, list) and len(one) == 2 and all(type(value) is int for value in one)
        for one in listed
    )
    if not pairs or len({tuple(one) for one in listed}) < len(listed):
        raise InputError(
            sentence(
                path,
                found="dies that are no list of different [x, y]",
                wanted="two whole numbers for each die",
                fix="correct it",
            )
        )
    return np.array(listed, np.int64).reshape(-1, 2)


def _grid(text: Mapping[str, Any], where: Mapping[str, Any]) -> DieGrid:
    if (notch := text.get("notch", "down")) != "down":
        raise ValueError(f"notch {notch}: turn the images, and give centres with the notch down")
    y_center, x_center = _yx(text["center_um"])
    return DieGrid(
        pitch_um=_yx(text["pitch_um"]),
        center_um=(x_center, y_center),
        wafer_diameter_mm=float(text["wafer_diameter_mm"]),
        spacing_um=_yx(text["spacing_um"]),
        wafer_center_px=_yx(where["wafer_center_px"]),
    )


def _yx(values: Mapping[str, Any]) -> tuple[float, float]:
    return float(values["y"]), float(values["x"])


def _cell(
    along: NDArray[np.float64], pitch: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the index of the cell and the distance from its low side, in [0, pitch)."""
    index = np.floor(along / pitch)
    rest = along - index * pitch
    # The quotient is rounded, so a place a hair below a border can fall beyond it.
    index = np.where(rest < 0, index - 1, np.where(rest >= pitch, index + 1, index))
    rest = np.clip(along - index * pitch, 0.0, np.nextafter(pitch, 0.0))
    return index.astype(np.int64), rest


def _farthest(center: float, pitch: float, radius: float) -> tuple[NDArray[np.float64], int]:
    """Return how far each die reaches from the wafer's centre along an axis, and the first die."""
    first = int(np.floor((center - radius) / pitch))
    last = int(np.floor((center + radius) / pitch))
    low = np.arange(first, last + 1) * pitch - center
    return np.maximum(np.abs(low), np.abs(low + pitch)), first
