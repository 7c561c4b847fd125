"""``domainseg demo``: the main job with the models that ship: slide, tissue, wafer, wafer maps."""

from __future__ import annotations

import shutil
from pathlib import Path

from domainseg.cli.screen import Meter, RunMeter, say, show_table
from domainseg.errors import OutputError, sentence

SLIDE = {
    "train": 0,
    "val": 0,
    "test": 3,
    "height": 1500,
    "width": 1500,
    "seed": 20,
    "stains": ["fluorescence", "stained", "brightfield"],
}
"""One scene of each kind."""
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
"""A wafer like those that the shipped model learned from, at larger pixels, small and whole."""


MAPS = {
    "name": "wafer_maps",
    "style": "wm811k",
    "train": 1,
    "val": 0,
    "test": 16,
    "none": 0,
    "seed": 24,
}
"""Sixteen maps, every pattern among them; the one to train on is not looked at."""
PARTS = ("made-slide", "slide", "tissue", "made-wafer", "wafer", "maps")
MARK = ".domainseg-demo"
"""A file that says that the folders beside it are a demonstration's."""


def demonstrate(out: Path) -> None:
    """Find nuclei, made-up and of real tissue, defects of a made-up wafer, patterns of wafer maps.

    Raises:
        OutputError: ``out`` holds folders of the same names that no demonstration made.
    """
    _begin(out)
    _slide(out)
    tissue = _tissue(out)
    _wafer(out)
    maps = _maps(out)
    say("open the pages in a browser:")
    say(f"  slide, judged    {out / 'slide' / 'verdict' / 'report.html'}")
    say(f"  tissue           {tissue}")
    say(f"  wafer, judged    {out / 'wafer' / 'verdict' / 'report.html'}")
    say(f"  wafer maps       {maps}")


def _begin(out: Path) -> None:
    """Make the folder; a second demonstration begins anew, without what the first left."""
    from domainseg.atomic import make_folder, writing_below

    there = [part for part in PARTS if (out / part).exists()]
    if there and not (out / MARK).exists():
        raise OutputError(
            sentence(
                out,
                found=f"a folder {there[0]} without the mark of a demonstration",
                wanted="a new folder, or one that a demonstration made",
                fix="name another with --out",
            )
        )
    make_folder(out)
    with writing_below(out):
        for part in there:
            shutil.rmtree(out / part)
        (out / MARK).touch()


def _slide(out: Path) -> None:
    from domainseg.evaluate import evaluate_model
    from domainseg.inspection import inspect
    from domainseg.judge import judge
    from domainseg.loaders.scenes import Scenes, write_scenes
    from domainseg.recipe import loader_options
    from domainseg.runs import RunOptions

    made, found = out / "made-slide", out / "slide"
    given = [f"{name}={value}".replace(" ", "") for name, value in SLIDE.items()]
    write_scenes(made, loader_options(Scenes, given))
    with Meter("image") as meter:
        scores = evaluate_model(
            "nuclei",
            made,
            out=found,
            part="all",
            options=RunOptions(overrides=("data.split={by: hash}",)),
            tell=meter.step,
        )
    show_table(*scores.table())
    page = inspect([found], out=found / "scores", title="Made-up slide")
    say(f"how well they agree: {page}")
    judge([found], rules="cells", out=found / "verdict", title="Made-up slide")


def _tissue(out: Path) -> Path:
    """Return the page about a picture that scikit-image carries: a colon, stained twice.

    Brown marks the cells' membranes, blue their nuclei (haematoxylin), which is taken alone.
    """
    import numpy as np
    from skimage import color, data, io

    from domainseg.inspection import inspect
    from domainseg.predict import predict
    from domainseg.runs import RunOptions

    found = out / "tissue"
    found.mkdir(parents=True, exist_ok=True)
    picture = found / "haematoxylin.png"
    # The library's pictures are not typed.
    pixels = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    stains = color.rgb2hed(pixels)
    stains[..., 1:] = 0
    blue = np.rint(255 * np.clip(color.hed2rgb(stains), 0, 1)).astype(np.uint8)
    io.imsave(picture, blue, check_contrast=False)
    with RunMeter() as meter:
        predict(
            "nuclei",
            [picture],
            found / "runs",
            options=RunOptions(drop_maps=True),
            tell=meter.image,
            tell_stage=meter.part,
        )
    return inspect([found / "runs"], out=found / "page", title="Stained tissue")


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


def _maps(out: Path) -> Path:
    """Return the page about made-up wafer maps: which pattern, and which dies carry it."""
    from domainseg.evaluate import evaluate_model
    from domainseg.inspection import inspect
    from domainseg.runs import RunOptions

    loader = ", ".join(f"{name}: {value}" for name, value in MAPS.items())
    made_up = (
        "data.root=null",
        "data.also=[]",
        "data.split={by: column, column: split}",
        f"data.loader={{{loader}}}",
    )
    with Meter("map") as meter:
        scores = evaluate_model(
            "wafermap",
            out=out / "maps",
            options=RunOptions(overrides=made_up),
            tell=meter.step,
        )
    for table in scores.tables():
        show_table(*table)
    return inspect([out / "maps"], out=out / "maps" / "page", title="Made-up wafer maps")
