"""Matching against its definitions written slowly, against stardist, and by hand."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError
from domainseg.instances.matching import (
    THRESHOLDS,
    Counts,
    Tally,
    match,
    mean_metrics,
    tally,
)
from domainseg.instances.overlaps import (
    Overlaps,
    overlap_classes,
    overlap_instances,
    overlap_maps,
)
from domainseg.records import Instances

Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

laws = settings(max_examples=120, deadline=None, database=None)
maps = arrays(np.int32, (5, 6), elements=st.sampled_from([0, 3, 4, 90, 70_001]))
masks = arrays(np.bool_, (5, 6))


def labels(*rows: str) -> Labels:
    """Return a label map drawn with digits, ``.`` for background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


def blobs(rng: np.random.Generator, count: int, *, size: int = 96) -> Labels:
    """Return discs painted over each other, under labels with gaps."""
    y, x = np.mgrid[:size, :size]
    out = np.zeros((size, size), np.int32)
    for label in rng.choice(5000, count, replace=False) + 1:
        centre, radius = rng.uniform(0, size, 2), rng.uniform(2, 12)
        out[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = label
    return out


# The definitions, as sets of pixels -------------------------------------------------------


@dataclass(frozen=True)
class Slow:
    """Every score from sets of pixels and an exhaustive search for the matching."""

    truth: list[set[int]]
    predicted: list[set[int]]
    excused: list[bool]

    @classmethod
    def of(cls, truth: Labels, predicted: Labels, ignore: Mask | None = None) -> Slow:
        hidden = set() if ignore is None else set(np.flatnonzero(ignore).tolist())

        def objects(labels: Labels) -> list[set[int]]:
            names = sorted(set(labels.ravel().tolist()) - {0})
            return [set(np.flatnonzero(labels == name).tolist()) for name in names]

        whole = [one for one in objects(predicted) if one - hidden]
        return cls(
            truth=[one - hidden for one in objects(truth) if one - hidden],
            predicted=[one - hidden for one in whole],
            excused=[len(one & hidden) > len(one) / 2 for one in whole],
        )

    def iou(self, i: int, j: int) -> float:
        t, p = self.truth[i], self.predicted[j]
        return len(t & p) / len(t | p)

    def matching(self, threshold: float, *, strict: bool) -> dict[int, int]:
        """Return the matching of most pairs, then of the highest sum of IoU."""

        def passes(i: int, j: int) -> bool:
            return self.iou(i, j) > threshold if strict else self.iou(i, j) >= threshold

        def extended(i: int, used: frozenset[int]) -> Iterator[dict[int, int]]:
            if i == len(self.truth):
                yield {}
                return
            yield from extended(i + 1, used)
            for j in range(len(self.predicted)):
                if j not in used and passes(i, j):
                    yield from ({i: j} | rest for rest in extended(i + 1, used | {j}))

        def value(found: dict[int, int]) -> tuple[int, float]:
            return len(found), math.fsum(self.iou(i, j) for i, j in found.items())

        return max(extended(0, frozenset()), key=value)

    def counts(self, threshold: float, *, strict: bool = False) -> Counts:
        found = self.matching(threshold, strict=strict)
        unmatched = set(range(len(self.predicted))) - set(found.values())
        false = sum(not self.excused[j] for j in unmatched)
        return Counts(len(found), len(self.truth) - len(found), false)

    def panoptic(self) -> tuple[float, float, float]:
        found = self.matching(0.5, strict=True)
        counts = self.counts(0.5, strict=True)
        if counts == Counts(0, 0, 0):
            return 1.0, 1.0, 1.0
        total = math.fsum(self.iou(i, j) for i, j in found.items())
        rq = counts.matched / (counts.matched + counts.false / 2 + counts.missed / 2)
        sq = total / counts.matched if found else 0.0
        return sq * rq, sq, rq

    def aji(self) -> float:
        shared = united = 0
        used: set[int] = set()
        for i, t in enumerate(self.truth):
            touching = [j for j, p in enumerate(self.predicted) if t & p]
            if not touching:
                united += len(t)
                continue
            best = max(touching, key=lambda j: self.iou(i, j))
            shared += len(t & self.predicted[best])
            united += len(t | self.predicted[best])
            used.add(best)
        for j, p in enumerate(self.predicted):
            if j not in used and not self.excused[j]:
                united += len(p)
        return shared / united if united else 1.0

    def dice(self) -> float:
        t, p = set().union(*self.truth), set().union(*self.predicted)
        return 2 * len(t & p) / (len(t) + len(p)) if t or p else 1.0

    def merged_and_split(self) -> tuple[int, int]:
        rows = range(len(self.predicted))
        counted = [j for j in rows if not self.excused[j]]
        merged = sum(
            sum(len(t & self.predicted[j]) >= len(t) / 2 for t in self.truth) >= 2 for j in counted
        )
        split = sum(
            sum(len(t & self.predicted[j]) >= len(self.predicted[j]) / 2 for j in counted) >= 2
            for t in self.truth
        )
        return merged, split


def assert_same_as_slow(found: Tally, slow: Slow) -> None:
    metrics = found.metrics()
    for threshold, counts, ap in zip(THRESHOLDS, found.counts, metrics.ap, strict=True):
        wanted = slow.counts(threshold)
        assert counts == wanted
        all_counted = wanted.matched + wanted.missed + wanted.false
        assert ap == pytest.approx(wanted.matched / all_counted if all_counted else 1.0, abs=1e-12)
    assert metrics.mean_ap == pytest.approx(sum(metrics.ap) / 9, abs=1e-12)
    assert (metrics.pq, metrics.sq, metrics.rq) == pytest.approx(slow.panoptic(), abs=1e-12)
    assert metrics.aji == pytest.approx(slow.aji(), abs=1e-12)
    assert metrics.dice == pytest.approx(slow.dice(), abs=1e-12)
    assert (found.merged, found.split) == slow.merged_and_split()


@laws
@given(maps, maps)
def test_every_score_is_its_definition(truth: Labels, predicted: Labels) -> None:
    assert_same_as_slow(tally(overlap_maps(truth, predicted)), Slow.of(truth, predicted))


@laws
@given(maps, maps, masks)
def test_every_score_is_its_definition_with_ignored_pixels(
    truth: Labels, predicted: Labels, ignore: Mask
) -> None:
    found = tally(overlap_maps(truth, predicted, ignore=ignore))
    assert_same_as_slow(found, Slow.of(truth, predicted, ignore))


@laws
@given(maps, maps, st.floats(0.01, 1.0))
def test_the_matching_is_the_largest_at_any_threshold(
    truth: Labels, predicted: Labels, threshold: float
) -> None:
    found = match(overlap_maps(truth, predicted), threshold)
    slow = Slow.of(truth, predicted)
    wanted = slow.matching(threshold, strict=False)
    assert found.counts == slow.counts(threshold)
    assert found.iou.sum() == pytest.approx(sum(slow.iou(i, j) for i, j in wanted.items()))
    for (i, j), iou in zip(found.pairs.tolist(), found.iou, strict=True):
        assert iou == slow.iou(i, j)


# Laws ------------------------------------------------------------------------------------


@laws
@given(maps)
def test_matching_with_itself_is_perfect(truth: Labels) -> None:
    metrics = tally(overlap_maps(truth, truth)).metrics()
    assert all(np.all(np.asarray(getattr(metrics, field.name)) == 1.0) for field in fields(metrics))


@laws
@given(maps, maps)
def test_exchanging_the_sides_exchanges_the_errors(truth: Labels, predicted: Labels) -> None:
    one, other = tally(overlap_maps(truth, predicted)), tally(overlap_maps(predicted, truth))
    assert (one.merged, one.split) == (other.split, other.merged)
    for mine, theirs in zip(one.counts, other.counts, strict=True):
        assert mine == Counts(theirs.matched, theirs.false, theirs.missed)
    assert one.metrics().pq == pytest.approx(other.metrics().pq, abs=1e-12)


@laws
@given(maps, maps, masks | st.none())
def test_label_maps_and_instances_give_the_same_table(
    truth: Labels, predicted: Labels, ignore: Mask | None
) -> None:
    of_maps = overlap_maps(truth, predicted, ignore=ignore)
    of_instances = overlap_instances(
        Instances.from_label_map(truth), Instances.from_label_map(predicted), ignore=ignore
    )
    assert_same_table(of_maps, of_instances)


def assert_same_table(one: Overlaps, other: Overlaps) -> None:
    for field in fields(Overlaps):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_the_numbering_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = blobs(rng, 20), blobs(rng, 20)
    wanted = tally(overlap_maps(truth, predicted))
    wide = predicted.astype(np.uint64) * 2**40
    assert tally(overlap_maps(truth.astype(np.uint16), wide)) == wanted
    np.testing.assert_array_equal(
        overlap_maps(truth, wide).predicted_ids,
        overlap_maps(truth, predicted).predicted_ids * 2**40,
    )


def test_seventy_thousand_objects_are_matched_one_to_one() -> None:
    side = 265
    truth = np.kron(np.arange(1, side**2 + 1).reshape(side, side), np.ones((3, 4), int))
    predicted = truth[::-1, ::-1].copy()
    overlaps = overlap_maps(truth, predicted)
    assert len(overlaps.truth_ids) == 70_225
    found = match(overlaps, 0.9)
    assert found.counts == Counts(70_225, 0, 0)
    # Turned by 180 degrees, row i lies on row n - 1 - i, pixel for pixel.
    np.testing.assert_array_equal(found.pairs.sum(1), 70_224)


# By hand ---------------------------------------------------------------------------------


def test_the_table_of_a_small_pair() -> None:
    overlaps = overlap_maps(labels("99..", "99.5", "..55"), labels("777.", ".773", "...3"))
    assert overlaps.truth_ids.tolist() == [5, 9]
    assert overlaps.predicted_ids.tolist() == [3, 7]
    assert overlaps.truth_px.tolist() == [3, 4]
    assert overlaps.predicted_px.tolist() == [2, 5]
    assert overlaps.pairs.tolist() == [[0, 0], [1, 1]]
    assert overlaps.shared_px.tolist() == [2, 3]
    assert overlaps.iou().tolist() == [2 / 3, 3 / 6]
    assert overlaps.foreground_px == (7, 7, 5)


def test_a_truth_object_in_two_equal_halves_is_matched_once() -> None:
    # Both halves have an IoU of exactly .5: one is a match, the other false.
    found = tally(overlap_maps(labels("1111"), labels("2233")))
    assert found.counts[0] == Counts(1, 0, 1)
    assert found.panoptic == Counts(0, 1, 2)
    assert (found.merged, found.split) == (0, 1)


def test_two_truth_objects_under_one_prediction_are_merged() -> None:
    found = tally(overlap_maps(labels("1122", "1122"), labels("5555", "555.")))
    assert (found.merged, found.split) == (1, 0)
    # Truth 1 takes the prediction at 4/7, truth 2 at 3/8: it counts twice in the unions.
    assert found.aji_px == (4 + 3, 7 + 8)
    assert found.metrics().aji == 7 / 15


def test_predictions_nobody_took_add_to_the_unions() -> None:
    found = tally(overlap_maps(labels("11..22"), labels("1.33..")))
    # Truth 1 takes 1; truth 2 touches nothing; prediction 3 is left over.
    assert found.aji_px == (1, 2 + 2 + 2)


def test_equal_iou_goes_to_the_lowest_label() -> None:
    # 2 of 6 and 3 of 9 pixels are the same IoU; the choice changes both sums.
    truth = labels("111111...")
    assert tally(overlap_maps(truth, labels("22.777777"))).aji_px == (2, 6 + 6)
    assert tally(overlap_maps(truth, labels("77.222222"))).aji_px == (3, 9 + 2)


def test_below_one_half_the_assignment_beats_the_greedy_choice() -> None:
    # Greedy gives truth 1 its best partner, 8, and leaves truth 2 with nothing.
    truth, predicted = labels("1111111222"), labels("7788888...")
    predicted[0, 7:8] = 8
    overlaps = overlap_maps(truth, predicted)
    assert match(overlaps, 0.1).counts == Counts(2, 0, 0)
    assert match(overlaps, 0.3).counts == Counts(1, 1, 1)


@pytest.mark.parametrize(("shared", "united"), [(11, 20), (3, 5), (13, 20), (7, 10), (4, 5)])
def test_an_iou_at_the_threshold_is_a_match(shared: int, united: int) -> None:
    truth, predicted = np.ones((1, united), int), np.ones((1, united), int)
    predicted[0, shared:] = 0
    at = THRESHOLDS.index(shared / united)
    found = tally(overlap_maps(truth, predicted))
    assert [counts.matched for counts in found.counts] == [1] * (at + 1) + [0] * (8 - at)


def test_panoptic_quality_wants_more_than_one_half() -> None:
    metrics = tally(overlap_maps(labels("1122"), labels("1.22"))).metrics()
    assert metrics.f1 == 1.0
    assert (metrics.pq, metrics.sq, metrics.rq) == (0.5, 1.0, 0.5)


def test_empty_against_empty_is_perfect_and_against_something_nothing() -> None:
    nothing, something = labels("...."), labels("11.2")
    both_empty = tally(overlap_maps(nothing, nothing)).metrics()
    assert set(both_empty.ap) == {1.0}
    for field in fields(both_empty)[1:]:
        assert getattr(both_empty, field.name) == 1.0
        for truth, predicted in ((nothing, something), (something, nothing)):
            assert getattr(tally(overlap_maps(truth, predicted)).metrics(), field.name) == 0.0


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1)])
def test_the_smallest_maps_are_scored(shape: tuple[int, int]) -> None:
    blank = np.zeros(shape, np.int32)
    assert tally(overlap_maps(blank, blank, ignore=blank > 0)).metrics().mean_ap == 1.0
    assert tally(overlap_maps(blank + 1, blank + 1)).truths == blank.size


