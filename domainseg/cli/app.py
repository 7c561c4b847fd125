"""The verbs of the command line, each a few lines around one function of the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainseg import __version__
from domainseg.cli import data, defects, klarf, looking, reporting, scoring, tiles, tuning
from domainseg.cli.options import (
    AUTO,
    Device,
    DiameterOrAuto,
    Precision,
    Select,
    SpacingUm,
    diameter_of,
    selection,
)
from domainseg.cli.screen import Meter, RunMeter, fail, say, warn
from domainseg.errors import DomainsegError, InputError, UsageError, sentence

if TYPE_CHECKING:
    from domainseg.run_folder import Run
    from domainseg.runs import RunOptions

INTERRUPTED = 130
INTERNAL = 5
OTHER_NAMES = {"--diameter": "--diameter-px"}
"""What Cellpose calls an option, and its name here."""

app = typer.Typer(
    name="domainseg",
    help="Train, segment and report: images of cells, wafers and surfaces, of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.app, name="data")
app.add_typer(klarf.app, name="klarf")
looking.add_to(app)
tiles.add_to(app)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe, as train.seed=2."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors are one sentence on standard error."""
    debug = "--debug" in arguments
    rest = _as_named([a for a in arguments if a != "--debug"]) or ["--help"]
    try:
        code = typer.main.get_command(app).main(
            args=rest, prog_name="domainseg", standalone_mode=False
        )
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        said, code = _refusal(error)
        fail(said)
    if code == INTERRUPTED:  # typer turns a KeyboardInterrupt into this code
        fail(f"interrupted; {_goes_on(rest)}.")
    return code if isinstance(code, int) else 0


def _as_named(words: Sequence[str]) -> list[str]:
    """Return a command line with the names that options have here for those of other programs."""
    if not {"predict", "evaluate", "check", "verify-tiling"} & set(words[:1]):
        return list(words)
    named = []
    for word in words:
        option, equals, value = word.partition("=")
        named.append(f"{OTHER_NAMES.get(option, option)}{equals}{value}")
    return named


def _goes_on(words: Sequence[str]) -> str:
    """Return what becomes of the work of an interrupted command."""
    if words[0] == "train":
        return "add --resume to go on with what is done"
    goes_on = {
        "predict": "--data" not in words,
        "evaluate": bool({"-o", "--out"} & set(words)),
        "decode": True,
        "demo": True,
    }
    if goes_on.get(words[0], False):
        return "repeat the command to go on with what is done"
    return "repeat the command"


def _refusal(error: Exception) -> tuple[str, int]:
    """Return the sentence and the exit code of an error."""
    if isinstance(error, DomainsegError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return _usage(error), UsageError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        said = sentence(
            error.filename,
            found=(error.strerror or type(error).__name__).lower(),
            wanted="a path that can be used",
            fix="check it and its permissions",
        )
        return said, InputError.exit_code
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"{type(error).__name__}: {reason}; this is a defect of domainseg, please report it "
        "with what the same command prints with --debug.",
        INTERNAL,
    )


