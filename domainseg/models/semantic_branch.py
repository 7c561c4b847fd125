"""The branch of a feature pyramid that gives each pixel a class, beside one that finds objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.models.fpn import PyramidLevel

OTHER = 0
"""The class of pixels that belong to an object or to nothing; class i is i + 1."""
IGNORED = -1
TOGETHER = 8
"""Classes that are brought to the image's size at a time: all of them are most of the memory."""


class SemanticBranch(nn.Module):
    """Levels of a pyramid to scores per class, as in Kirillov et al. 2019, figure 3."""

    def __init__(self, pyramid: int, width: int, *, names: Sequence[str], classes: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.levels = nn.ModuleList(
            PyramidLevel(pyramid, width, doublings=i) for i in range(len(names))
        )
        self.scores = nn.Conv2d(width, classes + 1, 1)

    def forward(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Return float32 ``(B, classes + 1, h, w)`` at the resolution of the finest level."""
        brought = [
            level(pyramid[name]) for name, level in zip(self.names, self.levels, strict=True)
        ]
        scores: Tensor = self.scores(sum(brought))
        return scores.float()

    def loss(self, pyramid: Mapping[str, Tensor], classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of the pixels ``(B, H, W)`` that are not `IGNORED`."""
        scores = _brought(self(pyramid), classes.shape[1:])
        known = (classes != IGNORED).sum().clamp(min=1)
        summed = F.cross_entropy(scores, classes, ignore_index=IGNORED, reduction="sum")
        return summed / known

    def classes(self, pyramid: Mapping[str, Tensor], size: torch.Size, among: Tensor) -> Tensor:
        """Return the likeliest class of each pixel, uint8 ``(B, H, W)``: `OTHER` or one more.

        ``among`` are the indices that a pixel may have.
        """
        scores = self(pyramid)[:, among]
        best = torch.full((len(scores), *size), -torch.inf, device=scores.device)
        chosen = torch.zeros((len(scores), *size), dtype=torch.uint8, device=scores.device)
        for first in range(0, len(among), TOGETHER):
            some, which = _brought(scores[:, first : first + TOGETHER], size).max(1)
            better = some > best
            best = torch.where(better, some, best)
            chosen = torch.where(better, among[which + first].to(torch.uint8), chosen)
        return chosen


def _brought(scores: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
