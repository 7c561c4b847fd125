"""How long the residues of self-similarity take: by the processor's kernel, and in whole planes.

    python benchmarks/residue.py [--side 1024] [--repeats 5]

Both in turn on the same image, distances of 8 to 24 px as in ``wafer-fpn``; medians, seconds a
Mpx, and their ratio. What they differ by is printed too.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from domainseg.models import self_similarity as room

DISTANCES = (8, 24)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    image = torch.rand((1, 1, given.side, given.side), generator=torch.Generator().manual_seed(0))
    margin = DISTANCES[1] + room.CELL * room.REACH
    padded = F.pad(image, (margin,) * 4, mode="reflect")
    planes = torch.empty((room.RESIDUES, 1, given.side, given.side))
    seconds: dict[str, list[float]] = {"kernel": [], "planes": []}
    kernel = room.residues(image, *DISTANCES)  # compiled here, if it was not
    for _ in range(given.repeats):
        begun = time.perf_counter()
        kernel = room.residues(image, *DISTANCES)
        seconds["kernel"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        room._in_planes(padded[0], planes, *DISTANCES)
        seconds["planes"].append(time.perf_counter() - begun)
    mpx = given.side**2 / 1e6
    medians = {name: statistics.median(values) / mpx for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:8s} {value:.3f} s a Mpx")
    print(f"ratio    {medians['planes'] / medians['kernel']:.1f}")
    print(f"largest difference {(kernel[0] - planes[:, 0]).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
