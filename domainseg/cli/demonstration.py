"""``domainseg demo``: the main job, start to end, on made-up micrographs."""

from __future__ import annotations

import shutil
from pathlib import Path

from domainseg.cli.screen import Meter, say, show_table


def demonstrate(out: Path, *, minutes: float) -> None:
    """Make data, train on it, segment unseen scenes, score them and write the page."""
    from domainseg.evaluate import evaluate_model
    from domainseg.inspection import inspect
    from domainseg.train import train
    from domainseg.training.loop import Progress

    with Meter("step") as meter:

        def tell(stage: str, progress: Progress | None) -> None:
            if progress is None:
                meter.stage(stage)
            else:
                meter.step(progress.step, progress.steps, f"loss {progress.loss:.3f}")

        if out.exists():
            # A second demonstration begins anew; only folders it made itself are removed.
            for part in ("model", "scenes"):
                shutil.rmtree(out / part, ignore_errors=True)
        overrides = (f"train.max_minutes={minutes}",)
        trained = train(Path("scenes-unet"), out / "model", overrides=overrides, tell=tell)
    with Meter("image") as meter:
        found = evaluate_model(trained.model, out=out / "scenes", tell=meter.step)
    show_table(*found.table())
    page = inspect([out / "scenes"], out=out, title="Made-up cells")
    say(f"open {page}")
