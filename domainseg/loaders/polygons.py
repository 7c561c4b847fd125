"""Annotation files of polygons: YOLO segmentation text and LabelMe JSON.

Coordinates are pixels, ``(x, y)``; pixel (row 0, column 0) covers 0 to 1 in both. A pixel
belongs to a polygon when its centre is inside by the even-odd rule; a centre on a left or
upper edge is inside, on a right or lower edge outside. Every polygon is one object, and
objects may overlap. Corners up to 1 px outside the image are clipped, as annotation tools
let the pointer slip over the border; what is farther out is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.images.regions import regions_of
from domainseg.loaders.masks import (
    BACKGROUND,
    IGNORE,
    Annotation,
    class_names,
    runs_of_window,
    stacked,
)
from domainseg.records import Array

SLIP_PX = 1.0
"""How far outside the image a corner may lie."""
DRAWN = ("polygon", "rectangle", "circle")
"""Shape types of LabelMe that enclose an area."""
_AGAIN = "draw or export it again"

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """One closed outline of an annotation file.

    Attributes:
        where: file and line or shape number, for errors.
        name: of its class.
        points: float64 ``(n, 2)`` of x and y, px; of a circle its centre and a point on it.
        group: what joins it to other shapes as one object, or None.
        circle: whether it is a circle.
    """

    where: str
    name: str
    points: Points
    group: str | None = None
    circle: bool = False


def read_yolo(path: Path, table: Mapping[int, str], *, shape: tuple[int, int]) -> Annotation:
    """Return the objects of a YOLO segmentation file on an image of ``(H, W)``.

    A row is ``class x1 y1 x2 y2 x3 y3 ...`` in shares of width and height; a file without
    rows is of an image without objects.

    Raises:
        InputError: naming file and line, for text that is no number, a class the table does
            not name, a box, fewer than 3 points, or a polygon outside the image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            sentence(
                path,
                found="a file that is no text",
                wanted="rows of class x1 y1 x2 y2 x3 y3 ...",
                fix="export it again",
            )
        ) from error
    size = np.array([shape[1], shape[0]], np.float64)
    shapes = []
    for number, line in enumerate(lines, 1):
        if tokens := line.split():
            where = f"{path}:{number}"
            name = _named(where, _class_of(where, tokens[0]), table, option="classes")
            shapes.append(Shape(where, name, _shares(where, tokens[1:]) * size))
    return drawn(shapes, class_names(table), shape=shape)


def read_labelme(path: Path, table: Mapping[str, str], *, shape: tuple[int, int]) -> Annotation:
    """Return the objects of a LabelMe file on an image of ``(H, W)``.

    Polygons, rectangles (two opposite corners, or four) and circles (the centre and a point
    on it) are read; shapes with one ``group_id`` are one object.

    Raises:
        InputError: naming file and shape, for what is no JSON of LabelMe, an image of
            another size, a label the table does not name, a shape that encloses nothing, a
            group of two labels, or a shape outside the image.
    """
    values = _labelme(path)
    stored = (values.get("imageHeight"), values.get("imageWidth"))
    if stored != shape:
        raise InputError(
            sentence(
                path,
                found=f"imageHeight {stored[0]} and imageWidth {stored[1]}",
                wanted=f"{shape[0]} and {shape[1]}, the size of its image",
                fix="annotate the image as it is",
            )
        )
    shapes = [
        _labelme_shape(f"{path}: shape {number}", value, table)
        for number, value in enumerate(values["shapes"], 1)
    ]
    return drawn(shapes, class_names(table), shape=shape)


def drawn(shapes: Sequence[Shape], classes: Sequence[str], *, shape: tuple[int, int]) -> Annotation:
    """Return filled shapes as objects numbered from 1 up, in the order they stand.

    Shapes called ``background`` are passed over, those called ``ignore`` are no objects
    but pixels nobody is sure of.

    Raises:
        InputError: for a shape outside the image or without a pixel, or a group of two names.
    """
    unsure = np.zeros(shape, bool)
    pixels: dict[object, list[tuple[Shape, Array]]] = {}
    for number, one in enumerate(shapes):
        if one.name == BACKGROUND:
            continue
        origin, window = _filled(one, shape)
        if one.name == IGNORE:
            rows, columns = (slice(o, o + n) for o, n in zip(origin, window.shape, strict=True))
            unsure[rows, columns] |= window
            continue
        key = ("alone", number) if one.group is None else ("group", one.group)
        runs = runs_of_window(window, origin)
        pixels.setdefault(key, []).append((one, runs))
    for parts in pixels.values():
        _refuse_two_names([one for one, _ in parts])
    return Annotation(
        stacked(
            [_united([runs for _, runs in parts]) for parts in pixels.values()],
            [classes.index(parts[0][0].name) for parts in pixels.values()],
            shape=shape,
        ),
        unsure=unsure if unsure.any() else None,
    )


