"""Heads: targets by hand, losses that the truth minimises, and encode-decode round trips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainseg.instances.basins import DecodeOptions, decode
from domainseg.models.heads.boundary import BoundaryHead, boundary
from domainseg.models.heads.head import (
    IGNORED,
    Head,
    Truth,
    class_loss,
    dice_loss,
    normalised_distance,
    smooth,
    weighted_mean,
)
from domainseg.models.heads.height import HeightHead
from domainseg.models.heads.semantic import SemanticHead
from domainseg.records import Maps, quantise_height, quantise_logit

Draw = Callable[..., NDArray[np.int32]]

SQUARE = np.zeros((7, 7), np.int32)
SQUARE[1:6, 1:6] = 4


def test_the_normalised_distance_of_a_square_by_hand() -> None:
    expected = np.zeros((7, 7), np.float32)
    expected[1:6, 1:6] = 1 / 3
    expected[2:5, 2:5] = 2 / 3
    expected[3, 3] = 1
    np.testing.assert_allclose(normalised_distance(SQUARE), expected, rtol=1e-6)


def test_the_edge_of_the_image_is_no_edge_of_an_object() -> None:
    labels = np.zeros((3, 4), np.int32)
    labels[:, :3] = 1
    np.testing.assert_allclose(normalised_distance(labels), np.tile([1, 2 / 3, 1 / 3, 0], (3, 1)))
    np.testing.assert_array_equal(normalised_distance(np.ones((2, 2), np.int32)), np.ones((2, 2)))


def test_touching_objects_are_an_edge_to_each_other() -> None:
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 3, 0).astype(np.int32)
    row = [1, 2 / 3, 1 / 3, 1 / 3, 2 / 3, 1]
    np.testing.assert_allclose(normalised_distance(labels), np.tile(row, (3, 1)), rtol=1e-6)


def test_a_target_cut_from_the_whole_image_has_no_false_peak() -> None:
    classes = np.zeros(5, np.int16)
    whole = HeightHead().targets(Truth(SQUARE, classes), classes=1)[:, 4:]
    cut = HeightHead().targets(Truth(SQUARE[4:], classes), classes=1)
    assert whole[1, 0, 3] == pytest.approx(2 / 3)
    assert cut[1, 0, 3] == 1


def test_the_boundary_of_touching_squares_by_hand() -> None:
    labels = np.array(
        [[1, 1, 1, 2, 2, 2, 0, 0, 0], [1, 1, 1, 2, 2, 2, 0, 0, 0], [1, 1, 1, 2, 2, 2, 0, 0, 0]],
        np.int32,
    )
    expected = np.tile(np.array([0, 0, 1, 1, 0, 1, 0, 0, 0], bool), (3, 1))
    np.testing.assert_array_equal(boundary(labels, 1), expected)
    assert boundary(labels, 2)[0].tolist() == [False, True, True, True, True, True] + [False] * 3


def test_a_sigmoid_head_learns_each_class_whole_where_objects_overlap() -> None:
    labels = np.array([[1, 1, 2, 0]], np.int32)
    where = np.array([[[1, 1, 1, 0]], [[0, 0, 1, 0]]], bool)
    truth = Truth(labels, np.array([0, 0, 1], np.int16), presence=where)
    head = SemanticHead(activation="sigmoid")
    targets = head.targets(truth, classes=2)
    np.testing.assert_array_equal(targets, where)
    scores = torch.from_numpy(16 * targets[None] - 8)
    aim, weight = torch.from_numpy(targets[None]), torch.ones(1, 1, 1, 4)
    best = head.loss(scores, aim, weight, classes=2)
    hidden = scores.clone()
    hidden[0, 0, 0, 2] = -8
    assert best < 0.01 < head.loss(hidden, aim, weight, classes=2)
    with pytest.raises(ValueError, match="a truth without presence has no target for sigmoid"):
        head.targets(Truth(labels, truth.classes), classes=2)


def test_heads_say_whether_objects_may_overlap() -> None:
    others: tuple[Head, ...] = (SemanticHead(), HeightHead(), BoundaryHead())
    assert SemanticHead(activation="sigmoid").overlapping
    assert not any(head.overlapping for head in others)


def test_targets_hold_the_class_of_each_object_and_ignore_the_background() -> None:
    labels = np.array([[1, 0, 2]], np.int32)
    truth = Truth(labels, np.array([0, 1, 0], np.int16))
    assert HeightHead().targets(truth, classes=2)[2].tolist() == [[1, IGNORED, 0]]
    assert BoundaryHead().targets(truth, classes=2)[1].tolist() == [[1, IGNORED, 0]]
    assert SemanticHead().targets(truth, classes=2).tolist() == [[[2, 0, 1]]]
    semantic = Truth(labels, truth.classes, np.array([[0, 1, 2]], np.int16))
    # Objects are seen before regions.
    assert SemanticHead().targets(semantic, classes=2).tolist() == [[[2, 1, 1]]]


@pytest.mark.parametrize(
    ("head", "classes", "outputs", "layers"),
    [
        (HeightHead(), 1, 2, 1),
        (HeightHead(), 3, 5, 1),
        (BoundaryHead(), 1, 3, 1),
        (BoundaryHead(), 3, 6, 1),
        (SemanticHead(), 1, 2, 1),
        (SemanticHead(), 3, 4, 1),
        (SemanticHead(activation="sigmoid"), 3, 3, 3),
    ],
)
def test_a_head_says_how_many_maps_and_layers_it_has(
    head: Head, classes: int, outputs: int, layers: int
) -> None:
    assert head.outputs(classes) == outputs
    assert head.layers(classes) == layers
    maps = head.maps(torch.zeros(2, outputs, 4, 4), classes=classes)
    assert maps.foreground.shape == maps.height.shape == maps.classes.shape == (2, layers, 4, 4)
    assert maps.classes.dtype == torch.uint8


HEADS = (
    (HeightHead(), 1),
    (HeightHead(), 2),
    (BoundaryHead(), 1),
    (BoundaryHead(boundary_px=1), 2),
    (SemanticHead(), 1),
    (SemanticHead(), 2),
    (SemanticHead(activation="sigmoid"), 2),
)
PLACES = ((12, 12, 8), (12, 27.5, 8), (34, 34, 9), (34, 12, 6), (46, 34, 4))


def truth_of(labels: NDArray[np.int32], classes: int) -> Truth:
    kinds = (np.arange(labels.max() + 1) % classes).astype(np.int16)
    planes = np.stack([(labels > 0) & (kinds[labels] == index) for index in range(classes)])
    return Truth(labels, kinds, presence=planes)


def encode(head: Head, targets: NDArray[np.float32], classes: int) -> Tensor:
    """Return scores (1, outputs, H, W) that say exactly what the targets say."""
    planes = torch.from_numpy(targets)

    def one_hot(plane: Tensor, count: int) -> Tensor:
        index = torch.where(plane == IGNORED, torch.zeros_like(plane), plane).long()
        return 16.0 * torch.nn.functional.one_hot(index, count).movedim(-1, 0).float() - 8

    if isinstance(head, HeightHead):
        first = [16 * planes[:1] - 8, torch.logit(planes[1:2], eps=1e-6)]
        named = planes[2:]
    elif isinstance(head, BoundaryHead):
        first, named = [one_hot(planes[0], 3)], planes[1:]
    elif head.overlapping:
        first, named = [16 * planes - 8], planes[:0]
    else:
        first, named = [one_hot(planes[0], classes + 1)], planes[1:]
    return torch.cat([*first, *(one_hot(plane, classes) for plane in named)])[None]


def weight_of(labels: NDArray[np.int32]) -> Tensor:
    return torch.ones(1, 1, *labels.shape)


@pytest.mark.parametrize(("head", "classes"), HEADS)
def test_the_truth_has_a_lower_loss_than_anything_perturbed(
    head: Head, classes: int, discs: Draw
) -> None:
    labels = discs((48, 48), *PLACES)
    targets = head.targets(truth_of(labels, classes), classes=classes)
    best = encode(head, targets, classes)
    aim, weight = torch.from_numpy(targets)[None], weight_of(labels)
    lowest = head.loss(best, aim, weight, classes=classes)
    assert torch.isfinite(lowest)
    generator = torch.Generator().manual_seed(0)
    others = [-best, torch.zeros_like(best), best.roll(5, -1)]
    others += [best + 6 * torch.randn(best.shape, generator=generator) for _ in range(5)]
    for other in others:
        assert head.loss(other, aim, weight, classes=classes) > lowest + 1e-3


@pytest.mark.parametrize(("head", "classes"), HEADS)
def test_ignored_pixels_do_not_change_the_loss(head: Head, classes: int, discs: Draw) -> None:
    labels = discs((48, 48), *PLACES)
    targets = head.targets(truth_of(labels, classes), classes=classes)
    scores = torch.randn(
        (1, head.outputs(classes), 48, 48), generator=torch.Generator().manual_seed(1)
    )
    weight = weight_of(labels)
    weight[..., 20:] = 0
    aim = torch.from_numpy(targets)[None]
    before = head.loss(scores, aim, weight, classes=classes)
    elsewhere, other_aim = scores.clone(), aim.clone()
    elsewhere[..., 20:] = 7.0
    other_aim[..., 20:] = 0.0
    assert head.loss(elsewhere, aim, weight, classes=classes) == before
    assert head.loss(scores, other_aim, weight, classes=classes) == before
    elsewhere[..., 10:20] = 7.0
    assert head.loss(elsewhere, aim, weight, classes=classes) != before


@pytest.mark.parametrize(("head", "classes"), HEADS)
def test_a_patch_without_any_weight_has_a_finite_loss(head: Head, classes: int) -> None:
    targets = head.targets(truth_of(SQUARE, classes), classes=classes)
    scores = torch.zeros((1, head.outputs(classes), 7, 7), requires_grad=True)
    loss = head.loss(
        scores, torch.from_numpy(targets)[None], torch.zeros(1, 1, 7, 7), classes=classes
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def decoded(
    head: Head, scores: Tensor, classes: int, *, split: bool
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    maps = head.maps(scores, classes=classes)
    quantised = Maps(
        quantise_logit(maps.foreground[0].numpy()),
        quantise_height(maps.height[0].numpy()),
        maps.classes[0].numpy(),
    )
    found = decode(quantised, DecodeOptions(split=split, prominence=0.1))
    return found.labels, found.classes


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(
    "head",
    [
        HeightHead(smooth_px=1.0),
        HeightHead(smooth_px=0.0),
        BoundaryHead(),
        BoundaryHead(smooth_px=0.0),
    ],
)
def test_maps_of_the_truth_decode_to_the_truth_where_discs_touch(
    head: Head, classes: int, discs: Draw
) -> None:
    labels = discs((48, 48), *PLACES)
    truth = truth_of(labels, classes)
    scores = encode(head, head.targets(truth, classes=classes), classes)
    found, kinds = decoded(head, scores, classes, split=True)
    # Objects are numbered by their first pixel; the discs above are in that order.
    wrong = found[0] != labels
    assert len(kinds) == len(PLACES)
    assert not wrong[labels == 0].any()
    # Where two of one class touch, a pixel on the line between them may change sides.
    assert wrong.mean() < 0.005
    assert kinds.tolist() == truth.classes[1:].tolist()


def test_semantic_maps_of_the_truth_decode_to_its_components(discs: Draw) -> None:
    labels = discs((48, 48), (12, 12, 8), (34, 12, 6), (34, 34, 9))
    truth = truth_of(labels, 2)
    for head in (SemanticHead(), SemanticHead(activation="sigmoid")):
        scores = encode(head, head.targets(truth, classes=2), 2)
        found, kinds = decoded(head, scores, 2, split=False)
        for number, kind in enumerate(kinds, start=1):
            (layer,) = {int(i) for i in np.nonzero(found == number)[0]}
            owner = labels[found[layer] == number]
            assert len(set(owner.tolist())) == 1
            assert owner[0] > 0
            assert (found[layer] == number).sum() == (labels == owner[0]).sum()
            assert kind == truth.classes[owner[0]]
        assert len(kinds) == 3


def test_softmax_foreground_is_the_probability_that_it_is_not_background() -> None:
    scores = torch.randn((1, 4, 3, 3), generator=torch.Generator().manual_seed(0))
    maps = SemanticHead().maps(scores, classes=3)
    torch.testing.assert_close(maps.foreground.sigmoid()[:, 0], 1 - scores.softmax(1)[:, 0])
    torch.testing.assert_close(maps.classes[:, 0].long(), scores[:, 1:].argmax(1))
    parts = BoundaryHead(smooth_px=0).maps(scores[:, :3], classes=1)
    torch.testing.assert_close(parts.foreground.sigmoid()[:, 0], 1 - scores[:, :3].softmax(1)[:, 0])


def test_scores_of_zero_stand_for_the_prior_in_maps_and_loss_alike() -> None:
    target = torch.zeros(1, 1, 2, 2)
    weight = torch.ones(1, 1, 2, 2)
    head = SemanticHead(dice_weight=0, prior=0.02)
    zero = torch.zeros(1, 6, 2, 2)
    made = head.maps(zero, classes=5).foreground.sigmoid()
    torch.testing.assert_close(made, torch.full((1, 1, 2, 2), 0.02))
    assert head.loss(zero, target, weight, classes=5) == pytest.approx(-np.log(0.98), rel=1e-5)
    each = SemanticHead(activation="sigmoid", dice_weight=0, prior=0.02)
    made = each.maps(zero, classes=6).foreground.sigmoid()
    torch.testing.assert_close(made, torch.full((1, 6, 2, 2), 0.02))
    # Which class it is, where it is one, is not the prior's business.
    scores = torch.randn((1, 6, 3, 3), generator=torch.Generator().manual_seed(0))
    plain = SemanticHead().maps(scores, classes=5)
    assert torch.equal(head.maps(scores, classes=5).classes, plain.classes)


def test_smoothing_keeps_a_constant_and_the_sum_and_is_off_at_zero() -> None:
    constant = torch.full((1, 2, 9, 11), 0.3)
    torch.testing.assert_close(smooth(constant, 1.5), constant)
    spike = torch.zeros(1, 1, 31, 31)
    spike[0, 0, 15, 15] = 1
    spread = smooth(spike, 1.5)
    assert spread.sum() == pytest.approx(1.0, abs=1e-5)
    assert spread[0, 0, 15, 16] / spread[0, 0, 15, 15] == pytest.approx(np.exp(-0.5 / 1.5**2))
    assert smooth(spike, 0.0) is spike


def test_dice_is_one_minus_twice_the_overlap() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    weight = torch.ones(1, 1, 4, 4)
    half = torch.zeros(1, 1, 4, 4)
    half[..., 1:3] = 1
    assert dice_loss(target, target, weight) == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(half, target, weight) == pytest.approx(1 - (2 * 4 + 1) / (16 + 1), abs=1e-6)


def test_weighted_mean_and_class_loss_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 30.0])
    assert weighted_mean(values, torch.tensor([1.0, 3.0, 0.0])) == pytest.approx(7 / 4)
    assert weighted_mean(values, torch.zeros(3)) == 0
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 0, 0, 0] = 50.0
    plane = torch.tensor([[[1.0, 1.0, IGNORED]]])
    weight = torch.tensor([[[[0.0, 1.0, 1.0]]]])
    assert class_loss(scores, plane, weight) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeightHead(smooth_px=9), "smooth_px is 9, wanted 0 to 8"),
        (lambda: BoundaryHead(boundary_px=0), "boundary_px is 0, wanted 1 to 8"),
        (lambda: SemanticHead(prior=1.0), "prior is 1.0, wanted a number between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Head], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
