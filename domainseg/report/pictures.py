"""Pixels made small enough to travel inside a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainseg.report.document import Picture

LONGEST_PX = 720
BUDGET_BYTES = 8_000_000
"""For the whole gallery, before base64, which adds a third."""

_Media = Literal["image/png", "image/webp"]
# Each step is smaller than the one before; lossless as long as it fits, since
# lossy compression smears lines one pixel wide.
_STEPS: tuple[tuple[int, _Media], ...] = (
    (LONGEST_PX, "image/png"),
    (LONGEST_PX, "image/webp"),
    (480, "image/webp"),
    (320, "image/webp"),
    (200, "image/webp"),
)


@dataclass(frozen=True, slots=True)
class Shot:
    """RGB uint8 ``(H, W, 3)`` pixels with the words that go with them."""

    pixels: NDArray[np.uint8]
    alt: str
    title: str
    note: str = ""


def encode(shot: Shot) -> Picture:
    """Return the shot as a lossless PNG of its own size."""
    return _picture(shot, Image.fromarray(shot.pixels), "image/png")


def encode_within(shots: Sequence[Shot], *, budget: int = BUDGET_BYTES) -> list[Picture]:
    """Return the shots, all at the largest size and best format that together fit the budget.

    The smallest step is 200 px of lossy WebP; it is taken even where it does not fit.
    """
    small = [_shrunk(Image.fromarray(shot.pixels), LONGEST_PX) for shot in shots]
    pictures: list[Picture] = []
    for longest, media in _STEPS:
        pictures = [
            _picture(shot, _shrunk(image, longest), media)
            for shot, image in zip(shots, small, strict=True)
        ]
        if sum(len(picture.data) for picture in pictures) <= budget:
            break
    return pictures


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB uint8 pixels with the longer side at most 720 px, averaged by area."""
    return np.asarray(_shrunk(Image.fromarray(pixels), LONGEST_PX), np.uint8)


def _shrunk(image: Image.Image, longest: int) -> Image.Image:
    ratio = longest / max(image.size)
    if ratio >= 1:
        return image
    size = tuple(max(1, round(side * ratio)) for side in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BOX, reducing_gap=None)


def _picture(shot: Shot, image: Image.Image, media: _Media) -> Picture:
    file = io.BytesIO()
    if media == "image/png":
        image.save(file, "PNG")
    else:
        image.save(file, "WEBP", quality=88, method=4)
    return Picture(
        data=file.getvalue(),
        media=media,
        width=image.width,
        height=image.height,
        alt=shot.alt,
        title=shot.title,
        note=shot.note,
    )
