"""How long KLARF takes: 200,000 defects parsed and written, in versions 1.2 and 1.8.

    python benchmarks/klarf.py [--defects 200000] [--repeats 5]

Prints the median seconds of reading the bytes and of making them again, and what polars takes
to read the same numbers as a plain table of blanks, which is the least that could be.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.klarf import InspectionTest, Klarf, Table, Version, Wafer
from domainseg.quality.klarf_file import read_klarf_text
from domainseg.quality.klarf_write import klarf_text


def main() -> None:
    """Print one row per version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--defects", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    klarf = made(given.defects)
    print("version    MB  parse s  write s  plain table s")
    versions: tuple[Version, ...] = ("1.2", "1.8")
    for version in versions:
        text = klarf_text(klarf, version=version)
        read_klarf_text(text)
        parse = seconds(partial(read_klarf_text, text), given.repeats)
        write = seconds(partial(klarf_text, klarf, version=version), given.repeats)
        table = io.BytesIO()
        pl.DataFrame(dict(klarf.wafers[0].defects.columns)).write_csv(
            table, separator=" ", include_header=False
        )
        blanks = table.getvalue()
        read = partial(pl.read_csv, blanks, separator=" ", has_header=False)
        plain = seconds(read, given.repeats)
        print(f"{version:7s} {len(text) / 1e6:5.1f} {parse:8.3f} {write:8.3f} {plain:14.3f}")


def made(count: int) -> Klarf:
    """Return a wafer of so many defects with the usual columns."""
    rng = np.random.default_rng(5)

    def length(high: float) -> NDArray[np.float64]:
        return np.round(rng.uniform(0, high, count), 3)

    def whole(high: int) -> NDArray[np.int64]:
        return rng.integers(0, high, count)

    columns: dict[str, Any] = {
        "DEFECTID": np.arange(1, count + 1),
        "XREL": length(10_000),
        "YREL": length(12_000),
        "XINDEX": whole(20) - 10,
        "YINDEX": whole(20) - 10,
        "XSIZE": length(50),
        "YSIZE": length(50),
        "DEFECTAREA": length(900),
        "DSIZE": length(70),
        "CLASSNUMBER": whole(12),
        "TEST": np.ones(count, np.int64),
        "CLUSTERNUMBER": whole(40),
        "ROUGHBINNUMBER": whole(4),
        "FINEBINNUMBER": whole(9),
        "REVIEWSAMPLE": whole(2),
    }
    wafer = Wafer(
        "W01",
        1,
        center_um=(5000.0, 6000.0),
        tests=(InspectionTest(1, 4.8e8),),
        defects=Table(columns),
    )
    return Klarf("1.2", "L", (10_000.0, 12_000.0), 300.0, "NOTCH", 0.0, {0: "a"}, wafers=(wafer,))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return median(times)


if __name__ == "__main__":
    main()
