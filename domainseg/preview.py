"""Pictures of a recipe's data: the truth drawn over the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from domainseg.atomic import atomic_path, make_folder
from domainseg.instances.overlay import overlay
from domainseg.loaders.splits import PARTS
from domainseg.recipe import load_recipe
from domainseg.sources import open_source, truth_labels


def write_previews(
    recipe: Path | str, out: Path | str, *, overrides: Sequence[str] = (), count: int = 4
) -> tuple[Path, ...]:
    """Return the pictures written to ``out/<part>-<id>.png``, ``count`` of each part.

    Raises:
        RecipeError: the recipe cannot be read.
        InputError: the data cannot be used.
    """
    plan = load_recipe(Path(recipe), overrides)
    source = open_source(plan)
    folder = Path(out)
    make_folder(folder)
    written = []
    for part in PARTS:
        for entry in getattr(source.splits, part)[:count]:
            sample = source.load(entry)
            labels, _ = truth_labels(sample, overlapping=plan.head.overlapping)
            path = folder / f"{part}-{entry.id.replace('/', '-')}.png"
            with atomic_path(path) as temporary:
                Image.fromarray(overlay(sample.image, labels)).save(temporary)
            written.append(path)
    return tuple(written)
