"""Learning from image labels: patterns that have no mask, wafer maps as channels, joined data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainseg.errors import InputError, RecipeError
from domainseg.images.channels import as_channels
from domainseg.images.resample import grid_for, labels_to_source, resample_labels, resample_region
from domainseg.models.heads.head import Truth, hard_pixels, tversky_loss
from domainseg.models.heads.pattern import PatternHead
from domainseg.models.heads.semantic import SemanticHead
from domainseg.records import Entry, Instances, Sample
from domainseg.sources import join, labelled

PLANE = (4, 4)
EMPTY = Truth(np.zeros(PLANE, np.int32), np.zeros(1, np.int16))


def targets_of(*, tags: list[bool] | None = None, drawn: list[Any] | None = None) -> torch.Tensor:
    truth = replace(
        EMPTY,
        tags=None if tags is None else np.array(tags),
        presence=None if drawn is None else np.array(drawn, bool),
    )
    classes = len(tags if tags is not None else drawn or [])
    return torch.from_numpy(PatternHead().targets(truth, classes=classes))[None]


def loss_of(scores: torch.Tensor, targets: torch.Tensor, **options: Any) -> float:
    weight = torch.ones(len(scores), 1, *scores.shape[2:])
    return float(PatternHead(**options).loss(scores, targets, weight, classes=scores.shape[1]))


class TestImageLabels:
    def test_a_label_is_a_plane_and_the_last_plane_says_that_no_mask_is_drawn(self) -> None:
        planes = targets_of(tags=[True, False])[0]
        np.testing.assert_array_equal(planes[0], np.ones(PLANE))
        np.testing.assert_array_equal(planes[1:], np.zeros((2, *PLANE)))

    def test_a_drawn_mask_is_itself_and_the_last_plane_says_so(self) -> None:
        mask = np.eye(4)
        planes = targets_of(drawn=[mask])[0]
        np.testing.assert_array_equal(planes[0], mask)
        np.testing.assert_array_equal(planes[1], np.ones(PLANE))

    def test_a_class_that_is_there_needs_only_its_largest_scores(self) -> None:
        scores = torch.full((1, 1, *PLANE), -9.0)
        scores[0, 0, 0, :2] = 9.0
        there = targets_of(tags=[True])
        assert loss_of(scores, there, pool_px=2) < 0.01
        assert loss_of(scores, there, pool_px=8) > 1

    def test_one_pixel_of_a_class_that_is_absent_costs(self) -> None:
        quiet = torch.full((1, 1, *PLANE), -9.0)
        scores = quiet.clone()
        scores[0, 0, 2, 2] = 9.0
        absent = targets_of(tags=[False])
        assert loss_of(quiet, absent, pool_px=1) < 0.01
        assert loss_of(scores, absent, pool_px=1) > 1

    def test_where_there_is_no_die_no_score_counts_for_a_label(self) -> None:
        scores = torch.full((1, 1, *PLANE), -9.0)
        scores[0, 0, 0] = 9.0
        weight = torch.ones(1, 1, *PLANE)
        weight[:, :, 0] = 0
        head = PatternHead(pool_px=2)
        there, absent = targets_of(tags=[True]), targets_of(tags=[False])
        assert float(head.loss(scores, there, weight, classes=1)) > 5
        assert float(head.loss(scores, absent, weight, classes=1)) < 0.01

    def test_an_image_moved_in_its_frame_keeps_its_label(self) -> None:
        there = targets_of(tags=[True])
        there[:, :, :, :2] = 0
        weight = torch.ones(1, 1, *PLANE)
        weight[..., :2] = 0
        scores = torch.full((1, 1, *PLANE), 9.0)
        assert float(PatternHead().loss(scores, there, weight, classes=1)) < 0.01

    def test_a_batch_is_the_mean_of_its_images_of_either_sort(self) -> None:
        torch.manual_seed(0)
        scores = torch.randn(2, 2, *PLANE)
        drawn = targets_of(drawn=[np.eye(4), np.zeros(PLANE)])
        tagged = targets_of(tags=[True, False])
        both = loss_of(scores, torch.cat([drawn, tagged]))
        one, other = loss_of(scores[:1], drawn), loss_of(scores[1:], tagged)
        assert both == pytest.approx((one + other) / 2, rel=1e-5)

    def test_labels_of_an_image_with_masks_are_not_asked(self) -> None:
        nothing = Instances.from_label_map(np.zeros(PLANE, np.int32))
        image = np.zeros((1, *PLANE), np.uint8)
        sample = Sample("a", image, ("die",), truth=nothing, tags=("ring",))
        assert labelled(sample, ("ring", "spot")) is None
        tagged = replace(sample, truth=None)
        np.testing.assert_array_equal(labelled(tagged, ("spot", "ring")), [False, True])
        np.testing.assert_array_equal(labelled(replace(tagged, tags=("None",)), ("spot",)), [False])
        assert labelled(replace(tagged, tags=()), ("spot",)) is None


class TestWaferMaps:
    def test_a_map_becomes_die_and_fail(self) -> None:
        image = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
        view = as_channels(image, ("die",), wanted="die_map", where="a")
        assert view.shape == (2, 2, 3)
        np.testing.assert_array_equal(view[0], [[0, 1, 1], [1, 1, 0]])
        np.testing.assert_array_equal(view[1], [[0, 0, 1], [1, 0, 0]])
        np.testing.assert_array_equal(view[:, :1, 1:], [[[1, 1]], [[0, 1]]])

    def test_another_value_is_refused(self) -> None:
        view = as_channels(np.full((1, 2, 2), 3), ("die",), wanted="die_map", where="map 7")
        with pytest.raises(InputError) as error:
            view[:, :, :]
        assert str(error.value) == (
            "map 7: found the value 3 in a wafer map, wanted 0 (no die), 1 (passes) or 2 "
            "(fails); recode it, or change data.channels."
        )

    @pytest.mark.parametrize("shape", [(5, 9), (8, 8), (26, 20)])
    def test_an_image_of_any_size_becomes_the_one_size_and_its_labels_come_back(
        self, shape: tuple[int, int]
    ) -> None:
        grid = grid_for(shape, None, size_px=32)
        assert grid.model_shape == (32, 32)
        ones = resample_region(np.ones((1, *shape), np.float32), grid)
        np.testing.assert_allclose(ones, np.ones((1, 32, 32)), rtol=1e-6)
        labels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        np.testing.assert_array_equal(labels_to_source(resample_labels(labels, grid), grid), labels)


class TestOverlapLosses:
    def test_tversky_of_one_half_is_dice_and_of_more_minds_missed_pixels(self) -> None:
        target = torch.zeros(1, 1, *PLANE)
        target[..., :2] = 1
        missing, surplus = target.clone(), target.clone()
        missing[..., 1] = 0
        surplus[..., 2] = 1
        weight = torch.ones(1, 1, *PLANE)
        # 4 of 8 pixels found; Tversky = TP / (TP + (1 - beta) FP + beta FN), smoothed by 1/2.
        found = float(tversky_loss(missing, target, weight, beta=0.8))
        assert found == pytest.approx(1 - 4.5 / (4.5 + 0.8 * 4), rel=1e-5)
        found = float(tversky_loss(surplus, target, weight, beta=0.8))
        assert found == pytest.approx(1 - 8.5 / (8.5 + 0.2 * 4), rel=1e-5)
        half, near = (
            float(tversky_loss(missing, target, weight, beta=b)) for b in (0.5, 0.5 + 1e-9)
        )
        assert half == pytest.approx(near, rel=1e-5)

    def test_of_the_background_the_hardest_count_and_of_objects_all(self) -> None:
        entropy = torch.arange(16.0).view(1, 1, 4, 4)
        background = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        background[0, 0, 0, 0] = False
        weight = torch.ones(1, 1, 4, 4)
        weight[0, 0, 3, 3] = 0
        counted = hard_pixels(entropy, background, weight, share=0.25)
        # 14 pixels of background have weight; a quarter of them, rounded, are 4: 11 to 14.
        np.testing.assert_array_equal(
            torch.nonzero(counted.flatten()).flatten(), [0, 11, 12, 13, 14]
        )

    @pytest.mark.parametrize(
        "options",
        [{"focal_gamma": 2.0}, {"hard_share": 0.1}, {"tversky_beta": 0.7}, {"focal_gamma": 1.0}],
    )
    def test_the_truth_has_the_lowest_loss(self, options: dict[str, Any]) -> None:
        head = SemanticHead(**options)
        labels = np.zeros((16, 16), np.int32)
        labels[2:5, 2:5], labels[9:14, 8:12] = 1, 2
        truth = Truth(labels, np.array([0, 0, 1], np.int16))
        targets = torch.from_numpy(head.targets(truth, classes=2))[None]
        right = torch.nn.functional.one_hot(targets[:, 0].long(), 3).movedim(-1, 1) * 12.0
        weight = torch.ones(1, 1, 16, 16)
        best = float(head.loss(right, targets, weight, classes=2))
        for y, x in ((3, 3), (10, 9), (0, 0)):
            wrong = right.clone()
            wrong[0, :, y, x] = torch.roll(wrong[0, :, y, x], 1)
            assert float(head.loss(wrong, targets, weight, classes=2)) > best


@dataclass(frozen=True)
class Listed:
    """Samples by id."""

    classes: tuple[str, ...]
    samples: Mapping[str, Sample]

    def entries(self) -> tuple[Entry, ...]:
        return tuple(Entry(name, group=f"g-{name}") for name in sorted(self.samples))

    def load(self, entry: Entry) -> Sample:
        sample = self.samples[entry.id]
        assert entry.group == sample.group
        return sample


def listed(name: str, classes: tuple[str, ...]) -> Listed:
    labels = np.array([[1, 0, 2]], np.int32)
    truth = Instances.from_label_map(labels, classes={1: 0, 2: 1})
    image = np.zeros((1, 1, 3), np.uint8)
    semantic = np.array([[1, 0, 2]])
    sample = Sample(name, image, ("grey",), truth=truth, semantic=semantic, group=f"g-{name}")
    return Listed(classes, {name: sample})


class TestJoinedData:
    def test_ids_of_an_addition_begin_with_its_name_and_classes_go_by_name(self) -> None:
        joined = join(listed("a", ("x", "y")), {"made": listed("a", ("y", "x"))})
        assert [entry.id for entry in joined.entries()] == ["a", "made/a"]
        assert [entry.group for entry in joined.entries()] == ["g-a", "made/g-a"]
        first, second = (joined.load(entry) for entry in joined.entries())
        assert first.truth is not None
        assert second.truth is not None
        np.testing.assert_array_equal(first.truth.classes, [0, 1])
        np.testing.assert_array_equal(second.truth.classes, [1, 0])
        np.testing.assert_array_equal(second.semantic, [[2, 0, 1]])
        assert (second.id, second.group) == ("made/a", "made/g-a")

    def test_other_classes_are_refused(self) -> None:
        with pytest.raises(RecipeError) as error:
            join(listed("a", ("x", "y")), {"made": listed("a", ("x", "z"))})
        assert str(error.value) == (
            "data.also made: found the classes x, z, wanted those of data.loader, x, y; choose "
            "options of the loader that give the same classes."
        )

    def test_ids_that_could_be_either_are_refused(self) -> None:
        with pytest.raises(InputError) as error:
            join(listed("made/b", ("x", "y")), {"made": listed("a", ("x", "y"))})
        assert str(error.value) == (
            "data.also made: found an image made/b of data.loader, wanted ids that tell the two "
            "apart; give it another name."
        )


def test_root_is_not_needed_for_made_up_additions(tmp_path: Path) -> None:
    from domainseg.loaders.scenes import Scenes

    made = Scenes(train=1, val=1, test=0, height=32, width=32).open(tmp_path)
    joined = join(
        made, {"more": Scenes(train=2, val=0, test=0, height=32, width=32).open(tmp_path)}
    )
    assert len(joined.entries()) == 4
