"""Label images of any size as OME-Zarr 0.5, written block by block, pyramid included.

``path`` becomes an image group whose levels are the label arrays, with the same arrays as
the label image ``labels/objects`` inside it: viewers that open the folder find an image, and
those that look for labels find them where the specification puts them
(https://ngff.openmicroscopy.org/0.5). Layers, whose objects may overlap, stand beside it as
``labels/layer0``, ``labels/layer1``, ....
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numba
import numpy as np
import zarr
from numpy.typing import NDArray

from domainseg.errors import OutputError, sentence
from domainseg.images.labels import label_dtype
from domainseg.records import Array, Spacing

NAME = "objects"
CHUNK = 1024
SMALLEST_PX = 256
"""The pyramid ends with the level whose longer side is at most this."""

Rgba = tuple[int, int, int, int]
Property = float | int | str | bool
Box = tuple[tuple[int, int], tuple[int, int]]
Each = Callable[[Callable[[Box], None], Iterable[Box]], Any]
"""Calls a function with every box, in any order, perhaps on several threads."""


class LabelPlane(Protocol):
    """Integer labels ``(H, W)`` that are sliced by region: numpy, a memory map, zarr."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W)``."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Look:
    """What viewers are told of labels.

    Attributes:
        spacing_um: pixel size; scales are in pixels, without a unit, where it is None.
        colors: RGBA in 0 to 255 of labels.
        properties: what is known of labels (area, class, ...), by name; values that are not
            finite are left out, since JSON has none.
    """

    spacing_um: Spacing | None = None
    colors: Mapping[int, Rgba] | None = None
    properties: Mapping[int, Mapping[str, Property]] | None = None


@dataclass(frozen=True, slots=True)
class LabelStore:
    """An OME-Zarr folder of labels in the making.

    Attributes:
        planes: the full resolution of each label image, ``objects`` first.
        groups: the zarr group of each.
        look: what viewers are told.
    """

    planes: tuple[zarr.Array[Any], ...]
    groups: tuple[zarr.Group, ...]
    look: Look

    def write(self, box: Box, layers: Sequence[Array]) -> None:
        """Write the labels of a box: of one layer, or of several and the highest of each pixel.

        Boxes begin and end at multiples of CHUNK, or at the border of the image; any number
        of them may be written at a time.
        """
        (y0, x0), (y1, x1) = box
        flat = layers[0] if len(layers) == 1 else np.maximum.reduce(layers)
        shown = [flat] if len(layers) == 1 else [flat, *layers]
        for plane, labels in zip(self.planes, shown, strict=True):
            plane[y0:y1, x0:x1] = labels.astype(plane.dtype, copy=False)

    def build_pyramids(self, each: Each) -> None:
        """Fill the coarser levels.

        Each halves the last by the commonest label of 2 x 2 pixels (an object before
        background, then the first in raster order, where counts tie).
        """
        for group, plane in zip(self.groups, self.planes, strict=True):
            shapes = [(int(plane.shape[0]), int(plane.shape[1]))]
            finer = plane
            while max(shapes[-1]) > SMALLEST_PX:
                shapes.append((math.ceil(shapes[-1][0] / 2), math.ceil(shapes[-1][1] / 2)))
                coarser = _create(group, len(shapes) - 1, shapes[-1], plane.dtype)
                each(_halving(finer, coarser), chunk_boxes(shapes[-1]))
                finer = coarser
            self._describe(group, shapes)

    def _describe(self, group: zarr.Group, shapes: list[tuple[int, int]]) -> None:
        spacing = self.look.spacing_um
        name = group.basename
        told = self.look if name == NAME else Look()
        group.attrs["ome"] = {
            "version": "0.5",
            **_multiscales(name, shapes, spacing, prefix=""),
            "image-label": _image_label(told.colors or {}, told.properties or {}),
        }
        if name == NAME:
            root = zarr.open_group(group.store, mode="r+", zarr_format=3)
            nested = _multiscales(name, shapes, spacing, prefix=f"labels/{NAME}/")
            root.attrs["ome"] = {"version": "0.5", **nested}
            names = [one.basename for one in self.groups]
            root["labels"].attrs["ome"] = {"version": "0.5", "labels": names}


