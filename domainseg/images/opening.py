"""``open_image``: which format reads which file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from domainseg.errors import InputError, sentence
from domainseg.images.files import existing_file, location_of
from domainseg.images.image import Image
from domainseg.images.npy import open_npy
from domainseg.images.ome_zarr_image import is_ome_zarr, open_ome_zarr
from domainseg.images.raster import open_raster
from domainseg.images.slide import ENDINGS as SLIDES
from domainseg.images.slide import open_slide
from domainseg.images.tiff import open_tiff


class Opener(Protocol):
    """What a format supplies: the image of a file, before a pixel is read."""

    def __call__(
        self, path: Path, select: Mapping[str, object], /, *, skip_damaged: bool = False
    ) -> Image:
        """Return the image, whose damaged tiles are refused or skipped."""
        ...


FORMATS: dict[str, Opener] = {
    ".png": open_raster,
    ".jpg": open_raster,
    ".jpeg": open_raster,
    ".bmp": open_raster,
    ".tif": open_tiff,
    ".tiff": open_tiff,
    ".btf": open_tiff,
    ".tf8": open_tiff,
    ".npy": open_npy,
    ".svs": open_tiff,
    **dict.fromkeys(SLIDES, open_slide),
    ".zarr": open_ome_zarr,
}
"""The opener of each file ending, lower case. A format is one file and its lines here.

An OME-Zarr image is a folder, whatever its ending.
"""


def open_image(
    path: str | os.PathLike[str],
    *,
    select: Mapping[str, object] | None = None,
    skip_damaged: bool = False,
) -> Image:
    """Return the image at ``path``, lazy: pixels are read when it is sliced.

    Args:
        path: a file whose ending is in FORMATS, an OME-Zarr folder, or the URL of one
            (``http://``, ``s3://``, whatever fsspec reads).
        select: what to take of a stack, by name or index: ``channel`` (one or a list),
            ``z`` and ``t`` (index, ``max`` or ``mean``), ``series`` (the image of a file with
            several), and ``page`` for pages of unknown meaning (as ``z``, or ``channel`` to
            take each as a channel). Projections are computed region by region.
        skip_damaged: read tiles, strips and chunks that are damaged as 0, and put them into
            ``Image.damaged``, instead of refusing the region that meets one.

    Raises:
        MissingInputError: when it is not there or is empty.
        InputError: when it is another folder, of an unknown format, damaged, or a stack that
            ``select`` does not resolve; when a server does not answer.
        DamagedTileError: later, by a region that meets a damaged tile.
    """
    location = location_of(path)
    chosen = dict(select or {})
    ending = PurePosixPath(str(location)).suffix.lower()
    if not isinstance(location, Path) and ending in FORMATS and ending != ".zarr":
        raise InputError(
            sentence(
                location,
                found=f"the URL of a {ending} file",
                wanted="that of an OME-Zarr image, which is read chunk by chunk",
                fix="download the file and name it",
            )
        )
    if is_ome_zarr(location):
        return open_ome_zarr(location, chosen, skip_damaged=skip_damaged)
    file = existing_file(Path(location))
    opener = FORMATS.get(ending)
    if opener is None:
        raise InputError(
            sentence(
                file,
                found=f"the ending '{file.suffix}'",
                wanted=f"one of {', '.join(FORMATS)}",
                fix="convert it, for example to TIFF",
            )
        )
    return opener(file, chosen, skip_damaged=skip_damaged)
