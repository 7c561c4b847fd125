"""The object table: one row an object, every column with its unit, exact sums underneath.

`find_pieces` collects integers from a window, `merge_pieces` adds them up, and
`object_table` turns them into numbers once, here. `measure` does the three for
a label map or instances in memory; a streaming decode calls them itself and
gets the same table to the last bit.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.centre_lines import long_lines, may_be_long
from domainseg.instances.columns import INTENSITIES, table_columns
from domainseg.instances.pieces import (
    AREA,
    LONGEST_SIDE,
    SQUARES,
    TOTAL,
    Pieces,
    exact,
    find_pieces,
    merge_pieces,
)
from domainseg.instances.runs import (
    ObjectRuns,
    check_label_map,
    move_runs,
    runs_of_instances,
    runs_of_labels,
    runs_of_parts,
    select_runs,
    split_runs,
)
from domainseg.instances.shapes import Shapes, find_shapes
from domainseg.records import Array, Instances, Plane, Spacing

OBJECT_NAMESPACE = uuid.UUID("5c1f9a53-4d0e-5b43-9a77-3f0c3f6f1d52")
"""Namespace of the object ids: uuid5 of ``<image sha256>/<layer>/<label>``."""

_TILE = 4096
_QUANTUM_BITS = 31


def measure(
    objects: Array | Instances,
    *,
    classes: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    class_names: Sequence[str] = ("object",),
    image: Plane | None = None,
    channels: Sequence[str] = (),
    spacing_um: Spacing | None = None,
    image_id: str = "",
    image_sha256: str = "",
    layer: int = 0,
) -> pl.DataFrame:
    """Return the object table of an integer ``(H, W)`` label map, or of instances.

    Rows are in ascending order of the labels, or in the order of the instances
    (which may overlap). `table_columns` describes the columns. Shape columns
    without a unit are measured in micrometres where ``spacing_um`` is known, so
    that pixels need not be square. Time is linear in the pixels.

    Args:
        objects: the label map (0 is background, gaps are kept), or instances.
        classes: index into ``class_names`` per row; all 0, or those of the instances.
        scores: confidence per row; all 1, or those of the instances.
        class_names: names of the classes.
        image: ``(C, H, W)``, numpy or lazy, whose intensities are measured. Whole
            numbers below 2**31 are summed exactly; others are rounded to a power of
            two at most 2**-30 of the channel's largest magnitude, for mean and std.
        channels: one name per channel of ``image``; its numbers by default.
        spacing_um: pixel size ``(y, x)``, None when unknown.
        image_id: value of the column ``image``.
        image_sha256: goes into the objects' ids.
        layer: value of the column ``layer``.

    Raises:
        InputError: for a label map that is none, an image of another size or with
            NaN or infinite pixels.
    """
    where = image_id or "label map"
    if not isinstance(objects, Instances):
        check_label_map(objects, where=where)
    shape = (int(objects.shape[0]), int(objects.shape[1]))
    names = _channel_names(image, channels, shape, where)
    quanta = np.zeros(0) if image is None else intensity_quanta(image, where=where)
    if isinstance(objects, Instances):
        runs = _runs_of_instances(objects)
        pieces = find_pieces(runs, core=objects.shape, image=image, quanta=quanta)
        classes = objects.classes if classes is None else classes
        scores = objects.scores if scores is None else scores
    else:
        pieces = _pieces_of_labels(objects, image, quanta, where)
        runs = _runs_of_some(objects, pieces, may_be_long(pieces))
    return object_table(
        pieces,
        runs,
        shape=shape,
        classes=classes,
        scores=scores,
        class_names=class_names,
        channels=names,
        spacing_um=spacing_um,
        image_id=image_id,
        image_sha256=image_sha256,
        layer=layer,
    )


def intensity_quanta(image: Plane, *, where: str = "image") -> NDArray[np.float64]:
    """Return what the intensities of each channel are rounded to, float64 ``(C,)``.

    Sums of quanta are sums of integers, and so do not depend on their order. It is
    1 for integers of 8 and 16 bits, else the power of two that brings the largest
    magnitude of the channel to between 2**30 and 2**31, which loses nothing of
    whole numbers below 2**31. For these the whole image is read, tile by tile.

    Raises:
        InputError: for NaN or infinite pixels.
    """
    channels = int(image.shape[0])
    if image.dtype.kind == "b" or (image.dtype.kind in "iu" and image.dtype.itemsize <= 2):
        return np.ones(channels)
    largest = np.zeros(channels)
    for rows, columns in _tiles((image.shape[1], image.shape[2])):
        tile = np.asarray(image[:, rows, columns])
        with np.errstate(invalid="ignore"):
            low, high = tile.min(axis=(1, 2)), tile.max(axis=(1, 2))
        largest = np.maximum(largest, np.maximum(-low.astype(float), high.astype(float)))
    if not np.isfinite(largest).all():
        raise InputError(
            sentence(
                where,
                found="NaN or infinite pixels",
                wanted="finite intensities",
                fix="replace them before measuring",
            )
        )
    return np.where(largest == 0, 1.0, 2.0 ** (np.frexp(largest)[1] - _QUANTUM_BITS))


def object_table(
    pieces: Pieces,
    runs: ObjectRuns,
    *,
    shape: tuple[int, int],
    classes: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    class_names: Sequence[str] = ("object",),
    channels: Sequence[str] = (),
    spacing_um: Spacing | None = None,
    image_id: str = "",
    image_sha256: str = "",
    layer: int = 0,
) -> pl.DataFrame:
    """Return the table of merged pieces, one row each, in their order.

    ``runs`` are those of the objects, at least of all that `may_be_long` names, in px of the
    image; ``shape`` is the whole image's ``(H, W)``; the rest is as in `measure`.
    """
    count = len(pieces)
    (y0, x0), (y1, x1) = pieces.boxes[:, 0].T, pieces.boxes[:, 1].T
    columns: dict[str, Any] = {
        "image": [image_id] * count,
        "label": pieces.ids,
        "id": list(_object_ids(pieces.ids.tolist(), f"{image_sha256}/{layer}/")),
        "layer": np.full(count, layer, np.int16),
        "class": _class_names(classes, class_names, count),
        "score": _per_row(scores, 1.0, count, "scores").astype(np.float32),
        "y0_px": y0,
        "x0_px": x0,
        "y1_px": y1,
        "x1_px": x1,
        "touches_border": (y0 == 0) | (x0 == 0) | (y1 == shape[0]) | (x1 == shape[1]),
    }
    columns |= _shape_columns(find_shapes(pieces, scale=(1.0, 1.0)), "px")
    if spacing_um is not None:
        shapes = find_shapes(pieces, scale=_checked(spacing_um))
        columns |= _shape_columns(shapes, "um")
    columns["area_px"] = pieces.counts[:, AREA]
    lines = long_lines(pieces, runs, spacing_um=spacing_um)
    columns["skeleton_length_px"] = lines[:, 0]
    columns["mean_width_px"] = columns["area_px"] / lines[:, 0]
    if spacing_um is not None:
        columns["skeleton_length_um"] = lines[:, 1]
        columns["mean_width_um"] = columns["area_um2"] / lines[:, 1]
    columns |= _intensity_columns(pieces, channels)
    wanted = table_columns(channels)
    # NaN is how arrays say that there is no value (an axis of a square).
    series = (
        pl.Series(c.name, columns.get(c.name, [None] * count), c.dtype, nan_to_null=True)
        for c in wanted
    )
    return pl.DataFrame(list(series))


def _shape_columns(shapes: Shapes, unit: str) -> dict[str, Array]:
    return {
        f"y_{unit}": shapes.centroids[:, 0],
        f"x_{unit}": shapes.centroids[:, 1],
        "area_px" if unit == "px" else "area_um2": shapes.area,
        f"perimeter_{unit}": shapes.perimeter,
        f"length_{unit}": shapes.length,
        f"width_{unit}": shapes.width,
        f"axis_major_{unit}": shapes.axis_major,
        f"axis_minor_{unit}": shapes.axis_minor,
        f"eq_diameter_{unit}": shapes.eq_diameter,
        "orientation_deg": shapes.orientation_deg,
        "eccentricity": shapes.eccentricity,
        "solidity": shapes.solidity,
        "circularity": shapes.circularity,
        "euler_number": shapes.euler_number,
    }


def _intensity_columns(pieces: Pieces, channels: Sequence[str]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    area = pieces.counts[:, AREA]
    for c, channel in enumerate(channels):
        total, squares = pieces.totals[:, c, TOTAL], pieces.totals[:, c, SQUARES]
        bound = float(area.max(initial=0)) * float(np.abs(squares).max(initial=0))
        n, total, squares = (exact(v, bound=bound) for v in (area, total, squares))
        spread = (n * squares - total * total).astype(np.float64)
        values = (
            total.astype(np.float64) / area * pieces.quanta[c],
            np.sqrt(spread) / area * pieces.quanta[c],
            pieces.extremes[:, c, 0],
            pieces.extremes[:, c, 1],
        )
        for (statistic, _), value in zip(INTENSITIES, values, strict=True):
            columns[f"intensity_{statistic}_{channel}"] = value
    return columns


def _pieces_of_labels(
    labels: Array, image: Plane | None, quanta: NDArray[np.float64], where: str
) -> Pieces:
    shape = (int(labels.shape[0]), int(labels.shape[1]))
    parts = []
    for rows, columns in _tiles(shape):
        window = labels[rows.start : rows.stop + 1, columns.start : columns.stop + 1]
        parts.append(
            find_pieces(
                runs_of_labels(window, where=where),
                core=(rows.stop - rows.start, columns.stop - columns.start),
                origin=(rows.start, columns.start),
                image=image,
                quanta=quanta,
            )
        )
    return merge_pieces(parts)


def _runs_of_instances(instances: Instances) -> ObjectRuns:
    if max(instances.shape) > LONGEST_SIDE:
        raise InputError(
            sentence(
                "instances",
                found=f"a plane of {instances.shape[0]} x {instances.shape[1]} px",
                wanted=f"sides of at most {LONGEST_SIDE} px",
                fix="measure it as tiles with find_pieces and merge_pieces",
            )
        )
    return runs_of_instances(instances)


def _runs_of_some(labels: Array, pieces: Pieces, wanted: NDArray[np.bool_]) -> ObjectRuns:
    """Return the runs of the wanted objects of a label map, read from tiles their boxes meet."""
    shape = (int(labels.shape[0]), int(labels.shape[1]))
    ids, boxes = pieces.ids[wanted], pieces.boxes[wanted]
    parts: dict[int, list[NDArray[np.int32]]] = {label: [] for label in ids.tolist()}
    for rows, columns in _tiles(shape):
        low, high = (rows.start, columns.start), (rows.stop, columns.stop)
        meets = ((boxes[:, 0] < high) & (boxes[:, 1] > low)).all(axis=1)
        if meets.any():
            seen = runs_of_labels(labels[rows, columns])
            seen = select_runs(seen, np.isin(seen.ids, ids[meets], assume_unique=True))
            for label, runs in split_runs(move_runs(seen, origin=low, shape=shape)).items():
                parts[label].append(runs)
    return runs_of_parts(ids, list(parts.values()), shape=shape)


def _tiles(shape: tuple[int, ...]) -> Iterable[tuple[slice, slice]]:
    """Yield the rows and columns of tiles that cover ``shape``; one, empty, where it is empty."""
    for y in range(0, max(shape[0], 1), _TILE):
        for x in range(0, max(shape[1], 1), _TILE):
            yield slice(y, min(y + _TILE, shape[0])), slice(x, min(x + _TILE, shape[1]))


def _channel_names(
    image: Plane | None, channels: Sequence[str], shape: tuple[int, int], where: str
) -> tuple[str, ...]:
    """Return one name per channel of the image, after checking that it fits the objects."""
    if image is None:
        return ()
    if len(image.shape) != 3 or tuple(image.shape[1:]) != shape:
        raise InputError(
            sentence(
                where,
                found=f"an image of shape {tuple(image.shape)}",
                wanted=f"(C, {shape[0]}, {shape[1]}), the size of the objects' plane",
                fix="measure the objects on the image they were found in",
            )
        )
    names = tuple(channels) or tuple(str(c) for c in range(image.shape[0]))
    if len(names) != image.shape[0] or len(set(names)) != len(names):
        raise ValueError(f"{names} does not name each of the {image.shape[0]} channels once")
    return names


def _per_row(values: ArrayLike | None, default: float, count: int, name: str) -> Array:
    if values is None:
        return np.full(count, default)
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{name} has shape {array.shape}, wanted one per object: ({count},)")
    return array


def _class_names(classes: ArrayLike | None, names: Sequence[str], count: int) -> list[str]:
    indices = _per_row(classes, 0, count, "classes").astype(np.int64)
    if count and not 0 <= indices.min() <= indices.max() < len(names):
        raise ValueError(f"classes hold {indices.max()}, but there are {len(names)} class names")
    return [names[i] for i in indices.tolist()]


def _object_ids(labels: Iterable[int], prefix: str) -> Iterable[str]:
    """Yield uuid5 of the prefix and each label, formatted here: six times the speed of `uuid`."""
    seed = hashlib.sha1(OBJECT_NAMESPACE.bytes + prefix.encode(), usedforsecurity=False)
    for label in labels:
        digest = seed.copy()
        digest.update(str(label).encode())
        text = digest.hexdigest()
        variant = "89ab"[int(text[16], 16) & 3]
        yield f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def _checked(spacing_um: Spacing) -> Spacing:
    if not all(np.isfinite(s) and s > 0 for s in spacing_um):
        raise ValueError(f"pixel size {spacing_um} is not positive; pass None where it is unknown")
    return (float(spacing_um[0]), float(spacing_um[1]))
