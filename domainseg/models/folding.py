"""Batch normalisation folded into the convolutions before it, for networks that no longer learn.

In eval mode a normalisation is one scale and one shift per channel; so is what a convolution can
be given by its weights and bias. Folded, a network on a processor reads and writes each of its
maps once less, which is a fifth of its time.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference of the scores to those before, as a share of the largest of these."""
_CELLS = 4
"""Side of the image that a network is tried on, in cells of its deepest map."""


def fold_batch_norms(network: nn.Module, *, channels: int, stride: int) -> nn.Module:
    """Return a network with its normalisations folded, or itself where none can be.

    ``network`` is in eval mode on the CPU and takes float32 ``(B, channels, H, W)``, H and W
    multiples of ``stride``; it is not changed. A normalisation is folded that follows one
    convolution, each of them run once. The folded network is tried beside the first on noise;
    where the scores differ by more than TOLERANCE, as where something else reads what a
    convolution made, the first is returned.
    """
    if not any(isinstance(one, nn.BatchNorm2d) for one in network.modules()):
        return network
    side = _CELLS * stride
    noise = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    folded = copy.deepcopy(network)
    # Not in inference mode: weights that are made there cannot be used outside of it.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        with _noted(folded) as pairs:
            before = folded(noise)
        for convolution, norm in pairs:
            _fold(folded, convolution, norm)
        after = folded(noise)
    same = (after - before).abs().max() <= TOLERANCE * before.abs().max()
    return folded if pairs and bool(same) else network


@contextmanager
def _noted(network: nn.Module) -> Iterator[list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Note which normalisation takes what which convolution made; filled when the block ends."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[nn.Module] = Counter()

    def convolved(module: nn.Module, _given: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[module] += 1
        # Kept, so that no other tensor takes its place in memory.
        made[id(output)] = (module, output)

    def normalising(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[module] += 1
        if module.track_running_stats and not module.training and id(given[0]) in made:
            found.append((made[id(given[0])][0], module))

    hooks = [
        one.register_forward_hook(convolved)
        if isinstance(one, nn.Conv2d)
        else one.register_forward_pre_hook(normalising)
        for one in network.modules()
        if isinstance(one, nn.Conv2d | nn.BatchNorm2d)
    ]
    once: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    try:
        yield once
    finally:
        for hook in hooks:
            hook.remove()
    once += [pair for pair in found if all(calls[module] == 1 for module in pair)]


@torch.no_grad()
def _fold(network: nn.Module, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the scale and shift of a normalisation, of which the activation stays."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = 1 / torch.sqrt(variance.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = convolution.weight
    scaled = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype)
    convolution.weight = nn.Parameter(scaled, requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
    # A normalisation of timm holds its activation.
    left = getattr(norm, "act", None)
    name = next(name for name, one in network.named_modules() if one is norm)
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity() if left is None else left)
