"""``open_image``: which format reads which file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from domainseg.errors import InputError, sentence
from domainseg.images.files import existing_file
from domainseg.images.image import Image
from domainseg.images.npy import open_npy
from domainseg.images.raster import open_raster
from domainseg.images.tiff import open_tiff

Opener = Callable[[Path, Mapping[str, object]], Image]

FORMATS: dict[str, Opener] = {
    ".png": open_raster,
    ".jpg": open_raster,
    ".jpeg": open_raster,
    ".bmp": open_raster,
    ".tif": open_tiff,
    ".tiff": open_tiff,
    ".btf": open_tiff,
    ".tf8": open_tiff,
    ".svs": open_tiff,
    ".npy": open_npy,
}
"""The opener of each file ending, lower case. A format is one file and its lines here."""


def open_image(
    path: str | os.PathLike[str], *, select: Mapping[str, object] | None = None
) -> Image:
    """Return the image at ``path``, lazy: pixels are read when it is sliced.

    Args:
        path: a file whose ending is in FORMATS.
        select: what to take of a stack, by name or index: ``channel`` (one or a list),
            ``z`` and ``t`` (index, ``max`` or ``mean``), ``series`` (the image of a file with
            several), and ``page`` for pages of unknown meaning (as ``z``, or ``channel`` to
            take each as a channel). Projections are computed region by region.

    Raises:
        MissingInputError: when the file is not there or is empty.
        InputError: when it is a folder, of an unknown format, damaged, or a stack that
            ``select`` does not resolve.
    """
    file = existing_file(Path(path))
    opener = FORMATS.get(file.suffix.lower())
    if opener is None:
        raise InputError(
            sentence(
                file,
                found=f"the ending '{file.suffix}'",
                wanted=f"one of {', '.join(FORMATS)}",
                fix="convert it, for example to TIFF",
            )
        )
    return opener(file, dict(select or {}))
