"""The same bits from the same training, on devices that would rather be fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Have CUDA compute in one order inside; nothing changes for other devices.

    cuDNN then takes no algorithm that adds in the order in which threads finish, and does
    not choose among algorithms by timing them: both differ from run to run on one GPU.
    Operations that know no fixed order still run, and torch warns of them by name. cuBLAS
    has a switch of its own, which it takes from the environment (CUBLAS_WORKSPACE_CONFIG);
    the shipped models convolve and do not need it.
    """
    if device != "cuda":
        yield
        return
    flags = (cudnn.deterministic, cudnn.benchmark)
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