def test_ignored_pixels_count_nowhere() -> None:
    truth, predicted = labels("111..22"), labels("1111.33")
    overlaps = overlap_maps(truth, predicted, ignore=labels("..11..1") > 0)
    assert overlaps.truth_px.tolist() == [2, 1]
    assert overlaps.predicted_px.tolist() == [2, 1]
    assert overlaps.foreground_px == (3, 3, 3)
    assert tally(overlaps).metrics().mean_ap == 1.0


def test_an_unmatched_prediction_is_excused_when_most_of_it_is_ignored() -> None:
    nothing, predicted = labels("........"), labels("11112222")
    ignore = labels("111.11..") > 0
    overlaps = overlap_maps(nothing, predicted, ignore=ignore)
    # Three quarters of 1 are ignored; of 2 exactly half, which is not most of it.
    assert overlaps.excused.tolist() == [True, False]
    assert match(overlaps, 0.5).counts == Counts(0, 0, 1)
    assert tally(overlaps).aji_px == (0, 2)


def test_a_matched_prediction_counts_however_much_of_it_is_ignored() -> None:
    overlaps = overlap_maps(labels("1111"), labels("1111"), ignore=labels(".111") > 0)
    assert overlaps.excused.tolist() == [True]
    assert match(overlaps, 0.9).counts == Counts(1, 0, 0)


