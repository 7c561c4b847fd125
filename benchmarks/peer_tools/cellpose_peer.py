"""Cellpose trained from scratch, with its own defaults and its own model of sizes.

    python cellpose_peer.py train DATA OUT MINUTES
    python cellpose_peer.py predict DATA OUT

Runs in an environment with cellpose 3.1.1. Its learning rate falls in the last epochs only where
there are more than 100: so an epoch is as many images as let 110 epochs fit into the minutes.
Flows are computed once, within the minutes; its model of sizes, which it takes to be given images
of any scale, is trained within them too, on fewer and smaller crops than by default, as that
alone would take half an hour on two cores. It sees grey, as its own model of nuclei does.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellpose import dynamics, models
from cellpose import train as training
from shared import main, pictures

SEED = 1
EPOCHS = 110
TIMED = 64
"""Images that are timed."""
SIZING_S = 200.0
"""Kept for the model of sizes: ten times SIZED crops."""
SIZED, SIZED_PX = 40, 256
GREY = [0, 0]
DIAMETER_PX = 17.0
"""Of its own model of nuclei."""
Array = np.ndarray[Any, Any]


def train(data: Path, out: Path, minutes: float) -> dict[str, Any]:
    begun = time.monotonic()
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - the library draws from it
    found = list(pictures(data, "train"))
    images = [one.pixels for one in found]
    flows = dynamics.labels_to_flows(
        [one.labels.astype(np.uint16) for one in found], device=torch.device("cpu")
    )
    model = models.CellposeModel(gpu=False, pretrained_model=None, diam_mean=DIAMETER_PX)

    def fit(net: Any, *, epochs: int, images_per_epoch: int) -> str:
        path, *_ = training.train_seg(
            net,
            train_data=images,
            train_labels=flows,
            channels=GREY,
            n_epochs=epochs,
            nimg_per_epoch=images_per_epoch,
            min_train_masks=1,
            save_path=str(out),
            model_name="model",
        )
        return str(path)

    seconds = []
    for count in (8, TIMED):
        # What a call does before its first step is in both; the difference is the steps.
        started = time.monotonic()
        fit(copy.deepcopy(model.net), epochs=1, images_per_epoch=count)
        seconds.append(time.monotonic() - started)
    each = max(1e-3, seconds[1] - seconds[0]) / (TIMED - 8)
    left = 60 * minutes - (time.monotonic() - begun) - seconds[0] - SIZING_S
    count = max(8, int(left / EPOCHS / each))
    path = fit(model.net, epochs=EPOCHS, images_per_epoch=count)
    training.train_size(
        model.net,
        path,
        train_data=images,
        train_labels=[one.labels for one in found],
        channels=GREY,
        nimg_per_epoch=SIZED,
        bsize=SIZED_PX,
        min_train_masks=1,
    )
    (out / "path.txt").write_text(path)
    return {"steps": EPOCHS * -(-count // 8)}


def open_model(out: Path) -> Callable[[Array], Array]:
    path = (out / "path.txt").read_text()
    model = models.CellposeModel(gpu=False, pretrained_model=path)
    sizes = models.SizeModel(model, pretrained_size=f"{path}_size.npy")

    def labelled(pixels: Array) -> Array:
        diameter, _ = sizes.eval(pixels, channels=GREY)
        masks, *_ = model.eval(pixels, channels=GREY, diameter=diameter)
        return np.asarray(masks)

    return labelled


if __name__ == "__main__":
    main(train, open_model)
