"""The folder of a training: new, interrupted or finished."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from domainseg.atomic import atomic_text, make_folder
from domainseg.errors import InputError, OutputError, sentence
from domainseg.recipe import Recipe, load_recipe, with_overrides
from domainseg.runs import difference

MODEL = "model.safetensors"
RESOLVED = "recipe.yaml"
IMAGES = "images.sha256"
FREE = frozenset({"data.root", "train.workers", "evaluate", "report"})
"""What a resumed training may be told otherwise: none of it changes its weights."""


def plan_training(recipe: Path, out: Path, *, overrides: Sequence[str], resume: bool) -> Recipe:
    """Return the recipe to run; with ``resume`` its end is the one that was planned before.

    Raises:
        RecipeError: the recipe cannot be read.
        OutputError: ``out`` holds a training that is not to be resumed, or another one, or
            cannot be created.
    """
    plan = load_recipe(recipe, overrides)
    resolved = out / RESOLVED
    if resume and resolved.is_file():
        return _resumed(plan, load_recipe(resolved), out)
    if (out / MODEL).exists() or (out / "checkpoints").exists():
        raise OutputError(
            sentence(
                out,
                found=f"a training without its {RESOLVED}" if resume else "a training",
                wanted="both, or neither to begin with" if resume else "a new folder",
                fix="choose another folder" if resume else "go on with --resume, or choose another",
            )
        )
    make_folder(out)
    return plan


def _resumed(plan: Recipe, before: Recipe, out: Path) -> Recipe:
    """Return ``plan`` with the steps of ``before``, which must be the same training."""
    if plan.train.max_minutes is not None:
        ends = [f"train.max_steps={before.train.max_steps}", "train.max_minutes=null"]
        if before.train.max_steps is not None:
            plan = with_overrides(plan, ends)
    if changed := difference(before.to_json(), plan.to_json(), leave_out=FREE):
        raise OutputError(
            sentence(
                out,
                found=f"a training with another {changed}",
                wanted="the recipe that it began with",
                fix="resume with that recipe, or choose another folder",
            )
        )
    return plan


def minutes_before(out: Path) -> float:
    """Return the minutes that an interrupted training trained, 0 without one."""
    path = out / "metrics.csv"
    if not path.is_file():
        return 0.0
    with path.open(encoding="utf-8", newline="") as file:
        return max((float(row["minutes"]) for row in csv.DictReader(file)), default=0.0)


def keep_digest(digest: str, out: Path, *, resume: bool) -> None:
    """Write down what was prepared; a resumed training must be shown the same.

    Raises:
        InputError: it is another.
    """
    path = out / IMAGES
    if resume and (out / "checkpoints").exists() and path.is_file():
        before = path.read_text(encoding="utf-8").strip()
        if before != digest:
            raise InputError(
                sentence(
                    out,
                    found="a training on other images or labels",
                    wanted="those that it began with, prepared by the same version",
                    fix="restore them, or choose another folder",
                )
            )
    atomic_text(path, digest + "\n")
