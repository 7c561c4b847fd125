"""What is called outside of a training: images of the same data, changed ones, others.

    python benchmarks/outside.py MODEL DATA

MODEL keeps how its training images look. Printed are the share of DATA's validation and test images
that are named although they are as the training's (false alarms), the share of test images that are
named after each change, by kind, and which pictures of scikit-image are. Then images are resampled
by several factors, for a model that scales them: of those whose true median diameter is beyond the
sizes of the training, and of the others, the share whose sizes are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from diameter import rescaled
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data as pictures

from domainseg.diameter import compared
from domainseg.images.appearance import Looks, appearance
from domainseg.images.channels import RGB
from domainseg.model_plane import model_plane
from domainseg.models.model_file import find_model, read_card
from domainseg.outside import RECORD_KEY, Found, scales_images, sizes_seen
from domainseg.recipe import Recipe, recipe_from_json, with_overrides
from domainseg.records import Sample
from domainseg.runs import Model, RunOptions, open_model
from domainseg.segmenter import segment
from domainseg.sources import open_source

Pixels = NDArray[np.uint8]
NAMES = ("astronaut", "camera", "coffee", "chelsea", "coins", "rocket", "page", "text", "brick")
OTHERS = (*NAMES, "grass", "gravel", "moon", "retina", "immunohistochemistry", "hubble_deep_field")

FACTORS = (0.25, 0.5, 1, 2, 4)


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 50, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(gaussian_filter(pixels, (0, 4, 4)))


def _empty(pixels: Pixels) -> Pixels:
    return np.random.default_rng(0).poisson(10, pixels.shape).astype(np.uint8)


def _saturated(pixels: Pixels) -> Pixels:
    top = max(float(np.quantile(pixels, 0.9)), 1.0)
    made: Pixels = np.clip(pixels * (255 / top), 0, 255).astype(np.uint8)
    return made


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "inverted": lambda pixels: 255 - pixels,
    "a tenth of the pixels saturated": _saturated,
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
    card = read_card(find_model(options.model))
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
    if scales_images(recipe, card):
        _print_sizes(options.model, options.data)


def _print_sizes(path: Path, data: Path) -> None:
    """Print how many images of other scales are named for their sizes."""
    model = open_model(path, RunOptions())
    segmenter, sizes = model.segmenter, sizes_seen(model.card)
    assert sizes is not None
    recipe = with_overrides(segmenter.recipe, [f"data.root={data}"])
    source = open_source(recipe)
    for part, entries in (("val", source.splits.val), ("test", source.splits.test)):
        for factor in FACTORS:
            named: dict[bool, list[bool]] = {True: [], False: []}
            for entry in entries:
                one = rescaled(source.load(entry), factor)
                if one is not None:
                    beyond = not sizes.include(one.diameter_px)
                    named[beyond].append(_sized(model, one.sample))
            said = [f"{sum(named[beyond])} of {len(named[beyond])}" for beyond in (True, False)]
            print(f"{part}, x {factor:g}: named {said[0]} beyond, {said[1]} within", flush=True)


def _sized(model: Model, sample: Sample) -> bool:
    """Return whether the sizes of an image's objects are named."""
    segmenter, card = model.segmenter, model.card
    plane = model_plane(segmenter.recipe, sample, diameter_px=None)
    objects = segment(segmenter, sample).instances()
    found = Found.of(np.sqrt(4 / np.pi * objects.areas_px()), objects.scores)
    record, _ = compared(segmenter, card, sample, plane, found, area=None)
    return record[RECORD_KEY]["size"] is not None


def _picture(name: str) -> Sample:
    pixels: NDArray[Any] = getattr(pictures, name)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    planes = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))
    return Sample(name, planes.astype(np.uint8), RGB)


if __name__ == "__main__":
    main()
