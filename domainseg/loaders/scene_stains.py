"""How covered planes become micrographs: dye, light, shot noise, as functions of position.

Each stain has a kernel that lays down what absorbs or emits (``dye``), before the
optics blur it, and one that turns the blurred dye into what the camera counts
(``expose``). Both see absolute pixel positions only, so a crop equals the whole.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from domainseg.loaders.scene_cells import (
    Cover,
    bell,
    kernel,
    key_of_column,
    key_of_row,
    lattice,
    mix,
)
from domainseg.records import Array

Stain = Literal["fluorescence", "stained", "brightfield"]
CHANNELS: dict[Stain, tuple[str, ...]] = {
    "fluorescence": ("nuclei",),
    "stained": ("red", "green", "blue"),
    "brightfield": ("grey",),
}
"""Channel names by stain."""

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
"""Optical density per unit of haematoxylin in red, green, blue (Ruifrok and Johnston 2001)."""
EOSIN = np.array([0.07, 0.99, 0.11])
"""Optical density per unit of eosin in red, green, blue (Ruifrok and Johnston 2001)."""


@kernel
def _grain(seed: Any, y: float, x: float, scale: float) -> float:
    """Return texture in [0, 1) of two octaves, the coarser ``scale`` px wide."""
    coarse = lattice(seed, y / scale, x / scale)
    return 0.65 * coarse + 0.35 * lattice(seed + np.uint64(1), y * 2.3 / scale, x * 2.3 / scale)


@kernel
def _fluorescence(seed: Any, corner: Any, diameter: float, cover: Any, dye: Any) -> None:
    """Fill ``dye (1, h, w)``: domed nuclei with chromatin and dim nucleoli, haze, background."""
    labels, rho, tones, glow = cover
    for i in range(labels.shape[0]):
        y = corner[0] + i
        for j in range(labels.shape[1]):
            x = corner[1] + j
            haze = lattice(seed, y / (5.0 * diameter), x / (5.0 * diameter))
            value = 0.035 + 0.04 * haze + 0.05 * glow[i, j]
            if labels[i, j] > 0:
                # Texture belongs to the nucleus: without the shift it would run on
                # across the contact of two nuclei and hide it.
                shift = 37.0 * (labels[i, j] % 1009)
                grain = _grain(seed + np.uint64(2), y + shift, x, 0.22 * diameter)
                spots = lattice(
                    seed + np.uint64(4), (y + shift) * 3.4 / diameter, x * 3.4 / diameter
                )
                dome = np.sqrt(1.04 - rho[i, j] * rho[i, j])
                body = (0.42 + 0.5 * dome) * (0.72 + 0.5 * grain)
                if spots > 0.76:
                    body *= 1.0 - 2.2 * (spots - 0.76)
                value += 0.85 * tones[i, j] * body
            dye[0, i, j] = value


@kernel
def _stained(seed: Any, corner: Any, diameter: float, cover: Any, dye: Any) -> None:
    """Fill ``dye (2, h, w)``: haematoxylin in clumped chromatin, eosin in fibrous tissue."""
    labels, rho, tones, glow = cover
    for i in range(labels.shape[0]):
        y = corner[0] + i
        for j in range(labels.shape[1]):
            x = corner[1] + j
            bend = 1.6 * diameter * lattice(seed, y / (3.0 * diameter), x / (3.0 * diameter))
            fibre = lattice(seed + np.uint64(1), (y + bend) * 4.5 / diameter, (x - bend) / diameter)
            # Turned off the lattice's axes and bent: holes in tissue are not boxes.
            patch = _grain(
                seed + np.uint64(2), 0.8 * y + 0.6 * x + bend, 0.8 * x - 0.6 * y, 2.8 * diameter
            )
            tissue = min(max((patch - 0.27) * 7.0, 0.06), 1.0)
            tissue = max(tissue, min(1.6 * glow[i, j], 1.0))
            dye[1, i, j] = tissue * (0.22 + 0.2 * fibre + 0.12 * patch)
            dye[0, i, j] = 0.06 * tissue * fibre
            if labels[i, j] > 0:
                shift = 37.0 * (labels[i, j] % 1009)
                grain = _grain(seed + np.uint64(5), y + shift, x, 0.2 * diameter)
                rim = max(rho[i, j] - 0.72, 0.0) * 0.9
                dye[0, i, j] += (0.35 + 0.65 * tones[i, j]) * (0.32 + 1.05 * grain + rim)
                dye[1, i, j] *= 0.6


@kernel
def _brightfield(seed: Any, corner: Any, diameter: float, cover: Any, dye: Any) -> None:
    """Fill ``dye (1, h, w)``: phase-like cells, grey and granular with a bright rim outside."""
    labels, rho, tones, _ = cover
    for i in range(labels.shape[0]):
        y = corner[0] + i
        for j in range(labels.shape[1]):
            x = corner[1] + j
            dust = lattice(seed, y / (0.5 * diameter), x / (0.5 * diameter))
            value = 0.56 + 0.03 * (dust - 0.5)
            depth, tone = rho[i, j], tones[i, j]
            if labels[i, j] > 0:
                shift = 37.0 * (labels[i, j] % 1009)
                grain = _grain(seed + np.uint64(1), y + shift, x, 0.16 * diameter)
                edge = max(depth - 0.66, 0.0) * 2.9
                value -= tone * (0.05 + 0.2 * edge * edge) - 0.3 * tone * (grain - 0.45)
            elif tone > 0.0:
                rise = (depth - 1.12) / 0.14
                value += 0.24 * tone * np.exp(-rise * rise)
            dye[0, i, j] = value


@kernel
def _light(seed: Any, y: float, x: float, field: Any) -> float:
    """Return the light at a point, at most 1: brightest in the middle of the scene, with drifts.

    ``field`` holds the scene's height and width, the unevenness and the diameter.
    """
    height, width, unevenness, diameter = field
    v, u = 2.0 * y / height - 1.0, 2.0 * x / width - 1.0
    drift = lattice(seed, y / (9.0 * diameter), x / (9.0 * diameter))
    light: float = 1.0 - unevenness * (0.3 * (v * v + u * u) + 0.4 * drift)
    return light


@kernel
def _counts(value: float, key: Any, noise: float, full: float) -> float:
    """Return what the camera reads of ``value``: shot and reading noise, clipped, in counts.

    Shot noise is the normal limit of the Poisson law: its variance grows with the light.
    """
    spread = noise * np.sqrt(max(value, 0.0) + 0.04)
    share = min(max(value + spread * bell(key), 0.0), 1.0)
    return float(np.floor(share * full + 0.5))


@kernel
def _expose_grey(seed: Any, corner: Any, field: Any, camera: Any, dye: Any, image: Any) -> None:
    """Fill ``image (1, h, w)`` from one plane of light; ``camera`` holds noise and full scale."""
    noise, full = camera
    for i in range(dye.shape[1]):
        y = corner[0] + i
        row = key_of_row(seed + np.uint64(9), y)
        for j in range(dye.shape[2]):
            x = corner[1] + j
            value = dye[0, i, j] * _light(seed + np.uint64(8), y, x, field)
            image[0, i, j] = _counts(value, key_of_column(row, x), noise, full)


@kernel
def _expose_stained(seed: Any, corner: Any, field: Any, camera: Any, dye: Any, image: Any) -> None:
    """Fill ``image (3, h, w)`` from two dyes by the Beer-Lambert law."""
    noise, full = camera
    for i in range(dye.shape[1]):
        y = corner[0] + i
        row = key_of_row(seed + np.uint64(9), y)
        for j in range(dye.shape[2]):
            x = corner[1] + j
            light = 0.95 * _light(seed + np.uint64(8), y, x, field)
            key = key_of_column(row, x)
            for channel in range(3):
                density = HAEMATOXYLIN[channel] * dye[0, i, j] + EOSIN[channel] * dye[1, i, j]
                own = mix(key + np.uint64(channel + 1))
                image[channel, i, j] = _counts(light * np.exp(-density), own, noise, full)


_DYES: dict[Stain, tuple[Any, int]] = {
    "fluorescence": (_fluorescence, 1),
    "stained": (_stained, 2),
    "brightfield": (_brightfield, 1),
}


def dye(
    stain: Stain, seed: int, *, corner: tuple[int, int], diameter: float, cover: Cover
) -> Array:
    """Return what the stain puts under each pixel, float32 ``(planes, h, w)``, before any blur."""
    lay, planes = _DYES[stain]
    out = np.empty((planes, *cover.labels.shape), np.float32)
    lay(np.uint64(seed & 0xFFFFFFFFFFFFFFFF), corner, diameter, tuple(cover), out)
    return out


def expose(
    stain: Stain,
    seed: int,
    *,
    corner: tuple[int, int],
    field: tuple[float, float, float, float],
    camera: tuple[float, float],
    blurred: Array,
    dtype: np.dtype[Any],
) -> Array:
    """Return the image ``(C, h, w)`` of blurred dye.

    Args:
        stain: which kernel.
        seed: of the scene.
        corner: ``(y, x)`` of the first pixel in the scene.
        field: the scene's height and width in px, unevenness, cell diameter in px.
        camera: noise (standard deviation at full light, as a share of full scale), full scale.
        blurred: what ``dye`` gave, after the optics.
        dtype: unsigned integers that hold full scale.
    """
    image = np.empty((len(CHANNELS[stain]), *blurred.shape[1:]), dtype)
    develop = _expose_stained if stain == "stained" else _expose_grey
    develop(np.uint64(seed & 0xFFFFFFFFFFFFFFFF), corner, field, camera, blurred, image)
    return image
