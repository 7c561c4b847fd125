"""A plain U-Net, thresholded, each connected group an object; of smp or of MONAI.

    python torch_peer.py smp|monai train DATA OUT MINUTES
    python torch_peer.py smp|monai predict DATA OUT

As a practitioner would write it in an afternoon: foreground with a gap of one pixel between
objects that touch, cross-entropy and Dice, turns, scales and brightness, AdamW with a cosine; the
threshold and the smallest object are those with the best mean AP on the validation images.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
import torch.nn.functional as F
from shared import main, normalised, pictures
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import find_boundaries
from torch import Tensor, nn

SEED = 1
BATCH, SIDE, ROOM = 8, 256, 360
TUNING_MIN = 1.0
"""Kept for the rules."""
LEVELS, SMALLEST_PX = (0.3, 0.4, 0.5, 0.6, 0.7), (10, 20, 40)
KIND = sys.argv.pop(1)
Array = np.ndarray[Any, Any]


def network() -> nn.Module:
    if KIND == "smp":
        from domainseg.models.unet import UNet

        # smp's U-Net with the ImageNet weights that can be had without its hub.
        return UNet(depth=5).build(3, 1)
    from monai.networks.nets import UNet as MonaiUNet

    return MonaiUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        channels=(32, 64, 128, 256),
        strides=(2, 2, 2),
        num_res_units=2,
    )


def foreground(labels: Array) -> Array:
    """Return where objects are, less the pixels at which two of them touch."""
    touching = find_boundaries(labels, mode="outer") & (labels > 0)
    return ((labels > 0) & ~touching).astype(np.float32)


def patches(data: Path) -> Callable[[], tuple[Tensor, Tensor]]:
    found = list(pictures(data, "train"))
    rng = np.random.default_rng(SEED)
    change = A.Compose(
        [
            A.RandomCrop(ROOM, ROOM, pad_if_needed=True),
            A.Affine(scale=(0.7, 1.4), rotate=(-45, 45), p=0.7),
            A.D4(p=1.0),
            A.RandomBrightnessContrast(p=0.5),
            A.CenterCrop(SIDE, SIDE),
        ],
        seed=SEED,
    )

    def draw() -> tuple[Tensor, Tensor]:
        images, masks = [], []
        for _ in range(BATCH):
            one = found[rng.integers(len(found))]
            pixels = np.clip(normalised(one.pixels), 0, 1)
            made = change(image=pixels, mask=foreground(one.labels))
            images.append(made["image"].transpose(2, 0, 1))
            masks.append(made["mask"][None])
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))

    return draw


def train(data: Path, out: Path, minutes: float) -> dict[str, Any]:
    torch.manual_seed(SEED)
    begun = time.monotonic()
    model = network().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    draw, steps = patches(data), 0
    seconds = 60 * (minutes - TUNING_MIN)
    while (done := (time.monotonic() - begun) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        images, wanted = draw()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(images.contiguous(memory_format=torch.channels_last)).float()
        shown = scores.sigmoid()
        dice = 1 - (2 * (shown * wanted).sum() + 1) / (shown.sum() + wanted.sum() + 1)
        loss = F.binary_cross_entropy_with_logits(scores, wanted) + dice
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    torch.save(model.state_dict(), out / "model.pt")
    (out / "rules.json").write_text(json.dumps(rules(model.eval(), data)))
    return {"steps": steps}


def rules(model: nn.Module, data: Path) -> tuple[float, int]:
    """Return the threshold and the smallest size that are best on the validation images."""
    # Imported here, as it is no part of what a prediction needs.
    from domainseg.instances.matching import tally
    from domainseg.instances.overlaps import overlap_maps

    held = [(one.labels, foreground_of(model, one.pixels)) for one in pictures(data, "val")]

    def mean_ap(rule: tuple[float, int]) -> float:
        pairs = (overlap_maps(truth, objects(shown, *rule)) for truth, shown in held)
        return float(np.mean([tally(one).metrics().mean_ap for one in pairs]))

    return max(itertools.product(LEVELS, SMALLEST_PX), key=mean_ap)


@torch.inference_mode()
def foreground_of(model: nn.Module, pixels: Array) -> Array:
    """Return the probability of foreground of each pixel."""
    image = torch.from_numpy(np.clip(normalised(pixels), 0, 1).transpose(2, 0, 1))[None]
    height, width = image.shape[2:]
    padded = F.pad(image, (0, -width % 32, 0, -height % 32), mode="reflect")
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(padded.contiguous(memory_format=torch.channels_last)).float()
    return np.asarray(scores[0, 0, :height, :width].sigmoid().numpy())


def objects(shown: Array, level: float, smallest_px: int) -> Array:
    """Return the connected groups above a level that are larger than so many pixels."""
    kept = remove_small_objects(shown >= level, max_size=smallest_px)
    return np.asarray(label(kept, connectivity=1), np.int32)


def open_model(out: Path) -> Callable[[Array], Array]:
    model = network().eval()
    model.load_state_dict(torch.load(out / "model.pt", weights_only=True))
    level, smallest_px = json.loads((out / "rules.json").read_text())
    return lambda pixels: objects(foreground_of(model, pixels), level, smallest_px)


if __name__ == "__main__":
    main(train, open_model)
