"""Polygons read from GeoJSON, in pixels of the full resolution, ``(x, y)``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence

Rings = list[NDArray[np.float64]]
"""The closed rings of one polygon, each ``(n, 2)`` of x and y; inner ones are holes."""

FARTHEST_PX = 1e12
"""Coordinates beyond are nonsense, and would lose their fractions in sums."""


def read_polygons(file: Path) -> tuple[list[Rings], str]:
    """Return the rings of every polygon of a GeoJSON file, and the SHA-256 of its bytes.

    Taken are FeatureCollection, Feature, a list of features (older exports of QuPath),
    GeometryCollection, and a bare Polygon or MultiPolygon (RFC 7946); the members of a
    MultiPolygon are polygons of their own. Properties and a third coordinate are not read.

    Raises:
        MissingInputError: no such file, or an empty one.
        InputError: a folder, not JSON, no polygon, a geometry of another type, a ring of fewer
            than 4 positions or not closed, or a coordinate that is not a finite number; names
            the feature and the ring.
    """
    content = _content(file)
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(
            sentence(
                file,
                found=f"text that is not JSON{at}",
                wanted="GeoJSON polygons",
                fix="export the annotations as GeoJSON",
            )
        ) from error
    polygons = [_rings(where, rings) for where, rings in _polygons(value, str(file))]
    if not polygons:
        raise InputError(
            sentence(file, found="no polygon", wanted="at least one", fix="draw an area")
        )
    return polygons, hashlib.sha256(content).hexdigest()


def _content(file: Path) -> bytes:
    if file.is_dir():
        raise InputError(
            sentence(file, found="a folder", wanted="a GeoJSON file", fix="name a file inside it")
        )
    if not file.is_file():
        raise MissingInputError(
            sentence(file, found="no such file", wanted="a GeoJSON file", fix="check the path")
        )
    content = file.read_bytes()
    if not content.strip():
        raise MissingInputError(
            sentence(file, found="an empty file", wanted="GeoJSON polygons", fix="export it again")
        )
    return content


def _polygons(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield what to call each polygon, and its rings as they stand in the file."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, list):
        yield from _several(value, where, "feature")
    elif kind == "FeatureCollection":
        yield from _several(value.get("features"), where, "feature")
    elif kind == "GeometryCollection":
        yield from _several(value.get("geometries"), where, "geometry")
    elif kind == "Feature":
        yield from _polygons(value.get("geometry"), where)
    elif kind == "Polygon":
        yield where, value.get("coordinates")
    elif kind == "MultiPolygon":
        for number, rings in enumerate(_list(value.get("coordinates"), where), start=1):
            yield f"{where}, polygon {number}", rings
    else:
        raise InputError(
            sentence(
                where,
                found="no geometry" if kind is None else f"geometry {kind}",
                wanted="Polygon or MultiPolygon",
                fix="remove it or draw an area in its place",
            )
        )


def _several(values: Any, where: str, name: str) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(_list(values, where), start=1):
        yield from _polygons(value, f"{where}: {name} {number}")


def _rings(where: str, rings: Any) -> Rings:
    """Return the rings of one polygon, checked."""
    found = [_ring(f"{where}, ring {n}", r) for n, r in enumerate(_list(rings, where), start=1)]
    if not found:
        raise InputError(
            sentence(where, found="a polygon without a ring", wanted="one", fix="remove it")
        )
    return found


def _ring(where: str, ring: Any) -> NDArray[np.float64]:
    positions = _list(ring, where)
    if len(positions) < 4:
        closed = "at least 4, of which the last is the first"
        raise _malformed(where, found=f"{len(positions)} positions", wanted=closed)
    try:
        found = np.array([(x, y) for x, y, *_ in positions])
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0, object)
    if found.dtype.kind not in "iuf":  # texts, nulls, and whole numbers beyond 64 bits
        raise _malformed(where, found="a position that is not [x, y]", wanted="two numbers")
    points = found.astype(np.float64)
    near = (np.abs(points) <= FARTHEST_PX).all(axis=1)  # of a NaN nothing is true
    if not near.all():
        x, y = points[~near][0]
        raise _malformed(where, found=f"position [{x:g}, {y:g}]", wanted="finite pixels")
    if (points[0] != points[-1]).any():
        closed = "the last position to be the first"
        raise _malformed(where, found="a ring that is not closed", wanted=closed)
    return points


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _malformed(where, found="something else than a list", wanted="GeoJSON (RFC 7946)")
    return value


def _malformed(where: str, *, found: str, wanted: str) -> InputError:
    return InputError(sentence(where, found=found, wanted=wanted, fix="draw or export it again"))
