"""Torchvision's proposals and regions, with float boxes, ignored pixels and told limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou, clip_boxes_to_image, remove_small_boxes, roi_align

Targets = list[dict[str, Tensor]]

SURE_LOGIT = 0.0
"""Above it a proposal is likelier an object than not."""
COVERED = 0.5
"""IoU with a proposal that is kept from which on one that is not is no loss."""
TOGETHER = 4096
"""Proposals that are compared at a time."""
LEARNED = 2000
"""Proposals of a level, and in all, that a training patch has at most."""
IGNORED_SHARE = 0.5
"""Share of a box in ignored pixels from which on it teaches nothing."""
MASK_SIDE = 28
"""Cells of a mask."""
MASK_SAMPLES = 4
"""Points per cell and axis at which a true mask is looked at."""
_PROPOSAL_IOUS = (0.7, 0.3)
_REGION_IOUS = (0.5, 0.5)
_NEITHER = -1


class DetectionRules(Protocol):
    """How many boxes are learned from and said, as `heads.detection` describes them."""

    @property
    def proposals_per_level(self) -> int:
        """Before non-maximum suppression."""
        ...

    @property
    def proposals(self) -> int:
        """After it."""
        ...

    @property
    def detections(self) -> int:
        """Per window."""
        ...

    @property
    def proposal_score(self) -> float:
        """Least probability of a proposal that is classified, in prediction."""
        ...

    @property
    def proposal_iou(self) -> float:
        """Of non-maximum suppression of proposals."""
        ...

    @property
    def nms_iou(self) -> float:
        """Of non-maximum suppression of detections of one class."""
        ...

    @property
    def candidate_score(self) -> float:
        """Least score of a detection."""
        ...

    @property
    def anchor_samples(self) -> int:
        """Per image, in training."""
        ...

    @property
    def region_samples(self) -> int:
        """Per image, in training."""
        ...

    @property
    def object_share(self) -> float:
        """Of the region samples, at most."""
        ...


class FloatRPNHead(RPNHead):  # type: ignore[misc]
    """The proposal head, its outputs float32 under autocast too: boxes need the digits."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and box deltas of each level."""
        logits, deltas = super().forward(x)
        return [one.float() for one in logits], [one.float() for one in deltas]


class FloatBoxPredictor(FastRCNNPredictor):  # type: ignore[misc]
    """Classes and boxes of regions, float32 likewise."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores ``(R, classes)`` and box deltas ``(R, 4 classes)``."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class FloatMaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """Mask logits of regions, float32 likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(R, classes, M, M)``."""
        logits: Tensor = super().forward(x)
        return logits.float()


def mask_targets(masks: Tensor, boxes: Tensor, numbers: Tensor) -> Tensor:
    """Return what a mask branch learns of each box, float32 ``(R, 28, 28)`` in [0, 1].

    The share of each cell that is inside, by RoIAlign with pixel i from i to i + 1: torchvision
    takes it to lie half a pixel further, which a small object notices.

    Args:
        masks: uint8 ``(N, H, W)``.
        boxes: float32 ``(R, 4)``, ``x0, y0, x1, y1``.
        numbers: int64 ``(R,)``, the object that each box is of.
    """
    # Only the objects that are learned from become float: a patch may hold far more.
    used, at = torch.unique(numbers, return_inverse=True)
    rois = torch.cat([at[:, None].to(boxes), boxes], dim=1)
    made: Tensor = roi_align(
        masks[used, None].to(boxes), rois, MASK_SIDE, sampling_ratio=MASK_SAMPLES, aligned=True
    )
    return made[:, 0]


def mask_loss(logits: Tensor, kinds: Tensor, learned: Tensor) -> Tensor:
    """Return the mean cross-entropy of the masks of each object's own class; 0 of none."""
    if not len(kinds):
        return logits.sum() * 0.0
    chosen = logits[torch.arange(len(kinds), device=kinds.device), kinds]
    return nn.functional.binary_cross_entropy_with_logits(chosen, learned)


