"""What every peer is given and leaves: the same images, and label images with what they cost.

Needs numpy and Pillow only, as it runs in the environment of each peer.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """One image: RGB ``(H, W, 3)`` uint8, grey is repeated; labels ``(H, W)`` int32."""

    name: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int32]]


def pictures(data: Path, part: str) -> Iterator[Picture]:
    """Yield the images of a part of the split, in the order of ``index.csv``."""
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["split"] == part]
    for name in names:
        pixels = np.asarray(Image.open(data / "images" / f"{name}.png").convert("RGB"))
        labels = np.asarray(Image.open(data / "labels" / f"{name}.png")).astype(np.int32)
        yield Picture(name, pixels, labels)


def normalised(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return an image with its 1st and 99.8th percentile, over all channels, at 0 and 1."""
    low, high = np.percentile(pixels, (1.0, 99.8))
    return ((pixels - low) / max(high - low, 1e-6)).astype(np.float32)


Train = Callable[[Path, Path, float], dict[str, Any]]
"""Data, folder for the model, minutes; returns what is told of the training."""
Predict = Callable[[Path], Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]
"""Folder of the model; returns what makes labels ``(H, W)`` of RGB pixels."""


def main(train: Train, open_model: Predict) -> None:
    """Run ``train DATA OUT MINUTES`` or ``predict DATA OUT`` of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "predict"])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    if options.what == "train":
        told = train(options.data, options.out, options.minutes)
        told["minutes"] = (time.monotonic() - begun) / 60
    else:
        told = _predict(options.data, options.out, open_model(options.out))
    (options.out / f"{options.what}.json").write_text(json.dumps(told))


def _predict(
    data: Path, out: Path, labelled: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> dict[str, Any]:
    """Write ``labels/NAME.npy`` of the test images; the first one is run twice, to warm up."""
    (out / "labels").mkdir(exist_ok=True)
    seconds = pixels = 0.0
    for number, picture in enumerate(pictures(data, "test")):
        if number == 0:
            labelled(picture.pixels)
        begun = time.monotonic()
        labels = labelled(picture.pixels)
        seconds += time.monotonic() - begun
        pixels += labels.size
        np.save(out / "labels" / f"{picture.name}.npy", labels.astype(np.int32))
    return {"seconds_per_mpx": seconds / pixels * 1e6}
