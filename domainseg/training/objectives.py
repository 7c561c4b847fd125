"""What a network is fitted by: its loss on a batch of patches, whatever it draws or finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from domainseg.training.size_weights import faded

Batch = tuple[Any, ...]
"""Images ``(B, C, p, p)`` first; the rest is the objective's."""


class Objective(Protocol):
    """The loss of one kind of network."""

    def __call__(self, network: nn.Module, batch: Batch, done: float, /) -> Tensor:
        """Return the scalar loss of a batch when ``done`` of the training is over, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class MapObjective:
    """The loss of scores per pixel; batches are images, targets and weight.

    Attributes:
        loss: scores, targets, weight to the scalar loss.
        fade_weights: whether the pixels' weights fade to 1 (`size_weights.faded`).
    """

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    fade_weights: bool = False

    def __call__(self, network: nn.Module, batch: Batch, done: float, /) -> Tensor:
        """Return the loss."""
        image, targets, weight = batch
        if self.fade_weights:
            weight = faded(weight, done)
        scores = network(image.to(memory_format=torch.channels_last))
        return self.loss(scores.float(), targets, weight)


class FindsObjects(Protocol):
    """A network that has its own losses of objects."""

    def losses(self, images: Tensor, objects: Sequence[Any]) -> Tensor:
        """Return the scalar loss."""
        ...


@dataclass(frozen=True, slots=True)
class DetectionObjective:
    """The loss of objects found; batches are images and the objects of each."""

    def __call__(self, network: nn.Module, batch: Batch, _done: float, /) -> Tensor:
        """Return the loss."""
        images, objects = batch
        return cast("FindsObjects", network).losses(
            images.to(memory_format=torch.channels_last), objects
        )
