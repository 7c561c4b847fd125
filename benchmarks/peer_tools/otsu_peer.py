"""Otsu's threshold, distance transform, watershed; nothing is trained.

python otsu_peer.py train|predict DATA OUT
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from otsu import otsu_watershed

Array = np.ndarray[Any, Any]


def train(_data: Path, _out: Path, _minutes: float) -> dict[str, Any]:
    return {"steps": 0}


def open_model(_out: Path) -> Callable[[Array], Array]:
    def labelled(pixels: Array) -> Array:
        return otsu_watershed(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    return labelled


if __name__ == "__main__":
    main(train, open_model)