@contextmanager
def label_store(
    path: Path, *, shape: tuple[int, int], largest: int, look: Look, layers: int = 1
) -> Iterator[LabelStore]:
    """Yield a store that takes the place of ``path`` once the block is through.

    uint16 where ``largest`` fits, else uint32. What an interrupted block left is deleted.

    Raises:
        OutputError: when ``largest`` is above 4294967295, the folder cannot be written, or a
            file stands at ``path``.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(
            sentence(
                path,
                found="a file of that name",
                wanted="no file or an older folder",
                fix="move it away",
            )
        )
    dtype = np.dtype(label_dtype(path, largest))
    partial = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    try:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
        root = zarr.open_group(partial, mode="w", zarr_format=3)
        names = list(dict.fromkeys((NAME, *plane_names(layers))))
        groups = tuple(root.create_group(f"labels/{name}") for name in names)
        yield LabelStore(tuple(_create(g, 0, shape, dtype) for g in groups), groups, look)
        if path.exists():
            path.replace(old)
        partial.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or type(error).__name__
        raise OutputError(
            sentence(
                path,
                found=f"no way to write it ({reason})",
                wanted="a folder with room and write permission",
                fix="free some room or choose another place",
            )
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def chunk_boxes(shape: tuple[int, int]) -> Iterator[Box]:
    """Yield the boxes of the chunks of an array ``(H, W)``, in raster order."""
    for y in range(0, shape[0], CHUNK):
        for x in range(0, shape[1], CHUNK):
            yield (y, x), (min(y + CHUNK, shape[0]), min(x + CHUNK, shape[1]))


def plane_names(layers: int) -> tuple[str, ...]:
    """Return the name of the labels of each layer: NAME where there is one alone."""
    return (NAME,) if layers == 1 else tuple(f"layer{layer}" for layer in range(layers))


def stored_names(path: Path) -> tuple[str, ...]:
    """Return the names of the labels of each layer in a finished folder, as `plane_names`."""
    listed = zarr.open_group(path / "labels", mode="r").attrs["ome"]
    assert isinstance(listed, dict)
    names = [str(name) for name in cast("Sequence[object]", listed["labels"])]
    return tuple(name for name in names if name != NAME) or (NAME,)


def open_label_plane(path: Path, name: str = NAME) -> zarr.Array[Any]:
    """Return the full resolution of a label image of a finished folder, ``(H, W)``, lazy."""
    return zarr.open_array(path / "labels" / name / "0", mode="r")


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
            if (
                2 * y + 1 < height
                and 2 * x + 1 < width
                and labels[2 * y, 2 * x + 1] == best
                and labels[2 * y + 1, 2 * x] == best
                and labels[2 * y + 1, 2 * x + 1] == best
            ):
                out[y, x] = best  # most of any image
                continue
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


def _halving(finer: zarr.Array[Any], coarser: zarr.Array[Any]) -> Callable[[Box], None]:
    def halve(box: Box) -> None:
        (y0, x0), (y1, x1) = box
        source = np.ascontiguousarray(finer[2 * y0 : 2 * y1, 2 * x0 : 2 * x1])
        out = np.empty((y1 - y0, x1 - x0), source.dtype)
        commonest_of_four(source, out)
        coarser[y0:y1, x0:x1] = out

    return halve


def _create(
    group: zarr.Group, level: int, shape: tuple[int, int], dtype: np.dtype[Any]
) -> zarr.Array[Any]:
    return group.create_array(
        str(level),
        shape=shape,
        chunks=(min(CHUNK, shape[0]), min(CHUNK, shape[1])),
        dtype=dtype,
        fill_value=0,
        dimension_names=("y", "x"),
    )


def _multiscales(
    name: str, shapes: list[tuple[int, int]], spacing_um: Spacing | None, *, prefix: str
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
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    return {"multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mode"}]}


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
