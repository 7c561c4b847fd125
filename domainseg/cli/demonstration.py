"""``domainseg demo``: the main job, start to end, on made-up micrographs and a made-up wafer."""

from __future__ import annotations

import shutil
from pathlib import Path

from domainseg.cli.screen import Meter, RunMeter, say, show_table

WAFER = {
    "view": "wafer",
    "train": 0,
    "val": 0,
    "test": 1,
    "good": 0,
    "seed": 20,
    "levels": [4],
    "placement": ["cluster"],
    "spacing_um": 5.0,
    "wafer_diameter_mm": 25.0,
    "edge_exclusion_mm": 1.0,
    "density_per_cm2": 25.0,
    "die_um": [2400, 2000],
    "street_um": 120,
    "line_um": 20,
    "particle_um": [20, 80],
    "scratch_um": [200, 1500],
    "scratch_width_um": [10, 30],
    "bridge_um": [20, 60],
    "pit_um": [20, 60],
    "residue_um": [200, 600],
    "chip_um": [60, 400],
}
"""A wafer of the pixels that the shipped model learned from, with all lengths times ten."""


def demonstrate(out: Path, *, minutes: float) -> None:
    """Train on cells and judge unseen ones; find the defects of a wafer and judge it."""
    if out.exists():
        # A second demonstration begins anew; only folders it made itself are removed.
        for part in ("model", "scenes", "cells", "made-wafer", "wafer"):
            shutil.rmtree(out / part, ignore_errors=True)
    _cells(out, minutes)
    _wafer(out)
    say("open the two verdicts in a browser:")
    say(f"  cells  {out / 'cells' / 'report.html'}")
    say(f"  wafer  {out / 'wafer' / 'verdict' / 'report.html'}")


def _cells(out: Path, minutes: float) -> None:
    from domainseg.evaluate import evaluate_model
    from domainseg.inspection import inspect
    from domainseg.judge import judge
    from domainseg.train import train
    from domainseg.training.loop import Progress

    with Meter("step") as meter:

        def tell(stage: str, progress: Progress | None) -> None:
            if progress is None:
                meter.stage(stage)
            else:
                meter.step(progress.step, progress.steps, f"loss {progress.loss:.3f}")

        overrides = (f"train.max_minutes={minutes}",)
        trained = train(Path("scenes-unet"), out / "model", overrides=overrides, tell=tell)
    with Meter("image") as meter:
        found = evaluate_model(trained.model, out=out / "scenes", tell=meter.step)
    show_table(*found.table())
    say(f"how well they agree: {inspect([out / 'scenes'], out=out, title='Made-up cells')}")
    judge([out / "scenes"], rules="cells", out=out / "cells", title="Made-up cells")


def _wafer(out: Path) -> None:
    from domainseg.defects import add_defects
    from domainseg.judge import judge
    from domainseg.loaders.wafer_files import write_wafers
    from domainseg.loaders.wafers import Wafers
    from domainseg.predict import predict
    from domainseg.recipe import loader_options
    from domainseg.runs import RunOptions

    made, grid = out / "made-wafer", out / "made-wafer" / "die_grid.json"
    given = [f"{name}={value}".replace(" ", "") for name, value in WAFER.items()]
    write_wafers(made, loader_options(Wafers, given))
    with RunMeter() as meter:
        predict(
            "wafer",
            [str(made / "images")],
            out / "wafer",
            options=RunOptions(drop_maps=True),
            tell=meter.image,
            tell_stage=meter.part,
        )
    (run,) = (out / "wafer").glob("*/run.json")
    add_defects(run.parent, die_grid=grid)
    judge(
        [out / "wafer"],
        rules="wafer",
        out=out / "wafer" / "verdict",
        die_grid=grid,
        title="Made-up wafer",
    )