def test_objects_that_are_ignored_whole_are_not_in_the_table() -> None:
    overlaps = overlap_maps(labels("1122"), labels("3344"), ignore=labels("11..") > 0)
    assert (overlaps.truth_ids.tolist(), overlaps.predicted_ids.tolist()) == ([2], [4])
    assert overlaps.pairs.tolist() == [[0, 0]]


def stacked(*planes: Labels) -> Instances:
    """Return one object per plane, numbered from 1; they may overlap."""
    parts = [Instances.from_label_map(np.where(plane > 0, 1, 0)) for plane in planes]
    offsets = np.cumsum([0] + [len(part.runs) for part in parts])
    return Instances(
        ids=np.arange(1, len(parts) + 1),
        boxes=np.concatenate([part.boxes for part in parts]),
        runs=np.concatenate([part.runs for part in parts]),
        offsets=offsets.astype(np.int64),
        classes=np.zeros(len(parts), np.int16),
        scores=np.ones(len(parts), np.float32),
        shape=parts[0].shape,
    )


def test_objects_of_one_record_may_overlap() -> None:
    truth = stacked(labels("111...", "111..."), labels("..1111", "......"))
    predicted = stacked(
        labels("111...", "111..."), labels("111...", "11...."), labels(".11111", "......")
    )
    overlaps = overlap_instances(truth, predicted)
    assert overlaps.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert overlaps.shared_px.tolist() == [6, 5, 2, 1, 1, 4]
    assert overlaps.foreground_px == (9, 9, 9)
    # Two predictions claim the first truth object: the better one has it.
    found = match(overlaps, 0.8)
    assert found.pairs.tolist() == [[0, 0], [1, 2]]
    assert found.counts == Counts(2, 0, 1)
    ignored = overlap_instances(truth, predicted, ignore=labels("..1...", "......") > 0)
    assert ignored.truth_px.tolist() == [5, 3]
    assert ignored.shared_px.tolist() == [5, 4, 1, 3]
    assert ignored.foreground_px == (8, 8, 8)


