"""Objects found one by one, and regions: every pixel of an image in one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domainseg.models.heads.detection import DetectionHead


@dataclass(frozen=True, slots=True)
class PanopticHead(DetectionHead):
    """Objects and regions (Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019).

    Objects are those of `DetectionHead`; regions are the pixels of classes that have none,
    such as sky. Where both are, the object is; of two objects the one with the higher score.

    Attributes:
        stuff: classes that are regions; None = those that the data says are.
        semantic_weight: weight of the loss of regions beside those of objects.
        visible_share: share of an object that must be left when better ones have taken their
            pixels; one with less is dropped.
        least_region_px: pixels of a region class below which an image has none of it, px of
            the image.
    """

    name: Literal["panoptic"] = "panoptic"  # type: ignore[assignment]
    stuff: tuple[str, ...] | None = None
    semantic_weight: float = 0.5
    visible_share: float = 0.5
    least_region_px: int = 4096

    def __post_init__(self) -> None:
        # Not super(): with slots the class is made anew and the name means another.
        DetectionHead.__post_init__(self)
        if not self.semantic_weight > 0:
            raise ValueError(f"semantic_weight is {self.semantic_weight:g}, wanted above 0")
        if not 0 <= self.visible_share <= 1:
            raise ValueError(f"visible_share is {self.visible_share:g}, wanted 0 to 1")
        if self.least_region_px < 0:
            raise ValueError(f"least_region_px is {self.least_region_px}, wanted 0 or more")
