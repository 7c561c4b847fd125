"""The sections of a recipe: what each holds, its defaults and its limits."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator, with_config

from domainseg import catalog
from domainseg.images.normalise import Normalisation
from domainseg.images.regions import Edge
from domainseg.loaders.splits import Split

Loader = Annotated[catalog.Loader, Field(discriminator="name")]
Model = Annotated[catalog.Model, Field(discriminator="name")]
Head = Annotated[catalog.Head, Field(discriminator="name")]

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
Probability = Annotated[float, Field(gt=0, lt=1)]
DEFAULT_THRESHOLD = 0.5


class Section(BaseModel):
    """A part of a recipe: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageRules(Section):
    """How image files are read.

    Attributes:
        select: what is taken of a stack, by name or index, as in ``{z: max, t: 0}``.
        ignore_edges_px: rows or columns along the edges ``top``, ``bottom``, ``left`` and
            ``right`` that show something else, such as the data bar of a microscope; neither
            training nor scores nor predictions look at them.
    """

    select: dict[str, Any] = Field(default_factory=dict)
    ignore_edges_px: dict[Edge, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


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
        batch: patches that go through the network together.
        accumulate: batches per step, their gradients averaged: a step of many patches on a
            machine that holds few.
        steps_per_epoch: steps between validations.
        object_share: share of patches drawn around an object.
        equal_size_px: objects count alike in the loss whatever their size: at first, each as
            much as a disc of this diameter, px of the model grid (a fifth to eight times per
            pixel), then less and less so; null = every pixel counts alike. For tiny objects
            beside large ones.
        equal_size_ring_px: with ``equal_size_px``, how far around an object the background
            weighs as the object does, px of the model grid; 0 moves outlines of small objects
            outwards, as pixels inside weigh more than those outside.
        learning_rate: peak of AdamW.
        weight_decay: of weights, not of biases and norms.
        warmup_share: share of the steps in which the learning rate rises.
        ema_decay: of the running average of the weights that is kept.
        keep: the running average with the ``best`` validation score, or the ``mean`` of that one
            and of the last: two places on one path, between which errors are often smaller.
        file_precision: of weights of two dimensions and more in the model file; ``fp16`` halves
            the file, and halo and scores in it are those of the halved weights.
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
    accumulate: PositiveInt = 1
    steps_per_epoch: PositiveInt = 100
    max_minutes: PositiveFloat | None = None
    max_epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    object_share: Share = 0.7
    equal_size_px: PositiveFloat | None = None
    equal_size_ring_px: Annotated[float, Field(ge=0)] = 0.0
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_share: Share = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    keep: Literal["best", "mean"] = "best"
    file_precision: Literal["fp32", "fp16"] = "fp32"
    clip_norm: PositiveFloat = 1.0
    patience: PositiveInt | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _ring_of_sizes(self) -> Self:
        if self.equal_size_ring_px and self.equal_size_px is None:
            raise ValueError(
                f"found equal_size_ring_px {self.equal_size_ring_px:g} without equal_size_px, "
                "wanted both or neither; add equal_size_px"
            )
        return self

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
        threshold: smallest foreground probability of an object's pixel; one for all, or one per
            class (.5 where none is given): of thin objects, which a gap cuts in two, a lower one.
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

    threshold: Probability | dict[str, Probability] = DEFAULT_THRESHOLD
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
        coco: report average precision and recall as COCO defines them, of masks and boxes, with
            its cap of 100 objects of a class in an image and without; wants the classes of the
            data to be those of the model.
        panoptic: report panoptic quality, of objects and regions; wants head panoptic.
        tolerance_px: with ``defects``, how far beside an object a call may lie, px.
        min_cover: with ``defects``, share of an object that calls must cover to find it, and
            of a call that must lie on objects not to be false.
        size_bins_px: with ``defects``, lower ends of the sizes (diameter of the circle of
            the same area) that recall is reported by; the last has no upper end.
        false_calls_per_mpx: with ``defects``, where recall is read off the free-response
            curve.
        image_px: with ``defects``, pixels of an image whose largest probabilities score it,
            their mean; about the area of the smallest defect.
        boundary_px: with ``defects``, tolerance of outlines, null = .75 % of the diagonal.
        seed: of the bootstrap that gives the intervals.
    """

    part: Literal["train", "val", "test", "all"] = "test"
    by_class: bool = False
    defects: bool = False
    labels: bool = False
    coco: bool = False
    panoptic: bool = False
    tolerance_px: Annotated[float, Field(ge=0)] = 2.0
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.1
    size_bins_px: Annotated[tuple[float, ...], Field(min_length=1)] = (0, 4, 8, 16, 32, 64)
    false_calls_per_mpx: tuple[Annotated[float, Field(ge=0)], ...] = (0.1, 1.0, 10.0)
    image_px: Annotated[int, Field(ge=1)] = 1
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


class About(Section):
    """What a model made of this recipe says of itself.

    Attributes:
        title: what it is for, in one line.
        cards: data sets it is trained on, by their cards: licence and citation come with them.
        licence: of the weights, as SPDX writes it, null = not stated.
        limits: what it is not for, one sentence each.
    """

    title: str | None = None
    cards: tuple[str, ...] = ()
    licence: str | None = None
    limits: tuple[str, ...] = ()


class Report(Section):
    """What the page says beside the figures.

    Attributes:
        title: heading of the page, null = the run's name.
    """

    title: str | None = None
