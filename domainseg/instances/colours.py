"""Colours that stay apart: one per class, the same in every export, and one per object."""

from __future__ import annotations

import colorsys

Rgb = tuple[int, int, int]

CLASS_COLOURS: tuple[Rgb, ...] = (
    (255, 200, 0),
    (0, 190, 255),
    (255, 80, 80),
    (60, 220, 100),
    (230, 110, 255),
    (255, 145, 0),
    (0, 230, 205),
    (255, 160, 200),
)
"""Bright on dark and on stained backgrounds; neighbours differ in hue and in lightness."""

_GOLDEN_RATIO = 0.6180339887498949
# Blues and violets are left out: they vanish on dark ground and on stained nuclei.
_FIRST_HUE, _HUES = 0.8, 0.78
_SATURATIONS = (1.0, 0.65, 0.85)


def class_colour(index: int) -> Rgb:
    """Return the colour of class ``index``; beyond the fixed ones, that of an object."""
    return CLASS_COLOURS[index] if index < len(CLASS_COLOURS) else object_colour(index)


def object_colour(label: int) -> Rgb:
    """Return the colour of an object: hues step by the golden ratio, so near numbers differ."""
    hue = (_FIRST_HUE + _HUES * (label * _GOLDEN_RATIO % 1.0)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, _SATURATIONS[label % len(_SATURATIONS)], 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
