"""Recipes: one YAML file, complete and readable alone, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from domainseg import catalog
from domainseg.errors import RecipeError, sentence
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.mask_rcnn import MaskRCNN
from domainseg.recipe_errors import (
    Keys,
    MisfitError,
    Origin,
    describe,
    is_text,
    options_at,
    read_sections,
)
from domainseg.recipe_sections import (
    FLAT,
    About,
    Data,
    Evaluate,
    Head,
    ImageRules,
    InstanceRules,
    Model,
    Report,
    Section,
    Splitting,
    Tiling,
    Train,
)
from domainseg.shipped import shipped

LoaderT = TypeVar("LoaderT", bound=catalog.Loader)


class Recipe(Section):
    """A whole recipe."""

    image: ImageRules = Field(default_factory=ImageRules)
    data: Data
    augment: tuple[dict[str, dict[str, Any]], ...] = ()
    model: Model
    head: Head
    train: Train
    tiling: Tiling = Field(default_factory=Tiling)
    instances: InstanceRules = Field(default_factory=InstanceRules)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    report: Report = Field(default_factory=Report)
    about: About = Field(default_factory=About)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        stride = self.model.stride
        sides = {
            "train.patch_px": self.train.patch_px,
            "tiling.core_px": self.tiling.core_px,
            "tiling.halo_px": 0 if self.tiling.halo_px == "measured" else self.tiling.halo_px,
        }
        for name, value in sides.items():
            if value % stride:
                raise MisfitError(
                    tuple(name.split(".")),
                    f"is {value}, wanted a multiple of {stride}, the stride of model.depth "
                    f"{self.model.depth}; change it",
                )
        self._families_fit()
        split = self.instances.split
        parts = split == "prominence" or (
            isinstance(split, dict) and "prominence" in split.values()
        )
        if self.head.name in FLAT and parts:
            raise MisfitError(
                ("instances", "split"),
                f"is prominence, but head {self.head.name} draws no height to split by; use "
                "head.name=height or instances.split=none",
            )
        return self

    def _families_fit(self) -> None:
        """Raise MisfitError where model and head, or rules of objects, do not go together."""
        model, head = self.model, self.head
        if model.family != head.family:
            heads = catalog.names(one for one in catalog.HEADS if one.family == model.family)
            raise MisfitError(
                ("head", "name"),
                f"is {head.name}, but model {model.name} draws {model.family}; use "
                f"{' or '.join(heads)}",
            )
        if head.family != "objects":
            return
        width = model.semantic_channels if isinstance(model, MaskRCNN) else None
        if isinstance(head, PanopticHead) != (width is not None):
            raise MisfitError(
                ("model", "semantic_channels"),
                f"is {width or 'null'} with head {head.name}, wanted a width with head panoptic, "
                "and null without; change one",
            )
        rules = self.instances
        unfit = {
            "split": rules.split is not None,
            "link_px": bool(rules.link_px),
            "merge_classes": rules.merge_classes,
        }
        if on := [name for name, value in unfit.items() if value]:
            raise MisfitError(
                ("instances", on[0]),
                f"is set, but head {head.name} finds each object by itself; leave it out",
            )
        if self.tiling.symmetries != 1:
            raise MisfitError(
                ("tiling", "symmetries"),
                f"is {self.tiling.symmetries}, but head {head.name} draws no maps to average; "
                "use 1",
            )
        if self.train.equal_size_px is not None:
            raise MisfitError(
                ("train", "equal_size_px"),
                f"is set, but head {head.name} counts every object alike; leave it out",
            )

    def splits(self, classes: Sequence[str]) -> tuple[bool, ...]:
        """Return for each class whether its touching objects are parted.

        Raises:
            RecipeError: ``instances.split`` names a class that is not one of ``classes``.
        """
        split = self.instances.split
        drawn: Splitting = "none" if self.head.name in FLAT else "prominence"
        if not isinstance(split, dict):
            return ((split or drawn) == "prominence",) * len(classes)
        require_classes("instances.split", split, classes)
        return tuple(split.get(name, drawn) == "prominence" for name in classes)

    def links(self, classes: Sequence[str]) -> tuple[int | None, ...] | None:
        """Return for each class the gap across which its objects become one; None for no class.

        Raises:
            RecipeError: ``instances.link_px`` names a class that is not one of ``classes``.
        """
        gaps = self.instances.link_px
        if not gaps:
            return None
        require_classes("instances.link_px", gaps, classes)
        return tuple(gaps.get(name) for name in classes)

    def to_yaml(self) -> str:
        """Return the recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return self.model_dump(mode="json")


