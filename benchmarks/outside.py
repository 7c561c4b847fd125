"""What is called outside of a training: images of the same data, changed ones, others.

    python benchmarks/outside.py MODEL DATA

MODEL keeps how its training images look. Printed are the share of DATA's validation and test images
that are named although they are as the training's (false alarms), the share of test images that are
named after each change, by kind, and which pictures of scikit-image are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data as pictures

from domainseg.images.appearance import Looks, appearance
from domainseg.images.channels import RGB
from domainseg.model_plane import model_plane
from domainseg.models.model_file import read_card
from domainseg.recipe import Recipe, recipe_from_json, with_overrides
from domainseg.records import Sample
from domainseg.sources import open_source

Pixels = NDArray[np.uint8]
NAMES = ("astronaut", "camera", "coffee", "chelsea", "coins", "rocket", "page", "text", "brick")
OTHERS = (*NAMES, "grass", "gravel", "moon", "retina", "immunohistochemistry", "hubble_deep_field")


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 50, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(gaussian_filter(pixels, (0, 4, 4)))


def _empty(pixels: Pixels) -> Pixels:
    return np.random.default_rng(0).poisson(10, pixels.shape).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "inverted": lambda pixels: 255 - pixels,
    "four times the exposure": lambda p: np.clip(4 * p.astype(int), 0, 255).astype(np.uint8),
    "blurred by 4 px": _blurred,
    "noise of 50 grey levels": _noisy,
    "empty field, noise only": _empty,
    "one value": lambda pixels: np.full_like(pixels, 7),
}


def unlike(looks: Looks, recipe: Recipe, sample: Sample) -> bool:
    """Return whether an image is named."""
    return looks.unlike(appearance(model_plane(recipe, sample, diameter_px=None))) is not None


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    card = read_card(options.model)
    looks = Looks.from_json(card.seen.get("looks", {}))
    if looks is None:
        raise SystemExit(f"{options.model} does not keep how its training images look")
    recipe = recipe_from_json(card.recipe, where=str(options.model))
    recipe = with_overrides(recipe, [f"data.root={options.data}"])
    source = open_source(recipe)
    for part, entries in (("val", source.splits.val), ("test", source.splits.test)):
        named = [unlike(looks, recipe, source.load(entry)) for entry in entries]
        print(f"{part}: {sum(named)} of {len(named)} named")
    for change, make in CHANGES.items():
        kinds: dict[str, list[bool]] = {}
        for entry in source.splits.test:
            sample = source.load(entry)
            changed = replace(sample, image=make(np.asarray(sample.image[:, :, :])))
            kinds.setdefault(str(entry.kind), []).append(unlike(looks, recipe, changed))
        shown = ", ".join(f"{kind} {np.mean(named):.2f}" for kind, named in sorted(kinds.items()))
        print(f"{change}: {shown}")
    passed = [name for name in OTHERS if not unlike(looks, recipe, _picture(name))]
    print(f"of {len(OTHERS)} other pictures not named: {', '.join(passed) or 'none'}")


def _picture(name: str) -> Sample:
    pixels: NDArray[Any] = getattr(pictures, name)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    planes = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))
    return Sample(name, planes.astype(np.uint8), RGB)


if __name__ == "__main__":
    main()
