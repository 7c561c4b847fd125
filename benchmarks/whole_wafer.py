"""A whole made-up wafer through the command line: made, predicted, its defects on its dies.

    python benchmarks/whole_wafer.py MODEL OUT [--diameter-mm 100] [--per-cm2 20]

The wafer has the pixels of the fields that ``wafer-fpn`` and ``wafer-unet`` learn from with all
lengths times ten: 5 um a pixel, lines of 20 um, dies of 20 x 24 mm, 20,400 x 20,400 px at
100 mm. `domainseg data make wafers`, `predict` and `defects` run as a user runs them; what is
in ``OUT`` stays. Prints the seconds of each and the peak memory of the prediction, then,
against the true labels, the share of the defects that a call overlaps, the calls that overlap
none, and of each defect and the call that overlaps it most, how far apart their centroids lie
on the wafer, whether they lie in the same die and are of the same class.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
import zarr

from domainseg.images.label_store import open_label_plane

LENGTHS_UM = {
    "die_um": (20_000, 24_000),
    "street_um": 800,
    "line_um": 20,
    "particle_um": (15, 80),
    "scratch_um": (200, 2500),
    "scratch_width_um": (5, 30),
    "bridge_um": (15, 60),
    "pit_um": (15, 60),
    "residue_um": (200, 900),
    "chip_um": (60, 400),
}
SPACING_UM = 5
LEVEL = 3
IMAGE = "test-00000"
BLOCK = 4096


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--diameter-mm", type=float, default=100.0)
    parser.add_argument("--per-cm2", type=float, default=20.0)
    given = parser.parse_args()
    made, found = given.out / "made", given.out / "found"
    run = found / IMAGE
    lengths = [
        f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in LENGTHS_UM.items()
    ]
    seconds = {
        "make": clocked(
            *("data", "make", "wafers", made, "view=wafer", "train=0", "val=0", "test=1"),
            *("good=0", "seed=6007", f"levels=[{LEVEL}]", "placement=[cluster]"),
            *(f"spacing_um={SPACING_UM}", f"wafer_diameter_mm={given.diameter_mm:g}"),
            *(f"density_per_cm2={given.per_cm2:g}", *lengths),
        ),
        "predict": clocked("predict", given.model, made / "images", "-o", found),
        "defects": clocked("defects", run, "--die-grid", made / "die_grid.json"),
    }
    timings = json.loads((run / "timings.json").read_text())
    truth = pl.read_csv(made / "defects.csv")
    calls = pl.read_csv(run / "defects.csv")
    height, width = open_label_plane(run / "labels.ome.zarr").shape
    print(f"{height} x {width} px, {len(truth)} defects, {len(calls)} calls")
    print("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    print(f"peak memory of predict {timings['peak_memory_mb']:.0f} MB")
    compare(truth, calls, overlaps(made / "labels" / f"{IMAGE}.tif", run))


def clocked(*words: object) -> float:
    """Run a command of domainseg and return its seconds."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "domainseg", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def overlaps(truth: Path, run: Path) -> Counter[tuple[int, int]]:
    """Return the pixels of every pair of a true label and a call's, 0 for none."""
    true = zarr.open_array(tifffile.imread(truth, aszarr=True), mode="r")
    called = open_label_plane(run / "labels.ome.zarr")
    pixels: Counter[tuple[int, int]] = Counter()
    for y in range(0, true.shape[0], BLOCK):
        for x in range(0, true.shape[1], BLOCK):
            block = (slice(y, y + BLOCK), slice(x, x + BLOCK))
            a, b = np.asarray(true[block]), np.asarray(called[block])
            seen = (a > 0) | (b > 0)
            pairs = np.stack([a[seen].astype(np.int64), b[seen].astype(np.int64)])
            kinds, counts = np.unique(pairs, axis=1, return_counts=True)
            for (one, other), count in zip(kinds.T.tolist(), counts.tolist(), strict=True):
                pixels[one, other] += count
    return pixels


def compare(truth: pl.DataFrame, calls: pl.DataFrame, pixels: Counter[tuple[int, int]]) -> None:
    """Print what was found, what is false and how well places agree."""
    best: dict[int, tuple[int, int]] = {}
    touched = set()
    for (label, call), count in pixels.items():
        if label and call:
            touched.add(call)
            best[label] = max(best.get(label, (0, 0)), (count, call))
    false = calls.filter(~pl.col("label").is_in(list(touched)))
    print(f"{len(best) / len(truth):.3f} of the defects have a call, {len(false)} calls have none")
    repeating = set(calls.filter(pl.col("repeater"))["label"].to_list())
    single = sum(1 for _, call in best.values() if call not in repeating)
    print(
        f"{len(repeating)} calls lie at the same place of many dies; without them "
        f"{single / len(truth):.3f} of the defects have a call and "
        f"{len(false.filter(~pl.col('repeater')))} calls have no defect"
    )
    rows = pl.DataFrame(
        [(label, call) for label, (_, call) in best.items()],
        schema={"label": pl.Int64, "call": pl.Int64},
        orient="row",
    )
    both = rows.join(truth, on="label").join(
        calls.rename({"label": "call", "class": "called"}).drop("image"),
        on="call",
        suffix="_of_call",
    )

    def off(name: str) -> pl.Series:
        return both[name] - both[f"{name}_of_call"]

    away = np.hypot(off("wafer_x_um").to_numpy(), off("wafer_y_um").to_numpy())
    same_die = ((off("die_x") == 0) & (off("die_y") == 0)).to_numpy()
    in_die = np.hypot(off("die_xrel_um").to_numpy(), off("die_yrel_um").to_numpy())
    same_class = (both["class"] == both["called"]).to_numpy()
    print(
        f"places on the wafer {np.median(away):.1f} um apart in the median, "
        f"{np.percentile(away, 95):.1f} um at most in 95 % ({SPACING_UM} um a pixel)"
    )
    print(
        f"same die {same_die.mean():.4f}; place in it {np.median(in_die[same_die]):.1f} um apart "
        f"in the median; same class {same_class.mean():.3f}"
    )
    found = pl.Series(truth["label"].is_in(list(best)))
    for name, group in truth.with_columns(found=found).group_by("class", maintain_order=True):
        print(f"  {name[0]:12s} {group['found'].sum():5d} of {len(group)}")


if __name__ == "__main__":
    main()
