"""Rankings of pixels and images: by hand, and against slow direct computation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.instances.image_level import image_score, summarise_images
from domainseg.instances.pixel_scores import PRO_LIMIT, pixel_scores, summarise_pixels
from domainseg.instances.ranking import Ranking
from domainseg.records import Instances, probability


def objects(*rows: str, classes: dict[int, int] | None = None) -> Instances:
    """Return the objects of a map drawn with digits, ``.`` for background."""
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)
    return Instances.from_label_map(labels, classes=classes)


def slow_auroc(good: NDArray[np.float64], defect: NDArray[np.float64]) -> float:
    wins = (defect[:, None] > good).sum() + 0.5 * (defect[:, None] == good).sum()
    return float(wins / (len(good) * len(defect)))


def slow_ap(good: NDArray[np.float64], defect: NDArray[np.float64]) -> float:
    total, before = 0.0, 0.0
    for threshold in np.unique(np.concatenate([good, defect]))[::-1]:
        hits, wrong = (defect >= threshold).sum(), (good >= threshold).sum()
        recall = hits / len(defect)
        total += (recall - before) * hits / (hits + wrong)
        before = recall
    return float(total)


def test_rankings_by_hand() -> None:
    ranking = Ranking.of_scores(np.array([0.1, 0.4, 0.4]), np.array([0.4, 0.9]))
    # .9 beats three; .4 beats one and ties with two.
    assert ranking.auroc == (3 + 1 + 2 * 0.5) / 6
    # Falling: .9 is right (1/1), at .4 two of four are.
    assert ranking.average_precision == 0.5 * 1.0 + 0.5 * 2 / 4


def test_rankings_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        good, defect = rng.integers(0, 8, 30) / 8, rng.integers(2, 10, 9) / 8
        ranking = Ranking.of_scores(good, defect)
        assert ranking.auroc == pytest.approx(slow_auroc(good, defect), abs=1e-12)
        assert ranking.average_precision == pytest.approx(slow_ap(good, defect), abs=1e-12)


def test_a_ranking_of_one_kind_is_not_known() -> None:
    only = Ranking.of_scores(np.array([0.5]), np.zeros(0))
    assert math.isnan(only.auroc)
    assert math.isnan(only.average_precision)
    alone = Ranking.of_scores(np.zeros(0), np.array([0.5, 0.2]))
    assert math.isnan(alone.auroc)
    assert alone.average_precision == 1.0


# Pixels -----------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, shape: tuple[int, int] = (12, 14)) -> Instances:
    labels = np.zeros(shape, np.int32)
    for number in (1, 2, 3):
        y, x = rng.integers(0, 9), rng.integers(0, 11)
        labels[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = number
    return Instances.from_label_map(labels)


def noisy(rng: np.random.Generator, truth: Instances) -> NDArray[np.uint8]:
    quanta = rng.integers(90, 140, truth.shape) + 25 * (truth.to_label_map() > 0)
    return quanta[None].astype(np.uint8)


def slow_pro(pairs: list[tuple[Instances, NDArray[np.uint8]]]) -> float:
    """Return PRO from masks at every threshold, the area in small steps of the rate."""
    rates, covers = [0.0], [0.0]
    for threshold in range(255, -1, -1):
        wrong, good, shares = 0, 0, []
        for truth, foreground in pairs:
            labels, above = truth.to_label_map(), foreground[0] >= threshold
            wrong += (above & (labels == 0)).sum()
            good += (labels == 0).sum()
            shares += [above[labels == number].mean() for number in truth.ids]
        rates.append(float(wrong / good))
        covers.append(float(np.mean(shares)))
    steps = (np.arange(300_000) + 0.5) / 1e6
    return float(np.interp(steps, rates, covers).mean())


def test_pixels_are_those_of_masks_at_every_threshold() -> None:
    rng = np.random.default_rng(2)
    truths = [drawn(rng) for _ in range(3)]
    pairs = [(truth, noisy(rng, truth)) for truth in truths]
    found = summarise_pixels(
        [pixel_scores(f"{k}", t, t, foreground=f) for k, (t, f) in enumerate(pairs)]
    )
    values = np.concatenate([f[0].ravel() for _, f in pairs]).astype(np.float64)
    inside = np.concatenate([t.to_label_map().ravel() > 0 for t in truths])
    assert found.ranking.auroc == pytest.approx(
        slow_auroc(values[~inside], values[inside]), abs=1e-12
    )
    assert found.ranking.average_precision == pytest.approx(
        slow_ap(values[~inside], values[inside]), abs=1e-12
    )
    assert found.pro == pytest.approx(slow_pro(pairs), abs=1e-6)
    assert 0.5 < found.pro < 0.999
    assert found.regions == sum(len(truth) for truth in truths)


def test_pro_by_hand() -> None:
    # Two regions of 1 and 4 pixels among 10 good ones. At 200: the first whole and half of
    # the second, no good pixel. At 150: one good pixel, at 100 three, the rest at 0.
    truth = objects("1.222.2........")
    quanta = np.zeros((1, 1, 15), np.uint8)
    quanta[0, 0, [0, 2, 3]] = 200
    quanta[0, 0, 1] = 150
    quanta[0, 0, [4, 5, 7]] = 100
    found = summarise_pixels([pixel_scores("a", truth, truth, foreground=quanta)])
    # Coverage .75 to a rate of .1, then straight to (1 + .75) / 2 at .3.
    wanted = (0.1 * 0.75 + 0.2 * (0.75 + 0.875) / 2) / PRO_LIMIT
    assert found.pro == pytest.approx(wanted, abs=1e-12)


def test_a_perfect_map_gives_1_everywhere() -> None:
    rng = np.random.default_rng(3)
    truth = drawn(rng)
    perfect = np.where(truth.to_label_map() > 0, 255, 0).astype(np.uint8)[None]
    found = summarise_pixels(
        [pixel_scores("a", truth, truth, foreground=perfect)], class_names=("pit",)
    )
    assert found.ranking.auroc == found.ranking.average_precision == 1.0
    assert found.pro == pytest.approx(1.0, abs=1e-12)
    assert found.good.iou == found.defect.iou == found.mean_iou == 1.0
    constant = summarise_pixels(
        [pixel_scores("a", truth, truth, foreground=np.full((1, 12, 14), 7, np.uint8))]
    )
    assert constant.ranking.auroc == 0.5
    # A straight line from nothing to everything: half the limit on average.
    assert constant.pro == pytest.approx(PRO_LIMIT / 2, abs=1e-12)


def test_the_order_of_the_images_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(4)
    images = []
    for k in range(7):
        truth = drawn(rng)
        images.append(pixel_scores(f"{k}", truth, drawn(rng), foreground=noisy(rng, truth)))
    order = rng.permutation(7)
    one, other = (
        json.dumps(summarise_pixels(some, class_names=("pit",)).to_json())
        for some in (images, [images[i] for i in order])
    )
    assert one == other


def test_of_several_layers_the_largest_counts_and_ignored_pixels_do_not() -> None:
    truth = objects("1...")
    layers = np.array([[[10, 5, 0, 255]], [[90, 20, 0, 255]]], np.uint8)
    ignore = np.array([[False, False, False, True]])
    found = pixel_scores("a", truth, truth, foreground=layers, ignore=ignore)
    assert found.ranking is not None
    assert np.flatnonzero(found.ranking.defect).tolist() == [90]
    assert np.flatnonzero(found.ranking.good).tolist() == [0, 20]
    # An object that is ignored whole is no region.
    first = np.array([[True, False, False, False]])
    found = pixel_scores("a", truth, truth, foreground=layers, ignore=first)
    assert found.coverage is not None
    assert found.coverage.regions == 0


def test_iou_of_classes_by_hand() -> None:
    truth = objects("1122....", classes={1: 0, 2: 1})
    predicted = objects("1.11.2..", classes={1: 0, 2: 1})
    found = summarise_pixels(
        [pixel_scores("a", truth, predicted)], class_names=("pit", "crack", "never")
    )
    assert found.defect.iou == 3 / 5
    assert found.good.iou == 3 / 5
    assert {name: one.iou for name, one in found.classes.items()} == {"pit": 1 / 4, "crack": 0.0}
    assert found.mean_iou == 1 / 8
    assert found.to_json()["auroc"] is None
    assert found.to_json()["images_with_maps"] == 0
    assert [row[0] for row in found.table()[1]] == [
        *("IoU good", "IoU defect", "IoU pit", "IoU crack", "mean IoU of classes"),
    ]


# Images -----------------------------------------------------------------------------------


def test_images_are_ranked_by_their_largest_probability_and_by_their_best_object() -> None:
    quanta = {"a": 200, "b": 120, "c": 140, "d": 60}
    best = {"a": 0.9, "b": 0.0, "c": 0.6, "d": 0.0}
    images = []
    for name, quantum in quanta.items():
        predicted = Instances.from_label_map(
            np.array([[int(best[name] > 0), 0]]), scores={1: best[name]}
        )
        foreground = np.array([[[quantum, 0]], [[3, 250]]], np.uint8)
        ignore = np.array([[False, True]])
        images.append(
            image_score(name, predicted, defect=name in "ab", foreground=foreground, ignore=ignore)
        )
    found = summarise_images(images[::-1])
    assert [one.id for one in found.images] == ["a", "b", "c", "d"]
    at_200 = probability(np.array([200], np.uint8))
    assert found.images[0].probability == pytest.approx(float(at_200[0]))
    # By probability a beats both, b only d; by object a beats both, b loses to c, ties with d.
    assert found.by_probability.auroc == 3 / 4
    assert found.by_object.auroc == 2.5 / 4
    assert found.by_probability.average_precision == 0.5 * 1.0 + 0.5 * 2 / 3
    assert found.table()[1] == [
        ("2 with, 2 without, by largest probability", "0.750", "0.833"),
        ("2 with, 2 without, by best object", "0.625", "0.750"),
    ]
    assert found.to_json()["by_object"] == {"auroc": 0.625, "average_precision": 0.75}


def test_an_image_counts_by_the_mean_of_its_largest_probabilities() -> None:
    quanta = np.random.default_rng(0).integers(0, 256, (2, 9, 7), dtype=np.uint8)
    ignore = np.zeros((9, 7), bool)
    ignore[:, 3] = True
    largest = np.sort(probability(quanta.max(0)[~ignore]).astype(np.float64))[::-1]
    nothing = objects("....")
    for pixels in (1, 5, 54, 1000):
        seen = image_score(
            "a", nothing, defect=True, foreground=quanta, ignore=ignore, pixels=pixels
        )
        assert seen.probability == pytest.approx(largest[:pixels].mean(), abs=1e-6)
    # One loud pixel is more than a quiet defect, but not over as many pixels as that has.
    loud, quiet = np.zeros((2, 1, 6, 6), np.uint8)
    loud[0, 0, 0], quiet[0, 2:4, 2:4] = 255, 200
    for pixels, auroc in ((1, 0.0), (4, 1.0)):
        images = [
            image_score("a", nothing, defect=False, foreground=loud, pixels=pixels),
            image_score("b", nothing, defect=True, foreground=quiet, pixels=pixels),
        ]
        assert summarise_images(images, pixels=pixels).by_probability.auroc == auroc
    ranked = summarise_images(images, pixels=4)
    assert ranked.table()[1][0][0] == "1 with, 1 without, by mean of the 4 largest probabilities"


def test_without_maps_only_objects_rank_images() -> None:
    nothing = objects("....")
    found = summarise_images([image_score("a", nothing, defect=True)])
    assert found.to_json()["by_probability"] == {"auroc": None, "average_precision": None}
    assert found.to_json()["images"] == [
        {"id": "a", "defect": True, "probability": None, "object_score": 0.0}
    ]
    assert found.table()[1] == []