@laws
@given(st.lists(maps, min_size=1, max_size=3), st.lists(maps, min_size=1, max_size=3), masks)
def test_overlapping_objects_share_what_their_masks_share(
    truth: list[Labels], predicted: list[Labels], ignore: Mask
) -> None:
    sides = [[plane == 3 for plane in planes] for planes in (truth, predicted)]
    for side in sides:
        side[0] = side[0] | True  # an object needs a pixel, and one covers all others
        side[1:] = [mask for mask in side[1:] if mask.any()]
    ours, theirs = (stacked(*[mask.astype(np.int32) for mask in side]) for side in sides)
    overlaps = overlap_instances(ours, theirs, ignore=ignore)
    shared = np.array([[(a & b & ~ignore).sum() for b in sides[1]] for a in sides[0]])
    kept = shared[(shared.sum(1) > 0)][:, shared.sum(0) > 0]
    dense = np.zeros_like(kept)
    dense[tuple(overlaps.pairs.T)] = overlaps.shared_px
    np.testing.assert_array_equal(dense, kept)


def test_classes_are_matched_within_themselves() -> None:
    truth = Instances.from_label_map(labels("11.22.33"), classes={1: 0, 2: 4, 3: 4})
    predicted = Instances.from_label_map(labels("55.66.77"), classes={5: 0, 6: 0, 7: 4})
    found = {index: tally(one) for index, one in overlap_classes(truth, predicted).items()}
    assert list(found) == [0, 4]
    assert found[0].counts[0] == Counts(1, 0, 1)
    assert found[4].counts[0] == Counts(1, 1, 0)
    assert found[4].foreground_px == (4, 2, 2)


