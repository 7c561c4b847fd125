"""Recipes: one YAML file, complete and readable alone, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
    with_config,
)

from domainseg import catalog
from domainseg.errors import RecipeError, sentence
from domainseg.images.normalise import Normalisation
from domainseg.loaders.splits import Split
from domainseg.recipe_errors import (
    Keys,
    MisfitError,
    Origin,
    describe,
    is_text,
    options_at,
    refuse_repeated_keys,
    yaml_problem,
)
from domainseg.shipped import shipped

Loader = Annotated[catalog.Loader, Field(discriminator="name")]
Model = Annotated[catalog.Model, Field(discriminator="name")]
Head = Annotated[catalog.Head, Field(discriminator="name")]

LoaderT = TypeVar("LoaderT", bound=catalog.Loader)

# Parts are plain dataclasses that know nothing of validation; here they learn to refuse
# options that they do not have.
for _part in (*catalog.LOADERS, *catalog.MODELS, *catalog.HEADS, Split, Normalisation):
    with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(_part)

Splitting = Literal["prominence", "none"]
FLAT = ("semantic", "pattern")
"""Heads that draw no height: their objects are connected groups of pixels."""
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Area = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of a recipe: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageRules(Section):
    """How image files are read.

    Attributes:
        select: what is taken of a stack, by name or index, as in ``{z: max, t: 0}``.
    """

    select: dict[str, Any] = Field(default_factory=dict)


class Addition(Section):
    """Further data beside that of ``data``, such as made-up images beside real ones.

    Attributes:
        name: what its images are called by: their ids begin with it.
        loader: layout on disk, with its own options.
        root: folder of the data; null for made-up data.
        split: which of its images train, validate, test.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    loader: Loader
    root: str | None = None
    split: Split = Field(default_factory=Split)


class Data(Section):
    """Where images come from and what the network sees of them.

    Attributes:
        loader: layout on disk, with its own options.
        root: folder of the data, relative to where the command runs; null for made-up data.
        also: further data of the same classes.
        channels: ``rgb`` (grey is repeated, alpha dropped), ``grey`` (colour becomes
            luminance), ``die_map`` (a wafer map becomes two channels: is there a die, does
            it fail), or the names of the channels in their order.
        spacing_um: pixel size of the model grid, null = the images' own pixels.
        diameter_px: median object diameter on the model grid, instead of ``spacing_um``.
        size_px: side that both sides of every image become, instead of ``spacing_um``: for
            pictures of one thing whole, such as wafer maps of any number of dies.
        classes: source class to the name it is trained as; null drops a class.
        split: which images train, validate, test.
        normalise: intensity range, of whole images.
    """

    loader: Loader
    root: str | None = None
    also: tuple[Addition, ...] = ()
    channels: Literal["rgb", "grey", "die_map"] | tuple[str, ...] = "rgb"
    spacing_um: PositiveFloat | None = None
    diameter_px: PositiveFloat | None = None
    size_px: PositiveInt | None = None
    classes: dict[str, str | None] | None = None
    split: Split = Field(default_factory=Split)
    normalise: Normalisation = Field(default_factory=Normalisation)

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        names = ("spacing_um", "diameter_px", "size_px")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"found {given[0]} and {given[1]}, wanted one of them, as each sets the model "
                "grid; remove the other"
            )
        return self

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        names = [one.name for one in self.also]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"found also.name '{twice[0]}' twice, wanted one name for each; rename one"
            )
        return self

    @property
    def channel_count(self) -> int:
        """Number of channels of the network's input."""
        if isinstance(self.channels, str):
            return {"rgb": 3, "grey": 1, "die_map": 2}[self.channels]
        return len(self.channels)