def _filled(one: Shape, shape: tuple[int, int]) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """Return the window of a shape inside the image, as its origin and its pixels."""
    low, high = one.points.min(axis=0), one.points.max(axis=0)
    radius = float(np.hypot(*(one.points[1] - one.points[0]))) if one.circle else 0.0
    if one.circle:
        low, high = one.points[0] - radius, one.points[0] + radius
    height, width = shape
    if (low < -SLIP_PX).any() or high[0] > width + SLIP_PX or high[1] > height + SLIP_PX:
        raise InputError(
            sentence(
                one.where,
                found=f"x from {low[0]:.6g} to {high[0]:.6g} and y from {low[1]:.6g} to "
                f"{high[1]:.6g} px",
                wanted=f"a shape inside the image of {width} x {height} px",
                fix="correct it, or check that it belongs to this image",
            )
        )
    x0, y0 = np.clip(np.floor(low), 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(high), 0, [width, height]).astype(int)
    if one.circle:
        y, x = np.ogrid[y0:y1, x0:x1]
        cx, cy = one.points[0]
        window = (x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius**2
    else:
        ring = np.concatenate([one.points, one.points[:1]])
        area = regions_of([[ring]], path=Path(), sha256="")
        window = area.inside(((int(y0), int(x0)), (int(y1), int(x1))))
    if not window.any():
        raise InputError(
            sentence(
                one.where,
                found="a shape around no pixel's centre",
                wanted="one pixel or more",
                fix="remove it or draw it larger",
            )
        )
    return (int(y0), int(x0)), window


def _united(parts: Sequence[Array]) -> Array:
    """Return the runs of the pixels of any part, raster order, none of which touch in a row."""
    if len(parts) == 1:
        return parts[0]
    runs = np.concatenate(parts)
    runs = runs[np.lexsort([runs[:, 1], runs[:, 0]])]
    merged: list[list[int]] = []
    for row, start, length in runs.tolist():
        if merged and merged[-1][0] == row and start <= merged[-1][1] + merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], start + length - merged[-1][1])
        else:
            merged.append([row, start, length])
    return np.array(merged, np.int64)


def _refuse_two_names(shapes: Sequence[Shape]) -> None:
    for one in shapes:
        if one.name != shapes[0].name:
            raise InputError(
                sentence(
                    one.where,
                    found=f"{one.name} in group {one.group}, which began as {shapes[0].name}",
                    wanted="one class in a group",
                    fix="correct the label or the group_id",
                )
            )


def _named(where: str, key: Any, table: Mapping[Any, str], *, option: str) -> str:
    """Return the class of a number or label."""
    if key not in table:
        raise InputError(
            sentence(
                where,
                found=f"class {key}" if isinstance(key, int) else f"the label {key!r}",
                wanted=f"one of {', '.join(map(str, table))}",
                fix=f"add it to {option} or correct it",
            )
        )
    return table[key]


def _class_of(where: str, token: str) -> int:
    try:
        return int(token)
    except ValueError:
        raise InputError(
            sentence(
                where,
                found=f"{token!r} in place of the class",
                wanted="a whole number",
                fix="export it again",
            )
        ) from None


def _shares(where: str, tokens: Sequence[str]) -> Points:
    """Return the points ``(n, 2)`` of a YOLO row, in shares of the image's sides."""
    if len(tokens) == 4:
        raise InputError(
            sentence(
                where,
                found="4 numbers after the class, which are a box",
                wanted="a polygon of 3 points or more",
                fix="export segmentation, or draw outlines",
            )
        )
    if len(tokens) % 2 or len(tokens) < 6:
        raise InputError(
            sentence(
                where,
                found=f"{len(tokens)} number{'s' * (len(tokens) != 1)} after the class",
                wanted="x and y of 3 points or more",
                fix=_AGAIN,
            )
        )
    try:
        points = np.array(tokens, np.float64).reshape(-1, 2)
    except ValueError:
        points = np.full((1, 2), np.nan)
    return _finite(where, points)


def _finite(where: str, points: Points) -> Points:
    if not np.isfinite(points).all():
        raise InputError(
            sentence(
                where,
                found="a coordinate that is no finite number",
                wanted="numbers",
                fix=_AGAIN,
            )
        )
    return points


def _labelme(path: Path) -> dict[str, Any]:
    """Return the values of a LabelMe file, which has a list of shapes."""
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(
            sentence(
                path,
                found=f"text that is not JSON{at}",
                wanted="JSON as LabelMe writes it",
                fix="export it again",
            )
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("shapes"), list):
        raise InputError(
            sentence(
                path,
                found="JSON without a list of shapes",
                wanted="JSON as LabelMe writes it",
                fix="export it again",
            )
        )
    return values


def _labelme_shape(where: str, value: Any, table: Mapping[str, str]) -> Shape:
    value = value if isinstance(value, dict) else {}
    kind = value.get("shape_type", "polygon")
    if kind not in DRAWN:
        raise InputError(
            sentence(
                where,
                found=f"the shape type {kind}",
                wanted=", ".join(DRAWN),
                fix="outline the object or remove it",
            )
        )
    name = _named(where, str(value.get("label")), table, option="label_names")
    try:
        points = np.array(value.get("points"), np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.full((1, 2), np.nan)
    _finite(where, points)
    allowed = {"polygon": len(points) >= 3, "rectangle": len(points) in (2, 4)}
    if not allowed.get(kind, len(points) == 2):
        wanted = {"polygon": "3 or more", "rectangle": "2 opposite corners or 4"}
        raise InputError(
            sentence(
                where,
                found=f"a {kind} of {len(points)} point{'s' * (len(points) != 1)}",
                wanted=wanted.get(kind, "the centre and a point on it"),
                fix=_AGAIN,
            )
        )
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    group = value.get("group_id")
    return Shape(where, name, points, None if group is None else str(group), kind == "circle")
