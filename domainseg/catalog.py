"""Every part that a recipe can name: adding one is its file and one line here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import get_args

from domainseg.loaders.coco import Coco
from domainseg.loaders.kaggle_nuclei import KaggleNuclei
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.mixedwm38 import MixedWM38
from domainseg.loaders.rle_csv import RleCsv
from domainseg.loaders.scenes import Scenes
from domainseg.loaders.wafer_maps import WaferMaps
from domainseg.loaders.wafers import Wafers
from domainseg.loaders.wm811k import WM811K
from domainseg.models.fcn import FCN
from domainseg.models.fpn import FPN
from domainseg.models.heads.boundary import BoundaryHead
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.heads.height import HeightHead
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.heads.pattern import PatternHead
from domainseg.models.heads.semantic import SemanticHead
from domainseg.models.mask_rcnn import MaskRCNN
from domainseg.models.unet import UNet

Loader = (
    Coco | KaggleNuclei | MaskFolder | MixedWM38 | RleCsv | Scenes | WaferMaps | Wafers | WM811K
)
Model = FCN | FPN | MaskRCNN | UNet
Head = BoundaryHead | DetectionHead | HeightHead | PanopticHead | PatternHead | SemanticHead

LOADERS: tuple[type[Loader], ...] = get_args(Loader)
MODELS: tuple[type[Model], ...] = get_args(Model)
HEADS: tuple[type[Head], ...] = get_args(Head)


def names(parts: Iterable[type[Loader | Model | Head]]) -> list[str]:
    """Return the names by which recipes call these parts."""
    return [str(field.default) for part in parts for field in fields(part) if field.name == "name"]
