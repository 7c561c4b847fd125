"""Patterns of WM-811K: labels that follow from masks, beside a plain classifier.

    python benchmarks/wafer_patterns.py MODEL DATA --minutes 10

MODEL is what ``wafermap-wm811k-fpn`` trained, DATA the folder of the maps. The classifier is a
small convolutional network with one softmax over the nine labels, trained here for so many
minutes on the same training maps at the same size, turned and mirrored alike, classes drawn
by the square root of their number. Both are scored once, on the split's test maps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.evaluate import evaluate_model
from domainseg.loaders.wafer_map import NO_PATTERN
from domainseg.model_plane import model_plane
from domainseg.models.model_file import read_card
from domainseg.recipe import Recipe, recipe_from_json
from domainseg.records import Entry
from domainseg.runs import RunOptions
from domainseg.sources import Source, open_source

BATCH = 64
PEAK = 2e-3


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    real = ("data.also=[]", "evaluate.labels=true")
    found = evaluate_model(given.model, given.data, options=RunOptions(overrides=real))
    labels = found.image_labels
    assert labels is not None
    assert labels.single is not None
    print("masks of dies")
    show(labels.single.confusion, labels.single.names)
    recipe = recipe_from_json(read_card(given.model).recipe, where=str(given.model))
    section = recipe.data.model_copy(update={"root": str(given.data), "also": ()})
    recipe = recipe.model_copy(update={"data": section})
    print(f"plain classifier, {given.minutes:g} minutes")
    show(*classified(recipe, open_source(recipe), minutes=given.minutes))


def show(confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Print the confusion matrix, rows truth, with precision, recall and F1, and macro F1."""
    right = np.diag(confusion)
    f1 = 2 * right / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    print("truth".ljust(11) + "".join(name[:9].rjust(10) for name in names) + "        F1")
    for name, row, score in zip(names, confusion, f1, strict=True):
        print(name.ljust(11) + "".join(str(n).rjust(10) for n in row) + f"{score:10.3f}")
    print(f"macro F1 {f1.mean():.4f}  accuracy {right.sum() / confusion.sum():.4f}\n")


def classified(
    recipe: Recipe, source: Source, *, minutes: float
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return confusion and names of a classifier trained on the source's training maps."""
    names = (*source.classes, NO_PATTERN)
    train, labels = _planes(recipe, source, source.splits.train, names)
    test, truth = _planes(recipe, source, source.splits.test, names)
    network = _fit(train, labels, len(names), minutes=minutes)
    with torch.inference_mode():
        parts = [network(_float(test[i : i + 256])).argmax(1) for i in range(0, len(test), 256)]
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (truth, torch.cat(parts).numpy()), 1)
    return confusion, names


def _planes(
    recipe: Recipe, source: Source, entries: Sequence[Entry], names: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the maps as the masks' network sees them, in 255ths, and their labels."""
    side = recipe.data.size_px
    assert side is not None
    planes = np.empty((len(entries), recipe.data.channel_count, side, side), np.uint8)
    labels = np.empty(len(entries), np.int64)
    for row, entry in enumerate(entries):
        sample = source.load(entry)
        plane = model_plane(recipe, sample, diameter_px=None)
        planes[row] = np.rint(255 * plane[:, 0:side, 0:side])
        labels[row] = names.index(sample.tags[0])
    return planes, labels


def _fit(
    planes: NDArray[np.uint8], labels: NDArray[np.int64], classes: int, *, minutes: float
) -> nn.Module:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = _classifier(planes.shape[1], classes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=0.01)
    weights = 1 / np.sqrt(np.bincount(labels)[labels])
    weights /= weights.sum()
    begun, share = time.monotonic(), 0.0
    while share < 1:
        for group in optimiser.param_groups:
            group["lr"] = PEAK * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share)))
        rows = rng.choice(len(labels), BATCH, p=weights)
        turn = int(rng.integers(8))
        images = torch.rot90(_float(planes[rows]), turn % 4, (2, 3))
        images = images.flip(3) if turn >= 4 else images
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(images.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(scores.float(), torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        share = (time.monotonic() - begun) / (60 * minutes)
    return network.eval()


def _classifier(channels: int, classes: int) -> nn.Module:
    """Return four blocks of two convolutions, each halving, a mean and a linear layer."""
    layers: list[nn.Module] = []
    for width in (32, 64, 128, 256):
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _float(planes: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(planes).float() / 255


if __name__ == "__main__":
    main()