class Proposer(RegionProposalNetwork):  # type: ignore[misc]
    """The region proposal network; boxes in ignored pixels teach nothing."""

    def __init__(self, anchors: nn.Module, head: nn.Module) -> None:
        high, low = _PROPOSAL_IOUS
        limits = {"training": 1, "testing": 1}
        super().__init__(anchors, head, high, low, 1, 0.5, limits, dict(limits), 0.7)
        self.reached: list[bool] = []
        self._limits = (1, 1)
        self._least = 0.0

    def follow(self, rules: DetectionRules) -> None:
        """Take limits and samples from ``rules``."""
        self._limits = (rules.proposals_per_level, rules.proposals)
        self._least = rules.proposal_score
        self.nms_thresh = rules.proposal_iou
        self.fg_bg_sampler.batch_size_per_image = rules.anchor_samples
        self.allow(1.0)

    def allow(self, times: float) -> None:
        """Allow so many times the proposals of `follow`."""
        per_level, after = (round(limit * times) for limit in self._limits)
        # What is learned from is a sample anyway: fewer serve.
        self._pre_nms_top_n = {"training": min(per_level, LEARNED), "testing": per_level}
        self._post_nms_top_n = {"training": min(after, LEARNED), "testing": after}

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Targets
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return 1, 0 or -1 (teaches nothing) and the box of each anchor."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        return [
            _without_ignored(label, anchor, target)
            for label, anchor, target in zip(labels, anchors, targets, strict=True)
        ], boxes

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return proposals and scores per image; `reached` tells where a limit left one out.

        One, that is, likelier an object than not and not covered by one that is kept: of those
        that double another any number may go.
        """
        self.score_thresh = 0.0 if self.training else self._least
        boxes, scores = super().filter_proposals(
            proposals, objectness, image_shapes, num_anchors_per_level
        )
        if self.training:
            return boxes, scores
        logits = objectness.detach().reshape(len(boxes), -1)
        self.reached = [
            self._cut(one, kept, torch.split(logit, num_anchors_per_level), shape)
            for one, kept, logit, shape in zip(proposals, boxes, logits, image_shapes, strict=True)
        ]
        return boxes, scores

    def _cut(
        self, proposals: Tensor, kept: Tensor, levels: Sequence[Tensor], shape: tuple[int, int]
    ) -> bool:
        """Tell whether a limit left out a proposal of one image that nothing covers."""
        sure = [level > SURE_LOGIT for level in levels]
        few = all(int(one.sum()) <= self.pre_nms_top_n() for one in sure)
        if few and len(kept) < self.post_nms_top_n():
            return False
        boxes = clip_boxes_to_image(proposals[torch.cat(sure)], shape)
        boxes = boxes[remove_small_boxes(boxes, self.min_size)]
        return any(
            bool((box_iou(some, kept).amax(1) < COVERED).any())
            for some in torch.split(boxes, TOGETHER)
        )


class Regions(RoIHeads):  # type: ignore[misc]
    """The heads on regions; boxes in ignored pixels teach nothing."""

    def __init__(self, **parts: nn.Module) -> None:
        high, low = _REGION_IOUS
        super().__init__(
            parts["box_pool"],
            parts["box_head"],
            parts["box_predictor"],
            high,
            low,
            1,
            0.25,
            None,
            0.05,
            0.5,
            1,
            mask_roi_pool=parts["mask_pool"],
            mask_head=parts["mask_head"],
            mask_predictor=parts["mask_predictor"],
        )
        self._limit = 1
        self._targets: Targets = []
        self.never: tuple[int, ...] = ()
        """Labels that no object has."""

    def follow(self, rules: DetectionRules) -> None:
        """Take limits and samples from ``rules``."""
        self.score_thresh = rules.candidate_score
        self.nms_thresh = rules.nms_iou
        self._limit = rules.detections
        self.allow(1.0)
        self.fg_bg_sampler.batch_size_per_image = rules.region_samples
        self.fg_bg_sampler.positive_fraction = rules.object_share

    def allow(self, times: float) -> None:
        """Allow so many times the detections of `follow`."""
        self.detections_per_img = round(self._limit * times)

    def losses(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Return the losses of class, box and mask."""
        self._targets = targets
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        self._targets = []
        pooled = self.box_head(self.box_roi_pool(features, proposals, shapes))
        of_class, of_box = fastrcnn_loss(*self.box_predictor(pooled), labels, deltas)
        objects = [torch.where(one > 0)[0] for one in labels]
        boxes = [one[at] for one, at in zip(proposals, objects, strict=True)]
        learned = [
            mask_targets(target["masks"], one, numbers[at])
            for target, one, numbers, at in zip(targets, boxes, matched, objects, strict=True)
        ]
        kinds = torch.cat([one[at] for one, at in zip(labels, objects, strict=True)])
        masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, shapes)))
        return {
            "classifier": of_class,
            "box": of_box,
            "mask": mask_loss(masks, kinds, torch.cat(learned)),
        }

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the object and the class of each proposal: 0 none, -1 teaches nothing."""
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        return matched, [
            _without_ignored(label, boxes, target)
            for label, boxes, target in zip(labels, proposals, self._targets, strict=True)
        ]

    def chosen(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return boxes, scores and labels (from 1) of one image, and whether a limit was met."""
        limit = self.detections_per_img
        if self.never:
            logits = logits.clone()
            logits[:, list(self.never)] = -torch.inf
        self.detections_per_img = limit + 1
        boxes, scores, labels = self.postprocess_detections(logits, deltas, [proposals], [shape])
        self.detections_per_img = limit
        return boxes[0][:limit], scores[0][:limit], labels[0][:limit], len(scores[0]) > limit


def _without_ignored(labels: Tensor, boxes: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Return the labels, of what would be background in ignored pixels `_NEITHER`."""
    hidden = target["hidden"]
    if not hidden.numel():
        return labels
    share = _share_inside(hidden, boxes)
    return torch.where((labels == 0) & (share >= IGNORED_SHARE), _NEITHER, labels)


def summed(ignored: Tensor) -> Tensor:
    """Return the sums of a bool ``(H, W)`` over all that lies up and left, ``(H + 1, W + 1)``.

    Empty where nothing is ignored.
    """
    if not bool(ignored.any()):
        return torch.zeros((0, 0), device=ignored.device)
    sums = ignored.float().cumsum(0).cumsum(1)
    return nn.functional.pad(sums, (1, 0, 1, 0))


def _share_inside(sums: Tensor, boxes: Tensor) -> Tensor:
    """Return the share of boxes ``(N, 4)`` (x0, y0, x1, y1) that is ignored, in whole pixels."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    x0, x1 = (boxes[:, i].round().long().clamp(0, width) for i in (0, 2))
    y0, y1 = (boxes[:, i].round().long().clamp(0, height) for i in (1, 3))
    held = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: Tensor = held / area.clamp(min=1.0)
    return share


def total(losses: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return the sum of all losses."""
    return torch.stack([value for part in losses for value in part.values()]).sum()
