"""What an OME-Zarr hierarchy says of itself: images, axes, levels, channels, pixel size.

OME-Zarr 0.4 (zarr format 2) and 0.5 (zarr format 3): https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images.files import Location, damaged, refusing_damage
from domainseg.images.pixel_size import spacing_from_lengths
from domainseg.images.select import Axis, pick_series
from domainseg.images.zarr_store import ChunkStore
from domainseg.records import Spacing

ZarrFormat = Literal[2, 3]
SPATIAL = ("y", "x")
Group = tuple[ZarrFormat, Mapping[str, Any]]
"""The format and the attributes of a group."""
_NAMES = {"c": "channel", "channel": "channel", "time": "t"}
"""Names in ``image.select`` of axes and axis types; others are the axis' own name."""


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One image of a hierarchy.

    Attributes:
        name: what ``image.select.series`` may call it.
        zarr_format: of its arrays.
        paths: of the arrays of its levels, full resolution first, below the root.
        axes: their names in ``image.select``, in the arrays' order; ``y`` and ``x`` are there.
        channels: the names its metadata gives to channels, or none.
        spacing_um: pixel size of the first level, None when no unit stands there.
    """

    name: str
    zarr_format: ZarrFormat
    paths: tuple[str, ...]
    axes: tuple[str, ...]
    channels: tuple[str, ...]
    spacing_um: Spacing | None


def read_multiscale(store: ChunkStore, select: Mapping[str, object]) -> Multiscale:
    """Return the image of the hierarchy that ``select`` means; a single one needs no words.

    Raises:
        MissingInputError: when there is no zarr hierarchy.
        InputError: when it is no image, or one of several that ``select`` does not choose.
    """
    images = read_multiscales(store)
    axis = Axis("series", len(images), tuple(image.name for image in images))
    return images[pick_series(store.location, axis, select)]


def read_multiscales(store: ChunkStore) -> tuple[Multiscale, ...]:
    """Return the images of a hierarchy, at least one.

    They are those of the group itself, or of the groups of a bioformats2raw hierarchy.

    Raises:
        MissingInputError: when there is no zarr hierarchy.
        InputError: when it is no image, or its metadata is damaged.
    """
    try:
        with refusing_damage(store.location, "OME-Zarr"):
            return _read_multiscales(store)
    except AttributeError as error:  # text or a number where the metadata should have a group
        raise damaged(store.location, "OME-Zarr") from error


def _read_multiscales(store: ChunkStore) -> tuple[Multiscale, ...]:
    root = _attributes(store, "")
    if root is None:
        raise MissingInputError(
            sentence(
                store.location,
                found="nothing (no zarr.json, .zattrs or .zgroup)",
                wanted="an OME-Zarr image",
                fix="check the address",
            )
        )
    if "multiscales" in root[1] or "bioformats2raw.layout" not in root[1]:
        return _images(store.location, root, prefix="", name="")
    images: list[Multiscale] = []
    for name in _series(store):
        group = _attributes(store, f"{name}/")
        if group is None:
            raise damaged(store.location, "OME-Zarr")
        images += _images(store.location, group, prefix=f"{name}/", name=name)
    return tuple(images)


def _images(location: Location, group: Group, *, prefix: str, name: str) -> tuple[Multiscale, ...]:
    """Return the images of one group, by their own names or that of the group."""
    zarr_format, attributes = group
    multiscales = attributes.get("multiscales")
    if not multiscales:
        raise _no_image(location, attributes)
    return tuple(
        _multiscale(
            location,
            described,
            attributes.get("omero") if i == 0 else None,
            prefix=prefix,
            zarr_format=zarr_format,
            name=name or str(described.get("name") or i),
        )
        for i, described in enumerate(multiscales)
    )


def _attributes(store: ChunkStore, prefix: str) -> Group | None:
    """Return the format and the attributes of the group at ``prefix``, None for no group."""
    group = store.document(f"{prefix}zarr.json")
    if group is not None:
        attributes = group.get("attributes", {})
        return 3, attributes.get("ome", attributes)
    attributes = store.document(f"{prefix}.zattrs")
    if attributes is not None:
        return 2, attributes
    return None if store.document(f"{prefix}.zgroup") is None else (2, {})


def _series(store: ChunkStore) -> tuple[str, ...]:
    """Return the groups of a bioformats2raw hierarchy: as it lists them, or numbered."""
    listed = _attributes(store, "OME/")
    if listed is not None and listed[1].get("series"):
        return tuple(str(name) for name in listed[1]["series"])
    names: list[str] = []
    for number in count():
        if _attributes(store, f"{number}/") is None:
            break
        names.append(str(number))
    if not names:
        raise _no_image(store.location, {})
    return tuple(names)


def _multiscale(
    location: Location,
    described: Mapping[str, Any],
    omero: Mapping[str, Any] | None,
    *,
    prefix: str,
    zarr_format: ZarrFormat,
    name: str,
) -> Multiscale:
    axes = described.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, Mapping) for axis in axes):
        version = described.get("version", "unknown")
        raise InputError(
            sentence(
                location,
                found=f"OME-Zarr version {version}, whose axes have no types",
                wanted="version 0.4 or 0.5",
                fix="convert it to one of them",
            )
        )
    names = tuple(_axis_name(axis) for axis in axes)
    if len(set(names)) < len(names) or not set(SPATIAL) <= set(names):
        raise InputError(
            sentence(
                location,
                found=f"axes {', '.join(names)}",
                wanted="y and x, each axis once",
                fix="correct the axes of its multiscales metadata",
            )
        )
    datasets = described["datasets"]
    scales = [
        each.get("coordinateTransformations", ()) for each in (datasets[0], described) if each
    ]
    channels = (omero or {}).get("channels", ())
    return Multiscale(
        name=name,
        zarr_format=zarr_format,
        paths=tuple(f"{prefix}{dataset['path']}" for dataset in datasets),
        axes=names,
        channels=tuple(str(channel.get("label", "")) for channel in channels),
        spacing_um=_spacing(names, axes, scales),
    )


def _axis_name(axis: Mapping[str, Any]) -> str:
    name = str(axis["name"]).lower()
    kind = str(axis.get("type", "")).lower()
    return _NAMES.get(name, _NAMES.get(kind, name))


def _spacing(
    names: Sequence[str], axes: Sequence[Mapping[str, Any]], chain: Sequence[Sequence[Any]]
) -> Spacing | None:
    """Return the pixel size by the scales of ``chain``, one after the other; None if unknown."""
    factors = [1.0] * len(names)
    scaled = False
    for transformations in chain:
        for each in transformations:
            if each.get("type") == "scale" and "scale" in each:
                scaled = True
                factors = [f * float(s) for f, s in zip(factors, each["scale"], strict=True)]
            elif each.get("type") == "scale":
                return None
    lengths = []
    for name in SPATIAL:
        at = names.index(name)
        unit = str(axes[at].get("unit") or "")
        length = spacing_from_lengths(factors[at], factors[at], unit) if scaled else None
        lengths.append(math.nan if length is None else length[0])
    return None if any(math.isnan(length) for length in lengths) else (lengths[0], lengths[1])


def _no_image(location: Location, attributes: Mapping[str, Any]) -> InputError:
    """Return the error for a hierarchy without an image, which names where one may lie."""
    found, fix = "a zarr hierarchy without multiscales metadata", "name the group of an image"
    plate, well = attributes.get("plate"), attributes.get("well")
    if plate is not None:
        wells = [str(each.get("path")) for each in plate.get("wells", ())]
        found = f"a plate of {len(wells)} wells"
        fix = f"name the image of a field, as in {location}/{wells[0] if wells else 'A/1'}/0"
    elif well is not None:
        fields = [str(each.get("path")) for each in well.get("images", ())]
        found = f"a well of {len(fields)} fields"
        fix = f"name one of them, as in {location}/{fields[0] if fields else '0'}"
    elif attributes.get("labels"):
        names = [str(name) for name in attributes["labels"]]
        found = f"a group of label images ({', '.join(names)})"
        fix = f"name one of them, as in {location}/{names[0]}"
    return InputError(sentence(location, found=found, wanted="an OME-Zarr image", fix=fix))