def require_classes(where: str, named: Iterable[str], classes: Sequence[str]) -> None:
    """Raise RecipeError where an option ``where`` names a class that is not one of ``classes``."""
    if unknown := sorted(set(named) - set(classes)):
        raise RecipeError(
            sentence(
                where,
                found=f"'{unknown[0]}'",
                wanted=f"classes of the recipe ({', '.join(classes)})",
                fix="correct the name",
            )
        )


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in ``path`` with ``key.path=value`` overrides put in.

    Values are read as YAML, but text options (``data.root``) as they stand. ``path`` may be
    the bare name of a recipe that ships.

    Raises:
        RecipeError: the file is not there or not YAML, a key is unknown, a value does not
            fit, or two parts do not go together; names file, line and key.
    """
    file = _find(Path(path))
    values, node = read_sections(file, wanted="data, model, head, train")
    changed = frozenset([_put(values, override, Recipe) for override in overrides])
    return _validate(values, Origin(str(file), node, changed))


def recipe_from_json(values: Mapping[str, Any], *, where: str) -> Recipe:
    """Return the recipe that ``Recipe.to_json`` gave, as a model file holds it.

    Raises:
        RecipeError: a key is unknown or a value does not fit; names ``where`` and the key.
    """
    return _validate(values, Origin(where))


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return ``recipe`` with ``key.path=value`` overrides put in.

    Raises:
        RecipeError: as `load_recipe`.
    """
    values = recipe.to_json()
    changed = frozenset([_put(values, override, Recipe) for override in overrides])
    return _validate(values, Origin("recipe", overridden=changed))


def loader_options(kind: type[LoaderT], overrides: Sequence[str]) -> LoaderT:
    """Return a loader of the catalogue with ``key=value`` overrides of its defaults.

    Raises:
        RecipeError: an override is not an option or does not fit.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        _put(values, override, kind)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        origin = Origin("command line")
        raise RecipeError(describe(error, origin, values=values, kind=kind)) from None


def _find(path: Path) -> Path:
    """Return the file that ``path`` names: itself, or a recipe that ships."""
    if path.is_file():
        return path
    names = sorted(p.stem for p in shipped("recipes").glob("*.yaml"))
    if path.suffix in ("", ".yaml") and path.parent == Path() and path.stem in names:
        return shipped("recipes") / f"{path.stem}.yaml"
    near = get_close_matches(path.stem, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"these ship: {', '.join(names)}."
    raise RecipeError(f"{path}: found no such file, wanted a recipe; {hint}")


def _put(values: dict[str, Any], override: str, kind: type) -> Keys:
    """Put one ``key.path=value`` into ``values``, those of a ``kind``; return its keys."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise RecipeError(
            sentence(
                "command line", found=f"'{override}'", wanted="key.path=value", fix="correct it"
            )
        )
    *parents, last = keys = tuple(key.split("."))
    section = values
    for parent in parents:
        inner = section.setdefault(parent, {})
        if inner is None:
            inner = section[parent] = {}
        if not isinstance(inner, dict):
            raise RecipeError(
                sentence(
                    "command line",
                    found=f"'{key}'",
                    wanted=f"the key of a section, which {parent} is not",
                    fix=f"set {parent} itself",
                )
            )
        section = inner
    section[last] = _value(text, options_at(kind, parents, values).get(last), override)
    return keys


def _value(text: str, annotation: Any, override: str) -> Any:
    """Return what an override sets, read as YAML; text stays as it was written."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        if is_text(annotation):
            return text
        raise RecipeError(
            sentence("command line", found=f"'{override}'", wanted="a YAML value", fix="quote it")
        ) from error
    # A folder named 2024, or one with " #" in its name, is no number and no comment.
    quoted = text[:1] in ("'", '"') and isinstance(value, str)
    return text if is_text(annotation) and value is not None and not quoted else value


def _validate(values: Mapping[str, Any], origin: Origin) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(describe(error, origin, values=values, kind=Recipe)) from None