def test_rows_follow_the_ids_whatever_their_order() -> None:
    one = stacked(labels("11.."), labels("..11"))
    turned = replace(one, ids=np.array([9, 4]))
    overlaps = overlap_instances(turned, one)
    assert overlaps.truth_ids.tolist() == [4, 9]
    assert overlaps.pairs.tolist() == [[0, 1], [1, 0]]


def test_tallies_add_up_and_the_mean_weighs_images_equally() -> None:
    rng = np.random.default_rng(5)
    one = tally(overlap_maps(blobs(rng, 12), blobs(rng, 12)))
    other = tally(overlap_maps(labels("11.."), labels("11..")))
    both = one + other
    assert both.truths == one.truths + 1
    assert both.counts[0].matched == one.counts[0].matched + 1
    assert both.metrics().ap[0] == both.counts[0].matched / (
        both.counts[0].matched + both.counts[0].missed + both.counts[0].false
    )
    mean = mean_metrics([one.metrics(), other.metrics()])
    assert mean.ap[0] == (one.metrics().ap[0] + 1.0) / 2
    assert mean.aji == (one.metrics().aji + 1.0) / 2
    assert Tally() + one == one


# Errors ----------------------------------------------------------------------------------


def test_maps_of_different_size_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        overlap_maps(labels("11"), labels("11", "11"), where="cell_1")
    assert str(caught.value) == (
        "cell_1: found a prediction of shape (2, 2), wanted the shape (1, 2) of the truth; "
        "compare results in the pixels of the annotated image."
    )


