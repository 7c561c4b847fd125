"""A model of ours, through the same steps as the peers.

    python ours_peer.py predict DATA OUT

OUT/model.txt names the model file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared import main

from domainseg.images.channels import RGB
from domainseg.records import Sample
from domainseg.segmenter import open_segmenter, segment

Array = np.ndarray[Any, Any]


def train(_data: Path, _out: Path, _minutes: float) -> dict[str, Any]:
    raise SystemExit("ours is trained by domainseg train")


def open_model(out: Path) -> Callable[[Array], Array]:
    segmenter, _ = open_segmenter(Path((out / "model.txt").read_text()))

    def labelled(pixels: Array) -> Array:
        plane = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return np.asarray(segment(segmenter, Sample("image", plane, RGB)).labels[0])

    return labelled


if __name__ == "__main__":
    main(train, open_model)
