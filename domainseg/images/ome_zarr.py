"""OME-Zarr 0.5 label images (zarr format 3) with a pyramid, written band by band.

``path`` becomes an image group whose levels are the label arrays, with the same arrays as
the label image ``labels/objects`` inside it: viewers that open the folder find an image, and
those that look for labels find them where the specification puts them
(https://ngff.openmicroscopy.org/0.5).
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np
import zarr
from numpy.typing import NDArray

from domainseg.errors import OutputError, sentence
from domainseg.images.labels import checked_labels, label_dtype
from domainseg.records import Spacing

NAME = "objects"
CHUNK = 1024
SMALLEST_PX = 256
"""The pyramid ends with the level whose longer side is at most this."""

Rgba = tuple[int, int, int, int]
Property = float | int | str | bool


class LabelPlane(Protocol):
    """Integer labels ``(H, W)`` that are sliced by rows: numpy, a memory map, zarr."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W)``."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


def write_labels_ome_zarr(
    path: str | os.PathLike[str],
    labels: LabelPlane,
    *,
    spacing_um: Spacing | None,
    colors: Mapping[int, Rgba] | None = None,
    properties: Mapping[int, Mapping[str, Property]] | None = None,
) -> None:
    """Write ``(H, W)`` labels as an OME-Zarr 0.5 folder that appears whole or not at all.

    uint16 where every label fits, else uint32; each coarser level halves the last by the
    commonest label of 2 x 2 pixels (an object before background, then the first in raster
    order, where counts tie). The memory needed is one band of CHUNK rows.

    Args:
        path: the folder; what stood there is replaced.
        labels: the plane, read in bands of rows, twice.
        spacing_um: pixel size; scales are in pixels, without a unit, where it is None.
        colors: RGBA in 0 to 255 of labels, for viewers.
        properties: what is known of labels (area, class, ...), by name; values that are not
            finite are left out, since JSON has none.

    Raises:
        InputError: for values that cannot be labels.
        OutputError: when a label is above 4294967295, or the folder cannot be written.
    """
    target = Path(path)
    height, width = (int(n) for n in labels.shape)
    bands = [slice(top, min(top + CHUNK, height)) for top in range(0, height, CHUNK)]
    peaks = (int(checked_labels(target, np.asarray(labels[b])).max(initial=0)) for b in bands)
    dtype = label_dtype(target, max(peaks, default=0))
    with _atomic_folder(target) as partial:
        root = zarr.open_group(partial, mode="w", zarr_format=3)
        group = root.create_group(f"labels/{NAME}")
        level = _create(group, 0, (height, width), dtype)
        for band in bands:
            level[band] = np.asarray(labels[band]).astype(dtype)
        shapes = [(height, width)]
        while max(shapes[-1]) > SMALLEST_PX:
            shapes.append(_halved(shapes[-1]))
            finer, level = level, _create(group, len(shapes) - 1, shapes[-1], dtype)
            _fill_coarser(finer, level)
        nested = _multiscales(shapes, spacing_um, prefix=f"labels/{NAME}/")
        root.attrs["ome"] = {"version": "0.5", **nested}
        root["labels"].attrs["ome"] = {"version": "0.5", "labels": [NAME]}
        group.attrs["ome"] = {
            "version": "0.5",
            **_multiscales(shapes, spacing_um, prefix=""),
            "image-label": _image_label(colors or {}, properties or {}),
        }


@numba.njit(nogil=True, cache=True)
def commonest_of_four(labels: NDArray[Any], out: NDArray[Any]) -> None:
    """Fill ``out`` ``(ceil(h / 2), ceil(w / 2))`` with the commonest label of 2 x 2 pixels.

    Ties go to the first label in raster order that is not background; pixels beyond an odd
    edge do not count.
    """
    height, width = labels.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            best = labels[2 * y, 2 * x]
            best_count = 0
            for i in range(4):
                yy, xx = 2 * y + i // 2, 2 * x + i % 2
                if yy >= height or xx >= width:
                    continue
                value = labels[yy, xx]
                count = 0
                for j in range(4):
                    y2, x2 = 2 * y + j // 2, 2 * x + j % 2
                    if y2 < height and x2 < width and labels[y2, x2] == value:
                        count += 1
                if count > best_count or (count == best_count and best == 0):
                    best, best_count = value, count
            out[y, x] = best


def _fill_coarser(finer: zarr.Array[Any], coarser: zarr.Array[Any]) -> None:
    for top in range(0, coarser.shape[0], CHUNK):
        bottom = min(top + CHUNK, coarser.shape[0])
        source = np.ascontiguousarray(finer[2 * top : 2 * bottom])
        out = np.empty((bottom - top, coarser.shape[1]), source.dtype)
        commonest_of_four(source, out)
        coarser[top:bottom] = out


def _create(
    group: zarr.Group, level: int, shape: tuple[int, int], dtype: type[np.generic]
) -> zarr.Array[Any]:
    return group.create_array(
        str(level),
        shape=shape,
        chunks=(min(CHUNK, shape[0]), min(CHUNK, shape[1])),
        dtype=np.dtype(dtype),
        fill_value=0,
        dimension_names=("y", "x"),
    )


def _halved(shape: tuple[int, int]) -> tuple[int, int]:
    return (math.ceil(shape[0] / 2), math.ceil(shape[1] / 2))


def _multiscales(
    shapes: list[tuple[int, int]], spacing_um: Spacing | None, *, prefix: str
) -> dict[str, Any]:
    """Return the ``multiscales`` metadata: axes, and scale and shift of every level.

    The centre of a coarser pixel lies half its size less half a fine pixel further in.
    """
    unit = {"unit": "micrometer"} if spacing_um is not None else {}
    size = spacing_um or (1.0, 1.0)
    datasets = []
    for level in range(len(shapes)):
        factor = 2**level
        shift = [(factor - 1) / 2 * float(s) for s in size]
        datasets.append(
            {
                "path": f"{prefix}{level}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [factor * float(s) for s in size]},
                    {"type": "translation", "translation": shift},
                ],
            }
        )
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    return {"multiscales": [{"name": NAME, "axes": axes, "datasets": datasets, "type": "mode"}]}


def _image_label(
    colors: Mapping[int, Rgba], properties: Mapping[int, Mapping[str, Property]]
) -> dict[str, Any]:
    """Return ``image-label`` metadata; lists that would be empty are left out, as required."""
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if colors:
        label["colors"] = [
            {"label-value": int(value), "rgba": [int(part) for part in rgba]}
            for value, rgba in sorted(colors.items())
        ]
    if properties:
        label["properties"] = [
            {"label-value": int(value), **{k: v for k, v in named.items() if _is_json(v)}}
            for value, named in sorted(properties.items())
        ]
    return label


def _is_json(value: Property) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place once the block is through.

    Raises:
        OutputError: when it cannot be written, or a file stands at ``path``.
    """
    if path.exists() and not path.is_dir():
        raise _refused(path, "a file of that name", "no file or an older folder", "move it away")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    old = partial.with_name(partial.name + ".old")
    try:
        yield partial
        if path.exists():
            path.replace(old)
        partial.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or type(error).__name__
        raise _refused(
            path,
            f"no way to write it ({reason})",
            "a folder with room and write permission",
            "free some room or choose another place",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _refused(path: Path, found: str, wanted: str, fix: str) -> OutputError:
    return OutputError(sentence(path, found=found, wanted=wanted, fix=fix))
