"""Time of every score of one image, and how many times as long ``stardist.matching`` takes.

``python benchmarks/matching.py`` makes two label maps of 2,025 objects, and two of
70,225, and prints the seconds for the overlap table and for all the scores. Where
stardist is installed it counts the 2,025 in the same run, at the nine thresholds
of the mean AP; its dense table has no room for the 70,225.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.matching import THRESHOLDS, Tally, tally
from domainseg.instances.overlaps import overlap_maps

Labels = NDArray[np.int32]


def discs(side: int, *, pitch: int, rng: np.random.Generator) -> Labels:
    """Return ``side * side`` discs on a grid, each moved and sized at random, touching."""
    edge = side * pitch
    y, x = np.mgrid[:edge, :edge]
    row, column = y // pitch, x // pitch
    middle = rng.uniform(0.4, 0.6, (2, side, side)) * pitch
    radius = rng.uniform(0.3, 0.55, (side, side)) * pitch
    away = (y % pitch - middle[0][row, column]) ** 2 + (x % pitch - middle[1][row, column]) ** 2
    inside = away < radius[row, column] ** 2
    return np.where(inside, row * side + column + 1, 0).astype(np.int32)


def seconds(work: Callable[[], object], *, repeats: int) -> float:
    """Return the shortest wall time of ``work`` after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(side: int, *, pitch: int, beside_stardist: bool) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = discs(side, pitch=pitch, rng=rng), discs(side, pitch=pitch, rng=rng)
    predicted = np.roll(predicted, (1, pitch // 4), (0, 1))

    def all_scores() -> Tally:
        return tally(overlap_maps(truth, predicted))

    table = seconds(lambda: overlap_maps(truth, predicted), repeats=5)
    ours = seconds(all_scores, repeats=5)
    print(
        f"{side * side} against {side * side} objects, {truth.size / 1e6:.1f} Mpx: "
        f"overlap table {table:.4f} s, all scores {ours:.4f} s"
    )
    if beside_stardist:
        from stardist.matching import matching

        theirs = seconds(lambda: matching(truth, predicted, THRESHOLDS), repeats=3)
        counts = [(one.tp, one.fn, one.fp) for one in matching(truth, predicted, THRESHOLDS)]
        same = counts == [(one.matched, one.missed, one.false) for one in all_scores().counts]
        print(
            f"stardist.matching {theirs:.4f} s, {theirs / ours:.0f} times as long; "
            f"counts {'equal' if same else 'DIFFER'}"
        )


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}")
    try:
        import stardist.matching
    except ImportError as missing:
        print(f"stardist cannot be imported ({missing}): no ratio")
        beside_stardist = False
    else:
        print(f"stardist {stardist.__version__}")
        beside_stardist = True
    compare(45, pitch=24, beside_stardist=beside_stardist)
    compare(265, pitch=16, beside_stardist=False)


if __name__ == "__main__":
    main()
