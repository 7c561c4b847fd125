"""StarDist trained from scratch, with the options of its own examples.

    python stardist_peer.py train DATA OUT MINUTES
    python stardist_peer.py predict DATA OUT

Runs in an environment with stardist 0.9.2 and tensorflow-cpu 2.21.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from csbdeep.utils import normalize
from csbdeep.utils.tf import keras_import
from shared import main, pictures
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

SEED = 1
NAME = "stardist"
Array = np.ndarray[Any, Any]


class _StopAfter(keras_import("callbacks", "Callback")):  # type: ignore[misc]
    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def on_epoch_end(self, _epoch: int, _logs: object = None) -> None:
        if time.monotonic() > self.until:
            self.model.stop_training = True


def augmented(image: Array, labels: Array) -> tuple[Array, Array]:
    """Turn, mirror, and change brightness, as StarDist's example of a training does."""
    rng = np.random  # the library seeds it
    turns = rng.randint(4)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if rng.rand() < 0.5:
        image, labels = image[::-1], labels[::-1]
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    return image + 0.02 * rng.uniform() * rng.normal(0, 1, image.shape), labels


def read(data: Path, part: str) -> tuple[list[Array], list[Array]]:
    found = list(pictures(data, part))
    return (
        [normalize(one.pixels, 1, 99.8, axis=(0, 1, 2)) for one in found],
        [fill_label_holes(one.labels) for one in found],
    )


def train(data: Path, out: Path, minutes: float) -> dict[str, Any]:
    begun = time.monotonic()
    np.random.seed(SEED)  # noqa: NPY002 - the library draws from it
    keras_import("utils", "set_random_seed")(SEED)
    images, labels = read(data, "train")
    held, truth = read(data, "val")
    options = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=3,
        train_patch_size=(256, 256),
        train_batch_size=4,
        train_epochs=10_000,
        train_steps_per_epoch=100,
        # Of its example, 40 epochs, but as many times fewer as there are fewer epochs.
        train_reduce_lr={"factor": 0.5, "patience": 5, "min_delta": 0},
        train_tensorboard=False,
    )
    model = StarDist2D(options, name=NAME, basedir=str(out))
    model.prepare_for_training()
    # The last minutes are for its thresholds.
    model.callbacks.append(_StopAfter(begun + 60 * (minutes - 2)))
    history = model.train(
        images, labels, validation_data=(held, truth), augmenter=augmented, seed=SEED
    )
    model.optimize_thresholds(held, truth)
    return {"steps": 100 * len(history.history["loss"])}


def open_model(out: Path) -> Callable[[Array], Array]:
    model = StarDist2D(None, name=NAME, basedir=str(out))

    def labelled(pixels: Array) -> Array:
        labels, _ = model.predict_instances(normalize(pixels, 1, 99.8, axis=(0, 1, 2)))
        return np.asarray(labels)

    return labelled


if __name__ == "__main__":
    main(train, open_model)
