"""How long a training takes: real steps timed, minutes turned into steps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from domainseg.errors import RecipeError, sentence
from domainseg.training.determinism import deterministic
from domainseg.training.objectives import Batch, Objective

TIMED_STEPS = 12
"""Steps that are timed, more where there is time for them."""
TIMING = 0.015
"""Share of the minutes that the timing may take where TIMED_STEPS are done sooner."""
SPARE = 0.97
"""Share of the minutes that is planned for; the rest is for what the timing did not see."""


def seconds_per_step(
    network: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    bf16: bool,
    minutes: float,
) -> float:
    """Return the mean time of a training step, data included; the network is changed.

    ``minutes`` are those of the training: the longer it is, the more steps are timed.
    """
    network = network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    times = []
    until = time.monotonic() + 60 * TIMING * minutes
    begun = time.monotonic()
    with deterministic(device.type):
        for batch in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                value = objective(network, move_data_to_device(batch, device), 0.0)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            float(value.detach())  # waits for the device
            times.append(time.monotonic() - begun)
            begun = time.monotonic()
            if len(times) >= TIMED_STEPS and begun > until:
                break
    # The first steps start workers and compile kernels; later ones are what the run will see.
    return statistics.fmean(times[len(times) // 2 :])


def steps_within(
    minutes: float, *, gone_s: float, step_s: float, validation_s: float, steps_per_epoch: int
) -> int:
    """Return how many steps fit into what is left of ``minutes``.

    ``validation_s`` is spent once an epoch, and ``gone_s`` was spent before.

    Raises:
        RecipeError: not even one step fits.
    """
    each_s = step_s + validation_s / steps_per_epoch
    steps = int((minutes * 60 * SPARE - gone_s) / each_s)
    if steps < 1:
        # Rounded up, so that no number above it is refused for its rounding.
        needed = math.ceil((gone_s + each_s) / (60 * SPARE) * 10) / 10
        raise RecipeError(
            sentence(
                "train.max_minutes",
                found=f"{minutes:g}",
                wanted=f"more than the {needed:g} minutes that preparing takes",
                fix="raise it",
            )
        )
    return steps
