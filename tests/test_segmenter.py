"""An image through a model: grids, ranges, layers, and what is assumed or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from domainseg.errors import InputError, ModelFileError, RecipeError
from domainseg.images.normalise import Range
from domainseg.model_plane import (
    group_range,
    group_ranges,
    model_plane,
    model_shape,
    object_diameter,
)
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.model_file import find_model, read_model, save_model
from domainseg.recipe import recipe_from_json
from domainseg.records import Entry, Instances, Sample
from domainseg.segmenter import choose_device, choose_precision, open_segmenter, segment
from domainseg.sources import ClassMap, Source
from domainseg.tiling.forward import MapMaker, forward_maps
from domainseg.tiling.grid import Lattice

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
Values = Callable[..., dict[str, Any]]


def sample_of(
    labels: NDArray[np.int32], *, spacing_um: tuple[float, float] | None = None
) -> Sample:
    """Return a grey image, 240 on objects and 10 elsewhere."""
    image = np.where(labels > 0, 240, 10).astype(np.uint8)[None]
    return Sample("disc", image, ("grey",), spacing_um=spacing_um)


def test_bright_discs_are_found_where_they_are(bright_model: Write, discs: Draw) -> None:
    labels = discs((90, 150), (20, 30, 9), (60, 120, 12), (70, 20, 5))
    segmenter, card = open_segmenter(bright_model())
    made = segment(segmenter, sample_of(labels))
    np.testing.assert_array_equal(made.labels[0], labels)
    assert card.classes == ("cell",)
    assert made.warnings == ()
    assert made.decoded.scores.tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert made.intensity.low.tolist() == [0, 0, 0]
    objects = made.instances()
    assert objects.ids.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(objects.to_label_map(), labels)


def test_results_come_in_the_pixels_of_the_input(bright_model: Write, discs: Draw) -> None:
    labels = discs((60, 60), (20, 20, 9), (40, 44, 9))
    model = bright_model(data={"spacing_um": 0.5})
    for spacing in ((0.25, 0.25), (1.0, 1.0), (0.5, 1.0), (0.5, 0.125)):
        segmenter, _ = open_segmenter(model)
        made = segment(segmenter, sample_of(labels, spacing_um=spacing))
        assert made.grid.scale_yx == (spacing[0] / 0.5, spacing[1] / 0.5)
        assert made.labels.shape == (1, 60, 60)
        assert made.labels.max() == 2
        wrong = (made.labels[0] != labels).mean()
        assert wrong < 0.04, spacing


def test_an_object_that_vanishes_between_pixels_shifts_no_other(
    bright_model: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model grid is four times finer: what is one pixel there may miss every pixel here.
    image = np.full((1, 16, 16), 10, np.uint8)
    image[0, 2:5, 2:5] = 240
    image[0, 10:14, 10:14] = 240
    segmenter, _ = open_segmenter(bright_model(data={"spacing_um": 0.25}))
    sample = Sample("two", image, ("grey",), spacing_um=(1.0, 1.0))
    first = segment(segmenter, sample)
    assert first.instances().ids.tolist() == [1, 2]
    from domainseg import segmenter as room

    real = vars(room)["labels_to_source"]

    def losing(labels: NDArray[np.int32], grid: Any) -> NDArray[np.int32]:
        found = np.asarray(real(labels, grid))
        return np.where(found == 1, 0, found).astype(np.int32)

    monkeypatch.setattr(room, "labels_to_source", losing)
    objects = segment(segmenter, sample).instances()
    assert objects.ids.tolist() == [2]
    assert objects.scores[0] == first.decoded.scores[1]


def test_a_model_at_a_diameter_scales_by_the_one_given(bright_model: Write, discs: Draw) -> None:
    labels = discs((60, 60), (20, 20, 9))
    segmenter, _ = open_segmenter(bright_model(data={"diameter_px": 10.0}))
    made = segment(segmenter, sample_of(labels), diameter_px=20.0)
    assert made.grid.scale_yx == (0.5, 0.5)
    assert made.warnings == ()
    made = segment(segmenter, sample_of(labels))
    assert made.grid.scale_yx == (1.0, 1.0)
    text = "object diameter not given: 10 px assumed, that of the training images"
    assert made.warnings == (text,)


def test_layers_may_overlap_and_are_numbered_through(bright_model: Write) -> None:
    image = np.full((3, 20, 20), 10, np.uint8)
    image[0, 2:10, 2:10] = 240
    image[1, 6:14, 6:14] = 240
    model = bright_model(
        head={"name": "semantic", "activation": "sigmoid"},
        classes=("a", "b"),
    )
    segmenter, _ = open_segmenter(model)
    made = segment(segmenter, Sample("two", image, ("red", "green", "blue")))
    assert made.labels.shape == (2, 20, 20)
    assert set(np.unique(made.labels[0])) == {0, 1}
    assert set(np.unique(made.labels[1])) == {0, 2}
    objects = made.instances()
    assert objects.classes.tolist() == [0, 1]
    assert objects.areas_px().tolist() == [64, 64]
    assert objects.boxes.tolist() == [[[2, 2], [10, 10]], [[6, 6], [14, 14]]]
    with pytest.raises(ValueError, match="overlap"):
        objects.to_label_map()


def test_layers_that_see_whole_windows_are_named_where_there_are_several(
    bright_model: Write, discs: Draw
) -> None:
    segmenter, _ = open_segmenter(bright_model(whole_window_layers=("a (GroupNorm)", "b (Pool)")))
    small, large = discs((64, 64), (20, 20, 9)), discs((65, 64), (20, 20, 9))
    assert segment(segmenter, sample_of(small)).warnings == ()
    assert segment(segmenter, sample_of(large)).warnings == (
        "the tiling shows in the maps: 2 layers of the network, a (GroupNorm) the first, "
        "see whole windows",
    )


def test_the_network_sees_values_between_zero_and_one(recipe_values: Values) -> None:
    values = recipe_values(data={"normalise": {"low_percentile": 10.0, "high_percentile": 90.0}})
    recipe = recipe_from_json(values, where="test")
    image = np.arange(100, dtype=np.uint16).reshape(1, 10, 10)
    plane = model_plane(recipe, Sample("ramp", image, ("grey",)), diameter_px=None)
    pixels = plane[:, 0:10, 0:10]
    assert plane.shape == (3, 10, 10)
    assert pixels.dtype == plane.dtype == np.float32
    assert pixels.min() == 0
    assert pixels.max() == 1
    expected = np.clip((np.arange(100) - 9) / 80, 0, 1).reshape(10, 10)
    np.testing.assert_allclose(pixels[1], expected, atol=1e-6)
    np.testing.assert_array_equal(plane[:, 3:6, 2:9], pixels[:, 3:6, 2:9])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_as_stored_give_the_bits_of_those_in_the_range(
    recipe_values: Values, dtype: type[np.unsignedinteger[Any]]
) -> None:
    recipe = recipe_from_json(recipe_values(data={"normalise": {}}), where="test")
    rng = np.random.default_rng(5)
    image = (rng.random((3, 70, 90)) ** 3 * np.iinfo(dtype).max).astype(dtype)
    image[1] = 7  # a channel without a range
    plane = model_plane(recipe, Sample("a", image, ("red", "green", "blue")), diameter_px=None)
    assert plane.stored is not None
    head = recipe.head
    assert not isinstance(head, DetectionHead)
    maker = MapMaker(
        nn.Identity(), lambda scores: head.maps(scores, classes=1), 1, torch.device("cpu")
    )
    ranged = replace(maker, intensity=plane.intensity)
    wanted = maker.scores(torch.from_numpy(plane[:, 0:70, 0:90][None]))
    before = image.copy()
    found = ranged.scores(torch.from_numpy(np.asarray(plane.stored[:, 0:70, 0:90])[None]))
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert (image == before).all()
    lattice = Lattice(32, 16, 16)
    one, two = forward_maps(maker, plane, lattice), forward_maps(ranged, plane.stored, lattice)
    assert (one.foreground == two.foreground).all()
    assert (one.height == two.height).all()


class _Unread:
    """A plane that nothing may be read of."""

    shape, dtype = (1, 40, 60), np.dtype(np.uint8)

    def __getitem__(self, key: object) -> Any:
        raise AssertionError("a pixel was read")


@pytest.mark.parametrize("diameter_px", [5.0, 8.0, 20.0])
def test_the_shape_on_the_model_grid_takes_no_pixel(
    recipe_values: Values, diameter_px: float
) -> None:
    values = recipe_values(data={"normalise": {}, "diameter_px": 5.0})
    recipe = recipe_from_json(values, where="test")
    found = model_shape(recipe, Sample("a", _Unread(), ("grey",)), diameter_px=diameter_px)
    sample = Sample("a", np.ones((1, 40, 60), np.uint8), ("grey",))
    assert found == model_plane(recipe, sample, diameter_px=diameter_px).grid.model_shape
    with pytest.raises(InputError, match="channels"):
        model_shape(recipe, Sample("a", _Unread(), ("x", "y")), diameter_px=diameter_px)


def test_pixels_that_are_resampled_or_real_are_not_given_as_stored(recipe_values: Values) -> None:
    values = recipe_values(data={"normalise": {}, "diameter_px": 5.0})
    recipe = recipe_from_json(values, where="test")
    image = np.arange(400, dtype=np.uint16).reshape(1, 20, 20)
    assert model_plane(recipe, Sample("a", image, ("grey",)), diameter_px=10.0).stored is None
    assert model_plane(recipe, Sample("a", image, ("grey",)), diameter_px=5.0).stored is not None
    real = image.astype(np.float32)
    assert model_plane(recipe, Sample("a", real, ("grey",)), diameter_px=5.0).stored is None


def test_a_constant_image_is_black(recipe_values: Values) -> None:
    recipe = recipe_from_json(recipe_values(data={"normalise": {}}), where="test")
    image = np.full((1, 4, 4), 77, np.uint8)
    plane = model_plane(recipe, Sample("flat", image, ("grey",)), diameter_px=None)
    assert not plane[:, 0:4, 0:4].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_range_of_a_group_is_that_of_its_images_as_one(
    recipe_values: Values, dtype: type[np.generic]
) -> None:
    recipe = recipe_from_json(
        recipe_values(data={"channels": "grey", "normalise": {"scope": "group"}}), where="test"
    )
    rng = np.random.default_rng(0)
    images = [(200 * rng.random((1, 8, 5 + i))).astype(dtype) for i in range(4)]
    ignores = [None, rng.random((8, 6)) > 0.5, None, rng.random((8, 8)) > 0.5]
    loads: list[int] = []

    def load(number: int) -> Sample:
        loads.append(number)
        return Sample(str(number), images[number], ("grey",), ignore=ignores[number])

    found = group_range(recipe.data, load, 4)
    counted = [
        image[0].ravel() if mask is None else image[0][~mask]
        for image, mask in zip(images, ignores, strict=True)
    ]
    whole = np.concatenate(counted)
    low, high = (np.percentile(whole, p, method="inverted_cdf") for p in (1.0, 99.8))
    assert found.low.tolist() == [np.float32(low)]
    assert found.high.tolist() == [np.float32(high)]
    passes = 3 if dtype is np.float32 else 2
    assert loads == [0, 1, 2, 3] * passes


BRIGHTNESS = {"a1": 10, "a2": 200, "b1": 100}


class Plates:
    classes = ("cell",)

    def entries(self) -> list[Entry]:
        return [Entry(name, group=name[0]) for name in BRIGHTNESS]

    def load(self, entry: Entry) -> Sample:
        image = np.full((1, 3, 3), BRIGHTNESS[entry.id], np.uint8)
        return Sample(entry.id, image, ("grey",), group=entry.group)


def test_every_group_has_one_range_whatever_the_part_of_its_images(recipe_values: Values) -> None:
    data = Plates()
    source = Source(data, None, ClassMap(("cell",), np.zeros(1, np.int16)))  # type: ignore[arg-type]
    grouped = recipe_from_json(recipe_values(data={"normalise": {"scope": "group"}}), where="test")
    ranges = group_ranges(grouped, source, data.entries()[:1])
    assert ranges.keys() == {"a"}
    assert ranges["a"].low.tolist() == [10, 10, 10]
    assert ranges["a"].high.tolist() == [200, 200, 200]
    both = group_ranges(grouped, source, data.entries())
    assert both["b"].low.tolist() == [100, 100, 100]
    alone = recipe_from_json(recipe_values(data={"normalise": {"scope": "image"}}), where="test")
    assert group_ranges(alone, source, data.entries()) == {}


def test_the_range_that_is_given_is_the_one_that_is_used(bright_model: Write, discs: Draw) -> None:
    labels = discs((60, 60), (20, 20, 9))
    segmenter, _ = open_segmenter(bright_model())
    bright = Range(np.full(3, 0, np.float32), np.full(3, 15, np.float32))
    made = segment(segmenter, sample_of(labels), intensity=bright)
    assert made.intensity is bright
    assert (made.labels > 0).all()


def test_the_diameter_is_that_of_the_median_circle() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[0, :4] = 1
    labels[3:6, 3:6] = 2
    labels[8, :4] = 3
    truth = Instances.from_label_map(labels)
    sample = Sample("a", labels[None], ("grey",), truth=truth)
    assert object_diameter(sample) == pytest.approx(np.sqrt(16 / np.pi))
    assert object_diameter(replace(sample, truth=None)) is None
    none = Instances.from_label_map(np.zeros((9, 9), np.int32))
    assert object_diameter(replace(sample, truth=none)) is None


def test_an_override_that_changes_the_network_is_refused(bright_model: Write) -> None:
    path = bright_model()
    with pytest.raises(ModelFileError) as caught:
        open_segmenter(path, overrides=["data.channels=grey"])
    assert str(caught.value) == (
        f"{path}: found weights of another shape, wanted those of unet with encoder "
        "tf_efficientnet_lite0; drop the override of the model, or train the recipe again."
    )


def test_overrides_reach_decoder_and_lattice(bright_model: Write) -> None:
    path = bright_model()
    segmenter, card = open_segmenter(
        path, overrides=["tiling.core_px=32", "tiling.halo_px=8", "instances.threshold=0.9"]
    )
    assert segmenter.lattice.core_px == 32
    assert segmenter.lattice.halo_px == 8
    assert segmenter.recipe.instances.threshold == 0.9
    _, weights = read_model(path)
    save_model(path, weights, replace(card, halo_px=12))
    assert open_segmenter(path)[0].lattice.halo_px == 12


def test_channels_that_do_not_fit_are_refused(bright_model: Write) -> None:
    segmenter, _ = open_segmenter(bright_model())
    image = np.zeros((2, 5, 5), np.uint8)
    with pytest.raises(InputError) as caught:
        segment(segmenter, Sample("two.tif", image, ("DAPI", "GFP")))
    assert str(caught.value) == (
        "two.tif: found channels DAPI, GFP, wanted data.channels rgb; "
        "give --select channel=0, or image.select: {channel: 0} in the recipe, "
        "or change data.channels."
    )


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RecipeError) as caught:
        choose_device("cuda")
    assert str(caught.value) == (
        "train.device: found 'cuda', which is not here, wanted auto or cpu; change it."
    )
    assert choose_device("auto").type == "cpu"
    assert choose_device("cpu").type == "cpu"


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"
    assert choose_precision("auto", torch.device("mps")) == "fp32"


def test_an_opened_model_that_draws_maps_is_folded() -> None:
    segmenter, _ = open_segmenter(find_model(Path("nuclei")))
    assert segmenter.make_maps.folded
    network = segmenter.make_maps.network
    assert not network.training
    assert not any(isinstance(one, nn.BatchNorm2d) for one in network.modules())
