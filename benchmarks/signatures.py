"""Patterns of real wafers named by geometry: the confusion on the test part of WM-811K.

    python benchmarks/signatures.py WM811K.npz

The npz holds ``maps_flat``, ``offsets``, ``shapes``, ``label`` and ``split``; values are 0 no die,
1 passes, 2 fails. Prints a row per true label, the shares of what it was called.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from domainseg.quality.signature import SIGNATURES, signature


def main() -> None:
    """Print the confusion, and the mean of the recalls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path)
    given = parser.parse_args()
    data = np.load(given.maps)
    chosen = np.flatnonzero(data["split"].astype(str) == "test")
    flat, offsets, shapes = data["maps_flat"], data["offsets"], data["shapes"]
    counts = np.zeros((len(SIGNATURES), len(SIGNATURES)), np.int64)
    for i in chosen.tolist():
        grid = flat[offsets[i] : offsets[i + 1]].reshape(shapes[i])
        y, x = np.nonzero(grid > 0)
        found = signature(np.stack([x, y], 1), grid[y, x] == 2).label
        label = str(data["label"][i]).replace("None", "none")
        counts[SIGNATURES.index(label), SIGNATURES.index(found)] += 1
    print(f"{'':10s} wafers " + " ".join(f"{name:>9s}" for name in SIGNATURES))
    for name, row in zip(SIGNATURES, counts, strict=True):
        shares = " ".join(f"{share:9.3f}" for share in row / max(1, row.sum()))
        print(f"{name:10s} {row.sum():6d} {shares}")
    recalls = counts.diagonal() / np.maximum(counts.sum(1), 1)
    print(f"mean recall {recalls.mean():.3f}, all {counts.trace() / counts.sum():.3f}")


if __name__ == "__main__":
    main()
