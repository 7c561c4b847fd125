"""Label images: integer planes ``(H, W)``, 0 for background, one number per object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, OutputError, sentence
from domainseg.images.files import existing_file
from domainseg.images.npy import mapped_array
from domainseg.images.raster import stored_values
from domainseg.images.tiff import open_tiff
from domainseg.records import Array, Spacing

TILED_ABOVE_PX = 1 << 22
"""Label images of more pixels are written in tiles of TILE x TILE, others in strips."""
TILE = 512
LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".btf", ".tf8", ".npy")


def read_labels(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return a label image ``(H, W)`` in the integer dtype it is stored in.

    PNG, BMP, TIFF, npy and the folder of an OME-Zarr of labels; bilevel images give uint8 0
    and 1, palette images their indices.

    Raises:
        MissingInputError: when the file is not there or is empty.
        InputError: when it is damaged, is not one plane, or holds values that cannot be
            labels: colours, real or complex numbers, negative integers.
    """
    if is_label_store(Path(path)):
        return checked_labels(path, _stored(Path(path)))
    file = existing_file(Path(path))
    labels = _planes(file)
    if labels.ndim != 2:
        raise _refused(
            file,
            f"an image of shape {labels.shape}, which cannot be a label image",
            "a plane (H, W) with one integer per pixel",
            "save the object numbers as one grey 16-bit channel, not as colours",
        )
    return checked_labels(file, labels)


def is_label_store(path: Path) -> bool:
    """Tell whether a path is a folder of OME-Zarr."""
    return path.is_dir() and path.suffix.lower() == ".zarr"


def _stored(path: Path) -> Array:
    """Return the full resolution of the label image in an OME-Zarr as a run leaves it."""
    try:
        return np.asarray(zarr.open_array(path / "labels" / "objects" / "0", mode="r")[:])
    except (OSError, ValueError, KeyError) as error:
        raise _refused(
            path,
            "no label image that can be read",
            "labels/objects, as predict writes it",
            "predict the image again, or export the labels as TIFF",
        ) from error


def checked_labels(where: object, labels: Array) -> NDArray[Any]:
    """Return ``labels`` as they are, bool as uint8.

    Raises:
        InputError: for a dtype that cannot be a label, or negative values.
    """
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "ui":
        raise _refused(
            where,
            f"{labels.dtype} values, which cannot be labels",
            "integers",
            "if they are whole numbers, save them with labels.astype('uint16') or 'uint32'",
        )
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        y, x = np.unravel_index(int(np.argmin(labels)), labels.shape)
        raise _refused(
            where,
            f"the negative label {labels[y, x]} at y {y}, x {x}",
            "0 for background and positive numbers for objects",
            "renumber the objects and set everything else to 0",
        )
    return labels


def write_labels(
    path: str | os.PathLike[str], labels: Array, *, spacing_um: Spacing | None
) -> None:
    """Write ``(H, W)`` labels as one OME-TIFF page, deflate-compressed, whole or not at all.

    uint16 where every label fits, else uint32. The pixel size stands in the OME-XML, exact,
    and in the resolution tags (pixels per cm), so that QuPath and Fiji read it; nothing is
    written of a size that is not known. The same labels give the same bytes.

    Raises:
        InputError: for values that cannot be labels.
        OutputError: when a label is above 4294967295, or the file cannot be written.
    """
    target = Path(path)
    plane = np.ascontiguousarray(checked_labels(target, np.asarray(labels)))
    plane = plane.astype(label_dtype(target, int(plane.max()) if plane.size else 0), copy=False)
    resolution: dict[str, Any] = {}
    if spacing_um is not None:
        per_cm = (1e4 / spacing_um[1], 1e4 / spacing_um[0])
        resolution = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    with atomic_path(target) as partial:
        tifffile.imwrite(
            partial,
            plane,
            photometric="minisblack",
            compression="zlib",
            predictor=True,
            tile=(TILE, TILE) if plane.size > TILED_ABOVE_PX else None,
            rowsperstrip=None if plane.size > TILED_ABOVE_PX else 256,
            bigtiff=plane.nbytes > 1 << 31,
            description=_ome_xml(plane, spacing_um),
            metadata=None,
            software="domainseg",
            **resolution,
        )


def label_dtype(where: object, largest: int) -> type[np.uint16] | type[np.uint32]:
    """Return uint16 where ``largest`` fits, else uint32.

    Raises:
        OutputError: when it fits neither.
    """
    if largest <= np.iinfo(np.uint16).max:
        return np.uint16
    if largest <= np.iinfo(np.uint32).max:
        return np.uint32
    raise OutputError(
        sentence(
            where,
            found=f"label {largest}",
            wanted="labels up to 4294967295, the most that image formats hold",
            fix="renumber the objects",
        )
    )


def _planes(file: Path) -> Array:
    """Return the stored values of a label file, whatever their shape and dtype."""
    ending = file.suffix.lower()
    if ending == ".npy":
        return np.array(mapped_array(file), subok=False)
    if ending in (".png", ".bmp"):
        return stored_values(file)
    if ending not in LABEL_ENDINGS:
        raise _refused(
            file,
            f"the ending '{file.suffix}'",
            f"a lossless label image, one of {', '.join(LABEL_ENDINGS)}",
            "export the labels as PNG or TIFF",
        )
    with open_tiff(file, {}, stored=True) as image:
        pixels = image.read()
    return pixels[0] if len(pixels) == 1 else pixels


def _ome_xml(plane: Array, spacing_um: Spacing | None) -> str:
    """Return the least OME-XML (schema 2016-06) that names type, size and pixel size.

    Written here because the library adds a random UUID, which would make two equal results
    different files.
    """
    size = ""
    if spacing_um is not None:
        y, x = (float(length) for length in spacing_um)
        size = f' PhysicalSizeX="{x!r}" PhysicalSizeY="{y!r}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="labels">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{plane.dtype.name}"'
        f' SizeX="{plane.shape[1]}" SizeY="{plane.shape[0]}" SizeC="1" SizeZ="1" SizeT="1"{size}>'
        '<Channel ID="Channel:0:0" Name="labels" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )


def _refused(where: object, found: str, wanted: str, fix: str) -> InputError:
    return InputError(sentence(where, found=found, wanted=wanted, fix=fix))