def _usage(error: typer.TyperException) -> str:
    """Return what the parser of the command line refuses, as one sentence."""
    context = getattr(error, "ctx", None)
    command = "domainseg" if context is None else context.command_path
    message = " ".join(error.format_message().split())
    message = message[0].lower() + message[1:]
    if message.endswith("?"):
        return f"{command}: {message.replace('. Did you', '; did you')}"
    return f"{command}: {message.rstrip('.')}; see `{command} --help`."


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[  # noqa: ARG001 - `run` takes it off, wherever it stands; here for --help
        bool, typer.Option("--debug", help="Show where an error came from.")
    ] = False,
) -> None:
    if version:
        say(f"domainseg {__version__}")
        raise typer.Exit


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of one that ships.")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the model [runs/RECIPE].")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted training.")] = False,
) -> None:
    """Fit a recipe to its data; writes model.safetensors."""
    from domainseg.train import train as fit
    from domainseg.training.loop import Progress

    folder = out or Path("runs") / recipe.stem
    with Meter("step") as meter:

        def tell(stage: str, progress: Progress | None) -> None:
            if progress is None:
                meter.stage(stage)
                return
            score = "" if progress.score is None else f"  val {progress.score:.4f}"
            best = "" if progress.best is None else f" (best {progress.best:.4f})"
            note = f"loss {progress.loss:.3f}{score}{best}"
            meter.step(progress.step, progress.steps, note)

        trained = fit(recipe, folder, overrides=tuple(overrides or ()), resume=resume, tell=tell)
    for name, value in trained.scores.items():
        say(f"{name}  {value:.4f}")
    say(f"{trained.model}  ({trained.minutes:.1f} min)")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(help="A model file, or the name of one that ships, as nuclei.")
    ],
    images: Annotated[
        list[str] | None, typer.Argument(help="Images, folders of images, or URLs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results [MODEL-results].")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data", help="Folder that the recipe's loader opens: one table for all."),
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change of the recipe, KEY=VALUE.")
    ] = None,
    select: Select = None,
    spacing_um: SpacingUm = None,
    diameter_px: DiameterOrAuto = None,
    roi: Annotated[Path | None, typer.Option(help="GeoJSON of the regions to look at.")] = None,
    tissue: Annotated[
        bool | None, typer.Option(help="Look only where a stained slide holds tissue.")
    ] = None,
    skip_bad_tiles: Annotated[
        bool, typer.Option(help="Go on where tiles of a file are damaged; record them.")
    ] = False,
    max_memory: Annotated[
        float | None, typer.Option(metavar="GB", help="What the process may use.")
    ] = None,
    drop_maps: Annotated[bool, typer.Option(help="Delete the maps in the end.")] = False,
    keep_folders: Annotated[bool, typer.Option(help="Name results by folder and stem.")] = False,
    restart: Annotated[bool, typer.Option(help="Replace results of other settings.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Segment images; writes labels, tables, outlines and overlays."""
    from domainseg.predict import PartlyFailedError
    from domainseg.predict import predict as segment
    from domainseg.runs import RunOptions

    looking = [] if tissue is None else [f"tiling.tissue={str(tissue).lower()}"]
    options = RunOptions(
        overrides=(*(change or ()), *looking),
        select=selection(select),
        spacing_um=spacing_um,
        diameter_px=diameter_of(diameter_px),
        estimate_diameter=diameter_px == AUTO,
        roi=roi,
        skip_bad_tiles=skip_bad_tiles,
        max_memory_mb=None if max_memory is None else 1000 * max_memory,
        drop_maps=drop_maps,
        keep_folders=keep_folders,
        restart=restart,
        device=device,
        precision=precision,
    )
    if (data_root is None) == (not images):
        raise UsageError(
            sentence(
                "predict",
                found="both images and --data" if images else "neither images nor --data",
                wanted="one of them",
                fix="give images, or --data FOLDER",
            )
        )
    if out is None:
        # Of a training the folder has the name.
        stem = model.parent.name if model.stem == "model" and model.parent.name else model.stem
        out = Path(f"{stem}-results")
    if data_root is not None:
        _predict_data(model, data_root, out, options)
        return
    try:
        with RunMeter() as meter:
            runs = segment(
                model, images or (), out, options=options, tell=meter.image, tell_stage=meter.part
            )
    except PartlyFailedError as error:
        for run_ in error.runs:
            _say_run(run_)
        for said in error.sentences():
            warn(said)
        raise
    for run_ in runs:
        _say_run(run_)


def _predict_data(model: Path, data_root: Path, out: Path, options: RunOptions) -> None:
    from domainseg.predict_data import predict_data

    with Meter("image") as meter:
        made = predict_data(model, data_root, out, options=options, tell=meter.step)
    say(f"{made.folder}  {made.images} images, {made.objects} objects")


@app.command()
def decode(
    run: Annotated[Path, typer.Argument(help="A run folder that predict wrote.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[instances.KEY=VALUE]...", help="Changes of the rules."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results [the run's].")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Where the image is now, if it was moved.")
    ] = None,
) -> None:
    """Find the objects of a run again with other rules, without the network."""
    from domainseg.redecode import decode_run

    with RunMeter() as meter:
        again = decode_run(run, tuple(changes or ()), out=out, image=image, tell=meter.part)
    _say_run(again)


def _say_run(run_: Run) -> None:
    note = "  (was there)" if run_.repeated else ""
    say(f"{run_.folder}  {run_.count} objects{note}")
    for warning in run_.warnings:
        warn(f"{run_.image}: {warning}")


scoring.add_to(app)
tuning.add_to(app)
defects.add_to(app)
reporting.add_to(app)


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
    """Nuclei, of tissue too, defects and wafer maps, the others made up; a page each."""
    from domainseg.cli.demonstration import demonstrate

    demonstrate(out)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
