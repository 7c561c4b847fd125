"""Torchvision's published Mask R-CNN networks, with the weights that COCO gave them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.models.encoders import InputScaling, fit_stem
from domainseg.models.regions import (
    FloatBoxPredictor,
    FloatMaskPredictor,
    FloatRPNHead,
    Proposer,
    Regions,
)

Version = Literal["v1", "v2"]
WIDTH = 256
HIDDEN = 1024
LEVELS = ("0", "1", "2", "3")
"""Levels that regions are pooled from; the fifth serves proposals alone."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PER_CLASS = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_fcn_logits")
"""Layers with rows for each class, by a part of their names."""
_STEM = "backbone.body.conv1.weight"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a network, as `mask_rcnn.MaskRCNNNetwork` takes them."""

    backbone: nn.Module
    proposer: Proposer
    regions: Regions
    scaling: InputScaling


def published_network(
    version: Version,
    *,
    classes: int,
    anchors: tuple[tuple[float, ...], ...],
    ratios: tuple[float, ...],
    channels: int,
    pretrained: bool,
) -> Parts:
    """Return ``maskrcnn_resnet50_fpn`` (v1) or its v2, for so many classes and channels.

    With ``pretrained`` it holds the published weights. Its 80 classes keep their rows where
    ``classes`` is 80, in the order of COCO's category ids; else the last layers start anew.

    Raises:
        MissingInputError: the weights are not on disk and cannot be had.
        InputError: what was fetched is not what was published.
    """
    parts = _untrained(version, classes, anchors, ratios, channels)
    if pretrained:
        _load(parts, fitting(fetch(version), classes=classes, channels=channels))
    return parts


def _untrained(
    version: Version,
    classes: int,
    anchors: tuple[tuple[float, ...], ...],
    ratios: tuple[float, ...],
    channels: int,
) -> Parts:
    """Return the architecture with random weights."""
    second = version == "v2"
    norm = nn.BatchNorm2d if second else None
    backbone: nn.Module
    box_head: nn.Module
    if second:
        backbone = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).backbone
        box_head = FastRCNNConvFCHead((WIDTH, 7, 7), [WIDTH] * 4, [HIDDEN], norm_layer=norm)
    else:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
        )
        for module in backbone.modules():
            # What was published was trained with a norm that adds nothing to the variance.
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
        box_head = TwoMLPHead(WIDTH * 49, HIDDEN)
    if channels != 3:
        stem = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        backbone.get_submodule("body").conv1 = stem
    generator = AnchorGenerator(anchors, (ratios,) * len(anchors))
    per_place = generator.num_anchors_per_location()[0]
    regions = Regions(
        box_pool=MultiScaleRoIAlign(list(LEVELS), 7, 2),
        box_head=box_head,
        box_predictor=FloatBoxPredictor(HIDDEN, classes + 1),
        mask_pool=MultiScaleRoIAlign(list(LEVELS), 14, 2),
        mask_head=MaskRCNNHeads(WIDTH, [WIDTH] * 4, 1, norm_layer=norm),
        mask_predictor=FloatMaskPredictor(WIDTH, WIDTH, classes + 1),
    )
    proposer = Proposer(generator, FloatRPNHead(WIDTH, per_place, conv_depth=2 if second else 1))
    return Parts(backbone, proposer, regions, _scaling(channels))


def _scaling(channels: int) -> InputScaling:
    if channels == len(_MEAN):
        return InputScaling(_MEAN, _STD)
    mean, std = sum(_MEAN) / 3, sum(_STD) / 3
    return InputScaling((mean,) * channels, (std,) * channels)


def address(version: Version) -> str:
    """Return where the weights are published; the name ends in the SHA-256's first digits."""
    published = {
        "v1": MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
        "v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    }
    return str(published[version].url)


def fetch(version: Version) -> dict[str, Tensor]:
    """Return the published weights, from torch's cache or from `address`.

    Raises:
        MissingInputError: there is no connection.
        InputError: the file's SHA-256 is not the one in its name.
    """
    where = f"model.weights: coco for published {version}"
    _require_published(where, Path(torch.hub.get_dir()) / "checkpoints" / _name(version))
    try:
        # It says where it fetches from even when it is told to be quiet.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            state = torch.hub.load_state_dict_from_url(
                address(version),
                map_location="cpu",
                progress=False,
                check_hash=True,
                weights_only=True,
            )
    except RuntimeError as error:
        raise InputError(
            sentence(
                where,
                found=f"another file than was published ({error})",
                wanted="the SHA-256 that its name ends in",
                fix="fetch it again on another connection",
            )
        ) from error
    except (URLError, OSError) as error:
        raise MissingInputError(
            sentence(
                where,
                found=f"no download ({type(error).__name__})",
                wanted=f"{address(version)} on disk or a connection",
                fix=f"connect once, put the file into {torch.hub.get_dir()}/checkpoints, or "
                "use weights: imagenet without published",
            )
        ) from error
    return dict(state)


def _name(version: Version) -> str:
    return PurePosixPath(urlsplit(address(version)).path).name


def _require_published(where: str, path: Path) -> None:
    """Raise InputError where a file lies in torch's cache that is not what its name says.

    Torch compares what it fetches; of what is there already, put by hand, nobody did.
    """
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if digest is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digest[1]):
        raise InputError(
            sentence(
                where,
                found=f"another file than was published in {path}",
                wanted=f"one whose SHA-256 begins with {digest[1]}",
                fix="delete it, and fetch it again",
            )
        )


def category_rows() -> list[int]:
    """Return the rows of COCO's 80 classes among the 91 that were published, background first."""
    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [i for i, name in enumerate(names) if name != "N/A"]


def fitting(state: Mapping[str, Tensor], *, classes: int, channels: int) -> dict[str, Tensor]:
    """Return the weights that fit a network of so many classes and channels."""
    rows = category_rows()
    fit = dict(state)
    for name, value in state.items():
        if not any(part in name for part in _PER_CLASS):
            continue
        if classes + 1 != len(rows):
            del fit[name]
        elif "bbox_pred" in name:
            # Four rows a class.
            fit[name] = value.reshape(-1, 4, *value.shape[1:])[rows].flatten(0, 1)
        else:
            fit[name] = value[rows]
    if channels != 3:
        stem = fit[_STEM]
        fit[_STEM] = fit_stem(stem, stem.new_empty(64, channels, 7, 7))
    return fit


def _load(parts: Parts, state: Mapping[str, Tensor]) -> None:
    """Put weights into the parts; what is not among them stays as it is."""
    modules: dict[str, nn.Module] = {
        "backbone": parts.backbone,
        "rpn": parts.proposer,
        "roi_heads": parts.regions,
    }
    for prefix, module in modules.items():
        own = {
            name.removeprefix(f"{prefix}."): value
            for name, value in state.items()
            if name.startswith(f"{prefix}.")
        }
        missing, unexpected = module.load_state_dict(own, strict=False)
        absent = [name for name in missing if not any(part in name for part in _PER_CLASS)]
        if absent or unexpected:
            raise InputError(
                sentence(
                    f"model.weights: coco, {prefix}",
                    found=f"no {absent[0]}" if absent else f"{unexpected[0]}, which has no place",
                    wanted="the weights that torchvision publishes",
                    fix="fetch them again",
                )
            )
