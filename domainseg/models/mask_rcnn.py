"""Mask R-CNN: Faster R-CNN with a mask branch on a feature pyramid.

He, Gkioxari, Dollar and Girshick, ICCV 2017, on the pyramid of Lin et al., CVPR 2017, put
together of torchvision's parts. Images go in as they are: torchvision's own resizing, which
would make an object depend on the window it is seen in, has no place here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from domainseg.models.coco_weights import LEVELS as PUBLISHED_LEVELS
from domainseg.models.coco_weights import WIDTH as PUBLISHED_CHANNELS
from domainseg.models.coco_weights import published_network
from domainseg.models.encoders import (
    InputScaling,
    build_encoder,
    feature_widths,
    input_scaling,
)
from domainseg.models.regions import (
    DetectionRules,
    FloatBoxPredictor,
    FloatMaskPredictor,
    FloatRPNHead,
    Proposer,
    Regions,
    summed,
    total,
)
from domainseg.models.semantic_branch import OTHER, SemanticBranch

BOX_CELLS = 7
MASK_CELLS = 14
"""Cells that a region is pooled to for its class and box, and for its mask of twice as many."""
SAMPLES = 2
"""Points per cell and axis of RoIAlign."""
TOGETHER = 256
"""Regions whose masks are made at a time: what lies between the layers is large."""
LIMITED_PX = 1 << 20
"""Pixels of a window that the limits of proposals and detections are for."""
PUBLISHED_ANCHORS = 3
"""Anchors a place that torchvision's weights are for."""
PUBLISHED_STRIDE = 64
"""Of torchvision's networks, whose pyramid has a level beyond the encoder's."""


class PatchObjects(Protocol):
    """The objects of one training patch, N of them."""

    @property
    def boxes(self) -> Tensor:
        """Float32 ``(N, 4)``, ``x0, y0, x1, y1``, half-open, px."""
        ...

    @property
    def classes(self) -> Tensor:
        """Int64 ``(N,)``, from 0."""
        ...

    @property
    def masks(self) -> Tensor:
        """Uint8 ``(N, H, W)``, 1 inside."""
        ...

    @property
    def ignored(self) -> Tensor:
        """Bool ``(H, W)``, where nothing is known."""
        ...

    @property
    def regions(self) -> Tensor | None:
        """Int64 ``(H, W)``, class of each pixel as `semantic_branch` counts; or None."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What the network finds in one window, N objects.

    Attributes:
        boxes: float32 ``(N, 4)``, ``x0, y0, x1, y1``, px of the window.
        classes: int64 ``(N,)``, from 0.
        scores: float32 ``(N,)`` in [0, 1], falling.
        masks: float32 ``(N, M, M)``, probability of each cell of the box.
        proposals_cut: whether a limit of proposals was met.
        detections_cut: whether that of detections was.
        regions: uint8 ``(h, w)``, class of each pixel as `semantic_branch` counts; None of a
            network without that branch.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor
    proposals_cut: bool
    detections_cut: bool
    regions: Tensor | None = None


class Pyramid(nn.Module):
    """Encoder and feature pyramid: image to maps by stride, each of the same width."""

    def __init__(self, encoder: nn.Module, width: int, *, finest: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.finest = finest
        self.pyramid = FeaturePyramidNetwork(list(feature_widths(encoder)[finest:]), width)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the levels by number, finest first."""
        features: Sequence[Tensor] = self.encoder(image)
        named = OrderedDict((str(i), x) for i, x in enumerate(features[self.finest :]))
        levels: dict[str, Tensor] = self.pyramid(named)
        return levels