def test_an_ignore_mask_of_another_size_is_refused() -> None:
    one = Instances.from_label_map(labels("11"))
    for wrong in (
        lambda: overlap_maps(labels("11"), labels("11"), ignore=np.zeros((2, 1), bool)),
        lambda: overlap_instances(one, one, ignore=np.zeros((2, 1), bool)),
        lambda: overlap_classes(one, one, ignore=np.zeros((2, 1), bool)),
    ):
        with pytest.raises(InputError, match=r"found an ignore mask of shape \(2, 1\), wanted"):
            wrong()


def test_what_cannot_be_a_label_map_is_refused() -> None:
    good = labels("11")
    with pytest.raises(InputError) as caught:
        overlap_maps(good, good.astype(np.float32))
    assert str(caught.value) == (
        "label maps, prediction: found float32 of shape (1, 2), wanted whole-number labels of "
        "shape (H, W); label the objects before they are compared."
    )
    with pytest.raises(InputError) as caught:
        overlap_maps(good - 3, good)
    assert str(caught.value) == (
        "label maps, truth: found label -2, wanted 0 for background and positive labels; hand "
        "over pixels to leave out as the ignore mask instead."
    )


@pytest.mark.parametrize("threshold", [0.0, 1.01, math.nan])
def test_a_threshold_outside_the_unit_interval_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError) as caught:
        match(overlap_maps(labels("1"), labels("1")), threshold)
    assert str(caught.value) == (
        f"IoU threshold: found {threshold}, wanted more than 0 and at most 1; write 0.5 for half."
    )


