"""How long a step of training takes with depthwise convolutions as they are, and by detours.

    python benchmarks/depthwise.py [--encoder tf_efficientnet_lite0] [--repeats 10]

An FPN of the size of ``wafer-fpn``, batches of 8 x 192 x 192 px, bfloat16 on the processor: both
networks in turn, and the ratio of their medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from domainseg.models.depthwise import DepthwiseConv2d
from domainseg.models.fpn import FPN


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    steps = {name: step(network(given.encoder, fast=fast)) for name, fast in KINDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(given.repeats + 2):
        for name, run in steps.items():
            begun = time.perf_counter()
            run()
            if turn > 1:
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:10s} {value:.3f} s a step")
    print(f"ratio      {medians['plain'] / medians['detours']:.2f}")


KINDS = {"plain": False, "detours": True}


def network(encoder: str, *, fast: bool) -> nn.Module:
    """Return the network, its depthwise layers as the library computes them where not fast."""
    torch.manual_seed(0)
    architecture = FPN(
        encoder=encoder,
        weights=None,
        depth=4,
        finest=0,
        pyramid_channels=32,
        decoder_channels=24,
        refinements=1,
    )
    made = architecture.build(1, 9).to(memory_format=torch.channels_last).train()
    if not fast:
        for module in made.modules():
            if isinstance(module, DepthwiseConv2d):
                # A layer that is not in training takes no detour; it has no other state.
                module.training = False
    return made


def step(made: nn.Module) -> Callable[[], None]:
    """Return what takes one step."""
    optimiser = torch.optim.AdamW(made.parameters())
    image = torch.rand(8, 1, 192, 192).to(memory_format=torch.channels_last)
    truth = torch.randint(0, 9, (8, 192, 192))

    def run() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = made(image)
        F.cross_entropy(scores.float(), truth).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return run


if __name__ == "__main__":
    main()