class MaskRCNNNetwork(nn.Module):
    """Images in [0, 1], float ``(B, C, H, W)`` of multiples of the stride, to objects."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        rpn: Proposer,
        roi_heads: Regions,
        *,
        scaling: InputScaling,
        semantic: SemanticBranch | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.semantic = semantic
        self.semantic_weight = 0.0
        self.among: tuple[int, ...] = (OTHER,)
        self.register_buffer("mean", torch.tensor(scaling.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(scaling.std).view(1, -1, 1, 1))

    def follow(self, rules: DetectionRules) -> Self:
        """Take limits and samples from ``rules``; return itself."""
        self.rpn.follow(rules)
        self.roi_heads.follow(rules)
        return self

    def draw_regions(self, classes: Sequence[int], *, weight: float) -> Self:
        """Take the classes, from 0, that are regions and the weight of their loss."""
        self.among = (OTHER, *(index + 1 for index in classes))
        self.roi_heads.never = tuple(index + 1 for index in classes)
        self.semantic_weight = weight
        return self

    def losses(self, images: Tensor, objects: Sequence[PatchObjects]) -> Tensor:
        """Return the sum of the losses of proposals, classes, boxes and masks."""
        targets = [
            {
                "boxes": one.boxes,
                "labels": one.classes + 1,
                "masks": one.masks,
                "hidden": summed(one.ignored),
            }
            for one in objects
        ]
        levels, shapes = self._levels(images), _shapes(images)
        proposals, of_proposals = self.rpn(ImageList(images, shapes), levels, targets)
        of_boxes = self.roi_heads.losses(levels, proposals, shapes, targets)
        drawn = [one.regions for one in objects if one.regions is not None]
        of_regions: dict[str, Tensor] = {}
        if self.semantic is not None and len(drawn) == len(objects):
            loss = self.semantic.loss(levels, torch.stack(drawn))
            of_regions = {"regions": self.semantic_weight * loss}
        return total([of_proposals, of_boxes, of_regions])

    def detect(self, images: Tensor) -> list[Found]:
        """Return what is found in each window, the best first."""
        levels, shapes = self._levels(images), _shapes(images)
        larger = max(1.0, images.shape[2] * images.shape[3] / LIMITED_PX)
        self.rpn.allow(larger)
        self.roi_heads.allow(larger)
        proposals, _ = self.rpn(ImageList(images, shapes), levels)
        reached = list(self.rpn.reached)
        found = [
            self._detect_one(
                {name: level[i : i + 1] for name, level in levels.items()},
                proposals[i],
                shapes[i],
                proposals_cut=reached[i],
            )
            for i in range(len(images))
        ]
        if self.semantic is None or len(self.among) == 1:
            return found
        among = torch.tensor(self.among, device=images.device)
        regions = self.semantic.classes(levels, images.shape[2:], among)
        return [replace(one, regions=plane) for one, plane in zip(found, regions, strict=True)]

    def _levels(self, images: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.backbone((images - self.mean) / self.std)
        # Boxes and RoIAlign count in whole digits; the heads' layers go back to half by
        # themselves where they may.
        return {name: level.float() for name, level in levels.items()}

    def _detect_one(
        self,
        levels: dict[str, Tensor],
        proposals: Tensor,
        shape: tuple[int, int],
        *,
        proposals_cut: bool,
    ) -> Found:
        heads = self.roi_heads
        regions = heads.box_head(heads.box_roi_pool(levels, [proposals], [shape]))
        logits, deltas = heads.box_predictor(regions)
        boxes, scores, labels, cut = heads.chosen(logits, deltas, proposals, shape)
        masks = [
            self._masks(levels, some, kinds, shape)
            for some, kinds in zip(
                torch.split(boxes, TOGETHER), torch.split(labels, TOGETHER), strict=True
            )
        ]
        return Found(boxes, labels - 1, scores, torch.cat(masks), proposals_cut, cut)

    def _masks(
        self, levels: dict[str, Tensor], boxes: Tensor, labels: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        heads = self.roi_heads
        pooled = heads.mask_roi_pool(levels, [boxes], [shape])
        logits = heads.mask_predictor(heads.mask_head(pooled))
        chosen: Tensor = logits[torch.arange(len(boxes), device=boxes.device), labels]
        return chosen.sigmoid()


def _shapes(images: Tensor) -> list[tuple[int, int]]:
    return [(int(images.shape[2]), int(images.shape[3]))] * len(images)


@dataclass(frozen=True, slots=True)
class MaskRCNN:
    """Mask R-CNN (He et al. 2017) on any encoder under a feature pyramid (Lin et al. 2017).

    Attributes:
        encoder: backbone name, as segmentation-models-pytorch or timm spells it.
        weights: ``imagenet`` (of the encoder), ``coco`` (of a ``published`` network) or None.
        published: ``v1`` or ``v2`` builds torchvision's ``maskrcnn_resnet50_fpn`` or
            ``maskrcnn_resnet50_fpn_v2`` in the place of all that follows but the anchors.
        depth: number of times the encoder halves the image; the coarsest stride is 2**depth.
        finest: depth of the finest level of the pyramid; 2 = a quarter of the resolution.
        anchors_px: side of the anchors of each level from the finest on, one list each; as
            large as objects are, px of the model grid. None = 8 times the stride.
        anchor_ratios: height over width of the anchors.
        pyramid_channels: width of the pyramid and of the mask branch.
        box_channels: width of the two layers that classify a region.
        semantic_channels: width of a branch that gives each pixel a class, as head panoptic
            wants it; None = no such branch.
    """

    name: Literal["mask_rcnn"] = "mask_rcnn"
    encoder: str = "tf_efficientnet_lite0"
    weights: Literal["imagenet", "coco"] | None = "imagenet"
    published: Literal["v1", "v2"] | None = None
    depth: int = 5
    finest: int = 2
    anchors_px: tuple[tuple[float, ...], ...] | None = None
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    pyramid_channels: int = 128
    box_channels: int = 512
    semantic_channels: int | None = None

    family: ClassVar[str] = "objects"

    def __post_init__(self) -> None:
        if not 2 <= self.depth <= 5:
            raise ValueError(f"depth is {self.depth}, wanted 2 to 5")
        if not 1 <= self.finest <= self.depth:
            raise ValueError(f"finest is {self.finest}, wanted 1 to {self.depth}")
        levels = 5 if self.published else self.depth - self.finest + 1
        if self.anchors_px is not None and len(self.anchors_px) != levels:
            raise ValueError(
                f"anchors_px has {len(self.anchors_px)} lists, wanted {levels}, one for each "
                "level of the pyramid"
            )
        counts = {len(one) for one in self.anchors_px or ((1.0,),)}
        if len(counts) != 1 or 0 in counts:
            raise ValueError("anchors_px has lists of different lengths, wanted as many in each")
        if (self.weights == "coco") != (self.published is not None and self.weights is not None):
            raise ValueError(
                f"weights is {self.weights} with published {self.published or 'null'}, wanted "
                "coco with v1 or v2, imagenet without; change one"
            )
        places = len(self.anchor_ratios) * counts.pop()
        if self.weights == "coco" and places != PUBLISHED_ANCHORS:
            raise ValueError(
                f"anchors_px and anchor_ratios make {places} anchors a place, wanted "
                f"{PUBLISHED_ANCHORS} with weights coco; set anchors_px to null"
            )
        if self.published and self.encoder != "resnet50":
            raise ValueError(f"encoder is {self.encoder} with published, wanted resnet50")

    @property
    def stride(self) -> int:
        """Pixels per cell of the coarsest level; windows start at multiples of it."""
        return PUBLISHED_STRIDE if self.published else int(2**self.depth)

    @property
    def anchors(self) -> tuple[tuple[float, ...], ...]:
        """Sides of the anchors of each level, px."""
        if self.anchors_px is not None:
            return self.anchors_px
        first = 2 if self.published else self.finest
        levels = 5 if self.published else self.depth - self.finest + 1
        return tuple((8.0 * 2 ** (first + i),) for i in range(levels))

    def without_weights(self) -> Self:
        """Return the same architecture starting from random weights."""
        return replace(self, weights=None)

    def build(self, channels: int, outputs: int) -> MaskRCNNNetwork:
        """Return the network for images of ``channels`` and ``outputs`` classes."""
        if self.published is not None:
            parts = published_network(
                self.published,
                classes=outputs,
                anchors=self.anchors,
                ratios=self.anchor_ratios,
                channels=channels,
                pretrained=self.weights == "coco",
            )
            return MaskRCNNNetwork(
                parts.backbone,
                parts.proposer,
                parts.regions,
                scaling=parts.scaling,
                semantic=self._semantic(PUBLISHED_CHANNELS, PUBLISHED_LEVELS, outputs),
            )
        encoder = build_encoder(self.encoder, self.weights, channels=channels, depth=self.depth)
        width = self.pyramid_channels
        names = [str(i) for i in range(self.depth - self.finest + 1)]
        anchors = AnchorGenerator(self.anchors, (self.anchor_ratios,) * len(names))
        per_place = anchors.num_anchors_per_location()[0]
        regions = Regions(
            box_pool=MultiScaleRoIAlign(names, BOX_CELLS, SAMPLES),
            box_head=TwoMLPHead(width * BOX_CELLS**2, self.box_channels),
            box_predictor=FloatBoxPredictor(self.box_channels, outputs + 1),
            mask_pool=MultiScaleRoIAlign(names, MASK_CELLS, SAMPLES),
            mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
            mask_predictor=FloatMaskPredictor(width, width, outputs + 1),
        )
        return MaskRCNNNetwork(
            Pyramid(encoder, width, finest=self.finest),
            Proposer(anchors, FloatRPNHead(width, per_place)),
            regions,
            scaling=input_scaling(self.encoder, self.weights, channels),
            semantic=self._semantic(width, names, outputs),
        )

    def _semantic(self, width: int, names: Sequence[str], outputs: int) -> SemanticBranch | None:
        if self.semantic_channels is None:
            return None
        return SemanticBranch(width, self.semantic_channels, names=names, classes=outputs)