# stardist --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stardist() -> Any:
    """Load stardist's matching.py alone: the package around it wants a plotting library."""
    package = importlib.util.find_spec("stardist")
    if package is None or not package.submodule_search_locations:
        pytest.skip("stardist is not installed")

    def raise_(error: Exception) -> None:
        raise error

    names = ("csbdeep", "csbdeep.utils")
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names})
    sys.modules["csbdeep.utils"]._raise = raise_  # type: ignore[attr-defined]
    path = Path(package.submodule_search_locations[0]) / "matching.py"
    spec = importlib.util.spec_from_file_location("stardist_matching", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, was in kept.items():
        sys.modules.pop(name)
        if was is not None:
            sys.modules[name] = was
    return module


def adversarial_pairs() -> list[tuple[Labels, Labels]]:
    rng = np.random.default_rng(11)
    bands = np.repeat(np.arange(1, 9), 6)[None].repeat(12, 0)
    nested = np.zeros((24, 24), int)
    for label, inset in enumerate(range(0, 12, 2), start=1):
        nested[inset : 24 - inset, inset : 24 - inset] = label * 7
    noise = rng.integers(0, 9, (40, 40))
    drawn = [
        (bands, np.roll(bands, 3, 1)),  # touching; every IoU is exactly 3/9
        (bands, np.repeat(np.arange(1, 17), 3)[None].repeat(12, 0)),  # exact ties at .5
        (np.repeat(np.arange(1, 17), 3)[None].repeat(12, 0), bands),
        (nested, np.roll(nested, 1, 0)),
        (nested, (nested > 0) * 40_000),
        (noise, rng.permutation(noise.ravel()).reshape(40, 40)),
        (noise, np.where(rng.random((40, 40)) < 0.3, 0, noise) * 1_001),
        (bands, np.zeros_like(bands)),
        (np.zeros_like(bands), bands),
        (np.zeros_like(bands), np.ones_like(bands)),
        (np.ones((1, 1), int), np.ones((1, 1), int)),
    ]
    drawn += [(blobs(rng, 25), blobs(rng, 25)) for _ in range(6)]
    for _ in range(6):
        truth = blobs(rng, 25)
        drawn.append((truth, np.roll(truth, rng.integers(-3, 4, 2), (0, 1))))
    return [(truth.astype(np.int32), predicted.astype(np.int32)) for truth, predicted in drawn]


@pytest.mark.parametrize("number", range(len(adversarial_pairs())))
def test_counts_equal_those_of_stardist(stardist: Any, number: int) -> None:
    truth, predicted = adversarial_pairs()[number]
    overlaps = overlap_maps(truth, predicted)
    for threshold in (0.1, 0.3, *THRESHOLDS, 1.0):
        ours, theirs = match(overlaps, threshold), stardist.matching(truth, predicted, threshold)
        assert ours.counts == Counts(theirs.tp, theirs.fn, theirs.fp)
        assert ours.counts.ap == pytest.approx(theirs.accuracy, abs=1e-9)
        assert ours.counts.f1 == pytest.approx(theirs.f1, abs=1e-9)
        assert ours.counts.precision == pytest.approx(theirs.precision, abs=1e-9)
        assert ours.counts.recall == pytest.approx(theirs.recall, abs=1e-9)
        if threshold >= 0.5:  # below, stardist's choice among equals weighs other pairs too
            total = theirs.mean_true_score * theirs.n_true
            assert ours.iou.sum() == pytest.approx(total, rel=2e-7)


def test_stardist_gives_nothing_for_empty_against_empty(stardist: Any) -> None:
    nothing = labels("....")
    assert stardist.matching(nothing, nothing, 0.5).accuracy == 0
    assert match(overlap_maps(nothing, nothing), 0.5).counts.ap == 1.0


def test_stardist_rounds_an_iou_just_below_the_threshold_up_to_it(stardist: Any) -> None:
    truth = np.ones((1, 4_000_011), np.int32)
    predicted = truth.copy()
    predicted[0, 2_200_006:] = 0  # 20 * 2,200,006 is 11 * 4,000,011 less one
    assert stardist.matching(truth, predicted, 0.55).tp == 1
    assert match(overlap_maps(truth, predicted), 0.55).counts == Counts(0, 1, 1)


def test_the_mean_over_images_of_a_dense_table_is_the_same() -> None:
    """AP as most scripts write it, on pairs without ties: no assignment, a dense table."""
    rng = np.random.default_rng(8)
    pairs = [(truth := blobs(rng, 15), np.roll(truth, 1, k % 2)) for k in range(8)]
    rows = []
    for truth, predicted in pairs:
        t_ids, p_ids = (np.unique(side[side > 0]) for side in (truth, predicted))
        iou = np.array(
            [[((truth == t) & (predicted == p)).sum() for p in p_ids] for t in t_ids],
            float,
        )
        for i, j in itertools.product(range(len(t_ids)), range(len(p_ids))):
            iou[i, j] /= ((truth == t_ids[i]) | (predicted == p_ids[j])).sum()
        hits = [(iou >= k / 20).sum() for k in range(10, 19)]
        rows.append([tp / (len(t_ids) + len(p_ids) - tp) for tp in hits])
    mean = mean_metrics([tally(overlap_maps(*pair)).metrics() for pair in pairs])
    np.testing.assert_allclose(mean.ap, np.mean(rows, 0), atol=1e-12)
    assert mean.mean_ap == pytest.approx(np.mean(rows), abs=1e-12)
