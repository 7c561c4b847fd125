"""Objects found one by one: what a detector learns from, and how many it may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class DetectionHead:
    """Boxes with class, score and mask; objects may overlap.

    The limits are those of a window of 1,024 x 1,024 px, and larger windows have as many more
    as they are larger: what is found does not depend on how an image is cut. A run tells how
    many windows reached one: there objects may be missing.

    Attributes:
        proposals_per_level: proposals of a pyramid level before those that double are dropped;
            there are some ten of each object.
        proposals: proposals that are classified.
        detections: objects that a window may show.
        proposal_score: least probability of a proposal that is classified, in prediction; most
            of the time goes to proposals, and most of these are nothing.
        proposal_iou: of two proposals with a larger IoU the better one stays.
        nms_iou: of two objects of one class with a larger IoU, of boxes in a window and of
            masks in the image, the better one stays.
        candidate_score: least score of an object that is kept to choose from; what is shown
            is ``instances.min_score``'s to say, without the network.
        anchor_samples: anchors per patch that the proposals learn from, half of them objects
            at most.
        region_samples: proposals per patch that classes, boxes and masks learn from.
        object_share: share of these that are objects at most.
    """

    name: Literal["detection"] = "detection"
    proposals_per_level: int = 10000
    proposals: int = 2000
    detections: int = 1000
    proposal_score: float = 0.05
    proposal_iou: float = 0.7
    nms_iou: float = 0.5
    candidate_score: float = 0.05
    anchor_samples: int = 256
    region_samples: int = 256
    object_share: float = 0.25

    family: ClassVar[str] = "objects"

    def __post_init__(self) -> None:
        for name in (
            "proposals_per_level",
            "proposals",
            "detections",
            "anchor_samples",
            "region_samples",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        if not 0 <= self.proposal_score < 1:
            raise ValueError(f"proposal_score is {self.proposal_score:g}, wanted 0 to below 1")
        for name in ("proposal_iou", "nms_iou", "candidate_score", "object_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name):g}, wanted a number in (0, 1)")

    @property
    def overlapping(self) -> bool:
        """Return True: each object has its own pixels."""
        return True

    @property
    def learns_labels(self) -> bool:
        """Return False: every training image has its masks."""
        return False

    def outputs(self, classes: int) -> int:
        """Return what the network is told to tell apart: the classes."""
        return classes
