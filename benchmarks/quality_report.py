"""How long a verdict takes: a wafer of a million defects, from its table to every file.

    python benchmarks/quality_report.py [--defects 1000000]

Prints seconds and peak memory of reading the KLARF, of judging and of writing, the size of the
page, and the time that polars alone takes to write the same defects as CSV.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from domainseg.quality.klarf import InspectionTest, Klarf, Table, Wafer
from domainseg.quality.klarf_write import write_klarf

JUDGE = """
import sys, time
from domainseg.judge import judge
begun = time.perf_counter()
judge([sys.argv[1]], rules=sys.argv[2], out=sys.argv[3])
spent = time.perf_counter() - begun
# Of this process alone: what getrusage says may be its parent's.
told = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(spent, 1024 * int(told[0]))
"""
RULES = """schema: 1
units: um
classes:
  class 1: {weight: 0.9, kill_prob: 0.4}
  default: {weight: 0.5, ref_um: 4, kill_prob: 0.1}
cluster: {eps_um: 100, min_samples: 5}
unit: {fail_if: "critical > 5 or demerits > 3000"}
accept:
  - {id: density, metric: density_per_cm2, max: 2000, use: ci_upper}
  - {id: killers, metric: density_killers_per_cm2, max: 500}
  - {id: yield, metric: die_yield, min: 0.5}
"""
PITCH = (8000.0, 6000.0)
RADIUS = 147_000.0


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--defects", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        source = folder / "wafer.001"
        klarf, counted = made(given.defects)
        write_klarf(source, klarf)
        # In a process of its own: its memory is that of the report alone.
        told = subprocess.run(
            [sys.executable, "-c", JUDGE, source, rules, folder / "out"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        spent, peak = float(told[0]), float(told[1]) / 1e9
        found = pl.read_parquet(folder / "out" / "defects.parquet")
        report = json.loads((folder / "out" / "report.json").read_text())
        blocks = [block for section in report["sections"] for block in section["blocks"]]
        totals = next(block for block in blocks if block["type"] == "key_numbers")["values"]
        exact = len(found) == given.defects and int(found["counts"].sum()) == counted
        exact &= totals["defects"]["value"] == counted
        begun = time.perf_counter()
        found.write_csv(folder / "plain.csv")
        plain = time.perf_counter() - begun
        page = (folder / "out" / "report.html").stat().st_size
        print("defects  KLARF MB  seconds  peak GB  page MB  totals exact  polars CSV s")
        print(
            f"{given.defects:7d} {source.stat().st_size / 1e6:9.0f} {spent:8.1f} "
            f"{peak:8.2f} {page / 1e6:8.2f} {exact!s:>13} {plain:13.2f}"
        )


def made(count: int) -> tuple[Klarf, int]:
    """Return a wafer with so many defects, half of them in clusters, and how many count."""
    rng = np.random.default_rng(3)
    radius, angle = RADIUS * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    heaps = rng.integers(0, 200, count // 2)
    x[: count // 2] = 0.9 * x[heaps] + rng.normal(0, 500, count // 2)
    y[: count // 2] = 0.9 * y[heaps] + rng.normal(0, 500, count // 2)
    center = np.array([4000.0, 3000.0])
    place = np.stack([x, y], 1) + center
    die = np.floor(place / PITCH).astype(np.int64)
    size = rng.lognormal(0.5, 0.8, count).round(3)
    kind = rng.integers(1, 9, count)
    severity = np.where(kind == 1, 0.9, 0.5 * np.minimum(size / 4, 1))
    steps = np.arange(-20, 21)
    index = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    low = index * PITCH - center
    far = np.hypot(*np.minimum(np.abs(low), np.abs(low + PITCH)).T)
    index = np.unique(np.concatenate([index[far <= 150_000], die]), axis=0)
    table = Table(
        {
            "DEFECTID": np.arange(1, count + 1),
            "XREL": (place[:, 0] - die[:, 0] * PITCH[0]).round(3),
            "YREL": (place[:, 1] - die[:, 1] * PITCH[1]).round(3),
            "XINDEX": die[:, 0],
            "YINDEX": die[:, 1],
            "XSIZE": size,
            "YSIZE": size,
            "DEFECTAREA": size**2,
            "DSIZE": size * 1.4,
            "CLASSNUMBER": kind,
            "TEST": np.ones(count, np.int64),
        }
    )
    wafer = Wafer(
        name="W1",
        center_um=(4000.0, 3000.0),
        tests=(InspectionTest(1, float(len(index)) * PITCH[0] * PITCH[1], index),),
        defects=table,
    )
    klarf = Klarf(
        "1.2",
        lot="L1",
        pitch_um=PITCH,
        diameter_mm=300.0,
        mark="NOTCH",
        mark_degrees=0.0,
        wafers=(wafer,),
        timestamps=dict.fromkeys(("FileTimestamp", "ResultTimestamp"), ("01-01-2026", "00:00:00")),
    )
    return klarf, int((100 * severity >= 10).sum())


if __name__ == "__main__":
    main()
