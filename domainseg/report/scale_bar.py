"""A bar of a round length on a picture, so that sizes can be read off it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SHARE = 0.35
"""Share of the picture's width that the bar may take."""
_EDGE, _THICK, _TEXT = 12, 7, 28
_LIGHT, _DARK = (255, 255, 255), (0, 0, 0)


def round_length(longest: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above ``longest``.

    Raises:
        ValueError: ``longest`` is not above 0.
    """
    if not 0 < longest < math.inf:
        raise ValueError(f"longest is {longest}, wanted above 0")
    power = 10.0 ** math.floor(math.log10(longest))
    # A longest of 0.3 is 2.9999... times 0.1.
    return max(f * power for f in (1, 2, 5) if f * power <= longest * (1 + 1e-9))


def length_words(length_um: float) -> str:
    """Return a length in the unit that keeps its number short."""
    if length_um >= 1000:
        return f"{length_um / 1000:g} mm"
    return f"{length_um:g} µm" if length_um >= 1 else f"{1000 * length_um:g} nm"


def with_scale_bar(pixels: NDArray[np.uint8], *, um_per_px: float | None) -> NDArray[np.uint8]:
    """Return RGB uint8 ``(H, W, 3)`` with a bar below left; one in pixels without a size.

    ``um_per_px`` is the size of a pixel of this picture, along its width; None where the size
    of the image's is not known, whose picture then has no bar.
    """
    if um_per_px is None:
        return pixels
    height, width = pixels.shape[:2]
    length = round_length(width * _SHARE * um_per_px)
    long = length / um_per_px
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    bottom = height - _EDGE
    draw.rectangle(
        (_EDGE - 1, bottom - _THICK - 1, _EDGE + long + 1, bottom + 1), fill=_DARK, width=0
    )
    draw.rectangle((_EDGE, bottom - _THICK, _EDGE + long, bottom), fill=_LIGHT, width=0)
    draw.text(
        (_EDGE, bottom - _THICK - 8),
        length_words(length).replace("µ", "u"),  # the font has no such letter
        fill=_LIGHT,
        font=ImageFont.load_default(_TEXT),
        anchor="ls",
        stroke_width=3,
        stroke_fill=_DARK,
    )
    return np.asarray(image, np.uint8)