class Train(Section):
    """How the network is fitted.

    One of ``max_minutes``, ``max_epochs`` and ``max_steps`` ends it; minutes are turned
    into steps after a timed warm-up, and the recipe written beside the model says how many.

    Attributes:
        seed: of weights, patches and augmentation.
        patch_px: side of a training patch on the model grid, a multiple of the stride.
        margin: side of what is cut out for augmentation, over ``patch_px``.
        batch: patches per step.
        steps_per_epoch: steps between validations.
        object_share: share of patches drawn around an object.
        learning_rate: peak of AdamW.
        weight_decay: of weights, not of biases and norms.
        warmup_share: share of the steps in which the learning rate rises.
        ema_decay: of the running average of the weights that is kept.
        clip_norm: largest gradient norm.
        patience: epochs without a better validation score before it ends.
        precision: ``auto`` is bf16 where the processor computes in it, else fp32.
        device: ``auto`` is a GPU where there is one.
        workers: loader processes; the result does not depend on them.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    patch_px: PositiveInt = 256
    margin: Annotated[float, Field(ge=1, le=3)] = 1.4
    batch: PositiveInt = 8
    steps_per_epoch: PositiveInt = 100
    max_minutes: PositiveFloat | None = None
    max_epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    object_share: Share = 0.7
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_share: Share = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    clip_norm: PositiveFloat = 1.0
    patience: PositiveInt | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        ends = ("max_minutes", "max_epochs", "max_steps")
        given = [name for name in ends if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'no end'}, wanted one of {', '.join(ends)}; "
                f"{'set the others to null' if given else 'add it'}"
            )
        return self


class Tiling(Section):
    """How large images are cut.

    Attributes:
        core_px: side of the part of a window that is kept.
        halo_px: context on each side, or ``measured`` on the trained network.
        batch: windows per forward pass.
        symmetries: 8 averages the network over the rotations and reflections of each
            window, at eight times the cost.
        tissue: look only where a stained slide holds tissue.
    """

    core_px: PositiveInt = 1024
    halo_px: Literal["measured"] | Annotated[int, Field(ge=0)] = "measured"
    batch: PositiveInt = 1
    symmetries: Literal[1, 8] = 1
    tissue: bool = False


class InstanceRules(Section):
    """How maps become objects.

    Attributes:
        threshold: smallest foreground probability of an object's pixel.
        split: ``prominence`` parts touching objects, ``none`` keeps connected groups;
            one for all, or one per class; null = what the head draws (``none`` for semantic).
        prominence: rise of a peak above the saddle that makes it an object of its own.
        merge_classes: let touching pixels of different classes belong to one object.
        min_area_px: smaller objects are dropped, px of the model grid; one for all, or one
            per class.
        max_area_px: larger objects are dropped, null = none.
        min_score: objects with a lower mean foreground probability are dropped; likewise.
        fill_holes: fill holes that lie wholly inside one object.
        link_px: class to the widest gap, px of the model grid, across which its objects
            become one, after the filters; other classes are not linked, null = none is.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    split: Splitting | dict[str, Splitting] | None = None
    prominence: Share = 0.1
    merge_classes: bool = False
    min_area_px: Area | dict[str, Area] = 0
    max_area_px: PositiveInt | None = None
    min_score: Share | dict[str, Share] = 0.0
    fill_holes: bool = True
    link_px: dict[str, Annotated[int, Field(ge=0, le=1024)]] | None = None


class Evaluate(Section):
    """What an evaluation looks at.

    An image that has a label and no drawn truth is always scored by its label, which wants
    the classes of the data to be those of the model.

    Attributes:
        part: part of the split that is scored.
        by_class: match objects within their class too, and report each class.
        defects: report which objects were found and which calls are false, outlines, pixels
            and images ranked by probability: for objects that are thin, tiny or rare.
        labels: report which classes images show, of images with drawn truth too.
        tolerance_px: with ``defects``, how far beside an object a call may lie, px.
        min_cover: with ``defects``, share of an object that calls must cover to find it, and
            of a call that must lie on objects not to be false.
        size_bins_px: with ``defects``, lower ends of the sizes (diameter of the circle of
            the same area) that recall is reported by; the last has no upper end.
        false_calls_per_mpx: with ``defects``, where recall is read off the free-response
            curve.
        boundary_px: with ``defects``, tolerance of outlines, null = .75 % of the diagonal.
        seed: of the bootstrap that gives the intervals.
    """

    part: Literal["train", "val", "test", "all"] = "test"
    by_class: bool = False
    defects: bool = False
    labels: bool = False
    tolerance_px: Annotated[float, Field(ge=0)] = 2.0
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.1
    size_bins_px: Annotated[tuple[float, ...], Field(min_length=1)] = (0, 4, 8, 16, 32, 64)
    false_calls_per_mpx: tuple[Annotated[float, Field(ge=0)], ...] = (0.1, 1.0, 10.0)
    boundary_px: Annotated[float, Field(ge=0)] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _bins_rise(self) -> Self:
        bins = self.size_bins_px
        if any(high <= low for low, high in pairwise(bins)):
            raise ValueError(
                f"found size_bins_px {', '.join(f'{one:g}' for one in bins)}, wanted numbers "
                "that rise; sort them"
            )
        return self


class Report(Section):
    """What the page says beside the figures.

    Attributes:
        title: heading of the page, null = the run's name.
    """

    title: str | None = None


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
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date of month 13 is a ValueError
        raise RecipeError(yaml_problem(str(file), error)) from error
    refuse_repeated_keys(str(file), node)
    if not isinstance(values, dict):
        raise RecipeError(
            sentence(file, found="no sections", wanted="data, model, head, train", fix="add them")
        )
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
