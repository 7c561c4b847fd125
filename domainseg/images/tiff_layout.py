"""What the pages of a TIFF mean: which image, which axes, which channels, which pixel size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tifffile

from domainseg.errors import InputError, sentence
from domainseg.images.files import damaged
from domainseg.images.pixel_size import (
    ome_image,
    spacing_from_aperio,
    spacing_from_imagej,
    spacing_from_resolution,
)
from domainseg.images.select import Axis, Pick, pick_series
from domainseg.records import Spacing

AXIS_NAMES = {"T": "t", "Z": "z", "C": "channel", "S": "channel", "I": "page", "Q": "page"}
"""Names in ``image.select`` of tifffile's axis codes; others are the code in lower case."""
SLIDES = ("svs", "scn", "ndpi", "bif", "avs", "qpi", "philips")
"""Kinds whose first image is the scan and whose others are its label and overviews."""
COLOURS = ("red", "green", "blue")
ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
_UNITS: dict[int, str] = {tifffile.RESUNIT.INCH: "inch", tifffile.RESUNIT.CENTIMETER: "cm"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of an image whose planes are pages.

    Attributes:
        axes: of the pages, slowest first, with the channel axis if pages are channels.
        samples: names of the samples inside a page.
    """

    axes: tuple[Axis, ...]
    samples: tuple[str, ...]

    def planes(self, picks: Sequence[Pick]) -> list[list[int]]:
        """Return the pages to project for each page channel, as positions among the pages.

        ``picks`` says what to take of each stack axis, in their order.
        """
        stack = iter(picks)
        taken = [
            Pick(tuple(range(axis.length)), as_channels=True)
            if axis.name == "channel"
            else next(stack)
            for axis in self.axes
        ]
        pages = np.arange(math.prod(axis.length for axis in self.axes))
        pages = pages.reshape([axis.length for axis in self.axes])
        pages = np.asarray(pages[np.ix_(*(pick.indices for pick in taken))])
        channels = [i for i, pick in enumerate(taken) if pick.as_channels]
        projected = [i for i, pick in enumerate(taken) if not pick.as_channels]
        count = math.prod(pages.shape[i] for i in channels)
        planes: list[list[int]] = pages.transpose(channels + projected).reshape(count, -1).tolist()
        return planes

    def channel_names(self, pages: int, samples: Sequence[str]) -> tuple[str, ...]:
        """Return the name of every channel: ``pages`` page channels times ``samples``."""
        labels = next((axis.labels for axis in self.axes if axis.name == "channel"), ("",))
        if len(labels) != pages:
            labels = tuple(f"c{i}" for i in range(pages))
        if len(samples) == 1:
            return tuple(label or samples[0] for label in labels)
        return tuple(f"{label} {sample}".strip() for label, sample in product(labels, samples))


def series_of(
    path: Path, tif: tifffile.TiffFile, select: Mapping[str, object]
) -> tuple[int, tifffile.TiffPageSeries]:
    """Return the image that is meant and its position.

    Reduced copies do not count as images, save the named overviews of a slide.

    Raises:
        InputError: when there are several and ``select`` does not say which.
    """
    found = list(enumerate(tif.series))
    # An ImageJ stack has one directory; when its planes are cut off, one plane seems left.
    cut_stack = tif.is_imagej and not tif.is_ome and found and found[0][1].kind != "imagej"
    if not found or cut_stack:
        raise damaged(path, "TIFF")
    slide = found[0][1].kind in SLIDES
    if slide and "series" not in select:
        return found[0]
    full = [item for item in found if slide or not item[1].keyframe.is_reduced] or found
    labels = tuple(
        series.name or f"{series.keyframe.imagewidth} x {series.keyframe.imagelength}"
        for _, series in full
    )
    return full[pick_series(path, Axis("series", len(full), labels), select)]


def layout_of(path: Path, series: tifffile.TiffPageSeries, names: Sequence[str]) -> Layout:
    """Return the axes of ``series``; ``names`` are the channel names its metadata gives.

    Raises:
        InputError: when a page is a volume, or pages and axes do not agree.
    """
    frame = series.keyframe
    separate, depth, _, _, contiguous = frame.shaped
    samples = separate * contiguous
    lengths = zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True)
    codes = [
        (code, int(length))
        for code, length in lengths
        if code not in "YX" and not (code == "S" and length == samples)
    ]
    if depth > 1:
        raise InputError(
            sentence(
                path,
                found=f"pages that are volumes {depth} planes deep",
                wanted="one plane a page",
                fix="export the stack with one page for each plane",
            )
        )
    if math.prod(length for _, length in codes) != len(series) and series.dataoffset is None:
        raise damaged(path, "TIFF")
    return Layout(_axes(codes, names), _sample_names(frame, samples))


def described(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, position: int
) -> tuple[Spacing | None, tuple[str, ...]]:
    """Return pixel size and channel names as the file gives them, best source first.

    OME-XML, ImageJ, Aperio's description, then resolution tags in inch or cm unless they
    are a printer's (``pixel_size.PRINT_DPI``).
    """
    page = series.keyframe
    spacing: Spacing | None = None
    names: tuple[str, ...] = ()
    if tif.is_ome:
        spacing, names = ome_image(tif.ome_metadata or "", position)
    elif tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        spacing = spacing_from_imagej(page.resolution, metadata)
        labels = metadata.get("Labels") or ()
        names = tuple(labels) if len(labels) == metadata.get("channels") else ()
    elif tif.is_svs:
        spacing = spacing_from_aperio(page.description)
    if spacing is None and page.resolutionunit in _UNITS:
        x, y = page.resolution
        spacing = spacing_from_resolution(y, x, _UNITS[page.resolutionunit])
    return spacing, names


def _axes(codes: Sequence[tuple[str, int]], names: Sequence[str]) -> tuple[Axis, ...]:
    """Return named axes; a second axis of one name gets a number, channel axes excepted."""
    axes: list[Axis] = []
    for code, length in codes:
        name = AXIS_NAMES.get(code, code.lower())
        again = sum(axis.name.rstrip("0123456789") == name for axis in axes)
        labels: tuple[str, ...] = ()
        if name == "channel":
            given = names if len(names) == length else [""] * length
            labels = tuple(n or (f"c{i}" if length > 1 else "") for i, n in enumerate(given))
        elif again:
            name = f"{name}{again + 1}"
        axes.append(Axis(name, length, labels))
    return tuple(axes)


def _sample_names(frame: tifffile.TiffPage, samples: int) -> tuple[str, ...]:
    if frame.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR):
        known = COLOURS[:samples]
    else:
        alone = samples == 1 + sum(extra in ALPHA for extra in frame.extrasamples)
        known = ("grey",) if alone else ()
    extras = [""] * (samples - len(frame.extrasamples)) + [
        "alpha" if extra in ALPHA else "" for extra in frame.extrasamples
    ]
    return known + tuple(extras[i] or f"c{i}" for i in range(len(known), samples))
