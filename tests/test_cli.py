"""The command line: what it prints, where it prints it, and the code it leaves with."""

from __future__ import annotations

import csv
import errno
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from domainseg import __version__
from domainseg.cli import options as options_module
from domainseg.cli import screen
from domainseg.cli.app import _goes_on, run
from domainseg.errors import (
    DomainsegError,
    GateError,
    IndeterminateError,
    InputError,
    OutputError,
    RecipeError,
)

Said = pytest.CaptureFixture[str]
VERBS = (
    "list",
    "check",
    "init",
    "doctor",
    "train",
    "predict",
    "decode",
    "verify-tiling",
    "evaluate",
    "tune",
    "defects",
    "report",
    "demo",
    "data",
)
DEFECT = (
    "this is a defect of domainseg, please report it with what the same command prints with "
    "--debug.\n"
)


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that makes ``data list`` raise."""

    def make(error: BaseException) -> None:
        monkeypatch.setattr("domainseg.loaders.cards.list_cards", failing(error))

    return make


class TestWords:
    def test_the_version_is_one_line(self, capsys: Said) -> None:
        assert run(["--version"]) == 0
        assert capsys.readouterr().out == f"domainseg {__version__}\n"

    @pytest.mark.parametrize("arguments", [[], ["--help"]])
    def test_help_lists_every_verb(self, arguments: list[str], capsys: Said) -> None:
        assert run(arguments) == 0
        said = capsys.readouterr()
        assert said.err == ""
        words = [line.split()[1] for line in said.out.splitlines() if len(line.split()) > 1]
        assert {*VERBS, "--version", "--debug", "--help"} <= set(words)

    @pytest.mark.parametrize("verb", [[v] for v in VERBS] + [["data", "make"], ["data", "fetch"]])
    def test_every_verb_has_help(self, verb: list[str], capsys: Said) -> None:
        assert run([*verb, "--help"]) == 0
        assert f"Usage: domainseg {' '.join(verb)}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["trian"], "domainseg: no such command 'trian'; did you mean 'train'?"),
            (["zzz"], "domainseg: no such command 'zzz'; see `domainseg --help`."),
            (["data"], "domainseg data: missing command; see `domainseg data --help`."),
            (
                ["train"],
                "domainseg train: missing argument 'recipe'; see `domainseg train --help`.",
            ),
            (
                ["data", "preview", "r", "o", "--count", "x"],
                "domainseg data preview: invalid value for '--count': Input should be a valid "
                "integer, unable to parse string as an integer; see `domainseg data preview "
                "--help`.",
            ),
        ],
    )
    def test_a_mistake_of_usage_is_one_sentence_and_code_2(
        self, arguments: list[str], said: str, capsys: Said
    ) -> None:
        assert run(arguments) == 2
        assert capsys.readouterr() == ("", f"error: {said}\n")


class TestCodes:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (GateError("no."), 1),
            (RecipeError("no."), 2),
            (InputError("no."), 3),
            (OutputError("no."), 3),
            (IndeterminateError("no."), 4),
            (DomainsegError("no."), 5),
        ],
    )
    def test_an_error_is_its_sentence_and_its_code(
        self,
        error: DomainsegError,
        code: int,
        broken: Callable[[BaseException], None],
        capsys: Said,
    ) -> None:
        broken(error)
        assert run(["data", "list"]) == code
        assert capsys.readouterr() == ("", "error: no.\n")

    def test_a_sentence_is_neither_wrapped_nor_read_as_markup(
        self, broken: Callable[[BaseException], None], capsys: Said
    ) -> None:
        text = "[bold]a[/] " + "very " * 60 + "long one."
        broken(InputError(text))
        assert run(["data", "list"]) == 3
        assert capsys.readouterr().err == f"error: {text}\n"

    def test_a_path_the_system_refuses_is_no_defect(
        self, broken: Callable[[BaseException], None], capsys: Said
    ) -> None:
        broken(PermissionError(errno.EACCES, "Permission denied", "/data/x"))
        assert run(["data", "list"]) == 3
        assert capsys.readouterr().err == (
            "error: /data/x: found permission denied, wanted a path that can be used; check it "
            "and its permissions.\n"
        )

    def test_a_defect_is_said_without_a_traceback(
        self, broken: Callable[[BaseException], None], capsys: Said
    ) -> None:
        broken(ZeroDivisionError("division\n by zero."))
        assert run(["data", "list"]) == 5
        said = capsys.readouterr()
        assert said == ("", f"error: ZeroDivisionError: division by zero; {DEFECT}")

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_debug_shows_where_an_error_came_from_wherever_it_stands(
        self, place: int, broken: Callable[[BaseException], None]
    ) -> None:
        broken(ZeroDivisionError("division by zero"))
        arguments = ["data", "list"]
        arguments.insert(place, "--debug")
        with pytest.raises(ZeroDivisionError):
            run(arguments)

    def test_debug_changes_nothing_where_nothing_fails(self, capsys: Said) -> None:
        assert run(["--debug", "--version"]) == 0
        assert capsys.readouterr().out == f"domainseg {__version__}\n"

    def test_an_interruption_is_code_130(
        self, broken: Callable[[BaseException], None], capsys: Said
    ) -> None:
        broken(KeyboardInterrupt())
        assert run(["data", "list"]) == 130
        assert capsys.readouterr() == (
            "",
            "error: interrupted; repeat the command.\n",
        )

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("train r.yaml -o out", "add --resume to go on with what is done"),
            ("predict m a.tif -o out", "repeat the command to go on with what is done"),
            ("evaluate m -o out", "repeat the command to go on with what is done"),
            ("predict m --data d -o out", "repeat the command"),
            ("evaluate m", "repeat the command"),
            ("tune m", "repeat the command"),
        ],
    )
    def test_only_what_goes_on_is_said_to(self, words: str, said: str) -> None:
        assert _goes_on(words.split()) == said

    def test_the_entry_point_leaves_with_the_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from domainseg.cli import main

        monkeypatch.setattr("sys.argv", ["domainseg", "zzz"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2

    def test_the_package_runs_as_the_command_does(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Said
    ) -> None:
        monkeypatch.setattr("sys.argv", ["domainseg", "--help"])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("domainseg", run_name="__main__")
        assert caught.value.code == 0
        assert "predict" in capsys.readouterr().out


class TestScreen:
    def test_figures_stand_to_the_right_and_names_to_the_left(self, capsys: Said) -> None:
        screen.show_table(("name", "n", "kind"), [("a", "7", "x"), ("long", "12", "[b]")])
        assert capsys.readouterr().out == (
            "name    n   kind\n"  #
            "a       7   x\n"
            "long   12   [b]\n"
        )

    def test_a_pipe_cuts_and_wraps_nothing(self, capsys: Said) -> None:
        screen.show_table(("name", "text"), [("a", "word " * 60 + "end")])
        assert capsys.readouterr().out.splitlines()[1] == "a      " + "word " * 60 + "end"

    def test_progress_in_a_pipe_is_the_last_line_of_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Said
    ) -> None:
        monkeypatch.setattr("domainseg.cli.screen.time", SimpleNamespace(monotonic=lambda: 1.0))
        with screen.Meter("step") as meter:
            meter.stage("fitting [a]")
            for step in range(1, 4):
                meter.step(step, 3, "loss 0.5")
        assert capsys.readouterr().out == "fitting [a]\nstep 3 of 3  loss 0.5\n"

    def test_progress_in_a_pipe_says_a_line_every_half_minute(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Said
    ) -> None:
        now = iter([100.0, 100.0, 129.0, 130.0, 130.0])
        clock = SimpleNamespace(monotonic=lambda: next(now))
        monkeypatch.setattr("domainseg.cli.screen.time", clock)
        with screen.Meter("image") as meter:
            for image in range(3):
                meter.step(image, 9)
        assert capsys.readouterr().out == "image 0 of 9\nimage 2 of 9\n"


class TestSelection:
    def test_axes_are_named_and_numbered(self) -> None:
        assert options_module.selection(["z=max", "t=-1", "channel=DAPI,GFP,2"]) == {
            "z": "max",
            "t": -1,
            "channel": ["DAPI", "GFP", 2],
        }

    def test_nothing_is_nothing(self) -> None:
        assert options_module.selection(None) is None

    def test_a_word_alone_is_refused(self, capsys: Said) -> None:
        assert run(["predict", "m", "i", "-o", "o", "--select", "z"]) == 2
        assert capsys.readouterr().err == (
            "error: --select: found 'z', wanted AXIS=VALUE; write z=max or t=0.\n"
        )


class TestData:
    def test_cards_are_listed(self, capsys: Said) -> None:
        assert run(["data", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["card", "title", "licence"]
        row = next(line for line in lines if line.startswith("monuseg "))
        assert row.split()[-1] == "CC-BY-NC-SA-4.0"

    def test_an_unknown_card_is_code_3(self, tmp_path: Path, capsys: Said) -> None:
        assert run(["data", "fetch", "monusegg", str(tmp_path)]) == 3
        assert "did you mean monuseg." in capsys.readouterr().err

    def test_scenes_are_made(self, tmp_path: Path, capsys: Said) -> None:
        out = tmp_path / "scenes"
        small = ["train=1", "val=1", "test=0", "height=48", "width=40"]
        assert run(["data", "make", "scenes", str(out), *small]) == 0
        assert capsys.readouterr().out == f"{out}  2 images with labels and index.csv\n"
        rows = list(csv.DictReader((out / "index.csv").read_text("utf-8").splitlines()))
        assert [row["image"] for row in rows] == ["train-00000", "val-00000"]
        assert tifffile.imread(out / "labels" / "val-00000.tif").shape == (48, 40)

    def test_a_kind_that_is_not_made_is_refused(self, tmp_path: Path, capsys: Said) -> None:
        assert run(["data", "make", "chips", str(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            "error: data make: found 'chips', wanted scenes, wafers or wafer_maps; "
            "correct the name.\n"
        )

    def test_wafers_are_made(self, tmp_path: Path, capsys: Said) -> None:
        out = tmp_path / "wafers"
        small = ["train=1", "val=1", "test=0", "height=96", "width=80", "levels=[3]", "good=0"]
        assert run(["data", "make", "wafers", str(out), *small]) == 0
        assert capsys.readouterr().out == (
            f"{out}  2 images with labels, classes.csv, defects.csv, die_grid.json, coco.json "
            "and index.csv\n"
        )
        rows = list(csv.DictReader((out / "index.csv").read_text("utf-8").splitlines()))
        assert [(row["image"], row["kind"]) for row in rows] == [
            ("train-00000", "cnr 3"),
            ("val-00000", "cnr 3"),
        ]
        assert tifffile.imread(out / "labels" / "val-00000.tif").shape == (96, 80)

    def test_an_option_of_scenes_is_checked(self, tmp_path: Path, capsys: Said) -> None:
        assert run(["data", "make", "scenes", str(tmp_path / "o"), "trian=1"]) == 2
        assert capsys.readouterr().err == (
            "error: command line: trian is not an option; did you mean 'train'?\n"
        )

    def test_previews_are_drawn(self, tmp_path: Path, capsys: Said) -> None:
        out = tmp_path / "o"
        assert run(["data", "preview", "scenes-unet", str(out), *TINY, "--count", "1"]) == 0
        names = [f"{part}-{part}-00000.png" for part in ("train", "val", "test")]
        assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
        assert sorted(path.name for path in out.iterdir()) == sorted(names)


TINY = [
    "data.loader.train=2",
    "data.loader.val=1",
    "data.loader.test=1",
    "data.loader.height=96",
    "data.loader.width=80",
    "data.loader.stains=[fluorescence]",
]


class TestLooking:
    def test_parts_are_listed(self, capsys: Said) -> None:
        assert run(["list"]) == 0
        rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
        assert "scenes-unet" in rows["recipes"]
        assert rows["models"].split() == ["fcn,", "fpn,", "mask_rcnn,", "unet"]
        heads = ["boundary,", "detection,", "height,", "panoptic,", "pattern,", "semantic"]
        assert rows["heads"].split() == heads

    def test_a_recipe_is_checked_against_its_data(self, capsys: Said) -> None:
        assert run(["check", "scenes-unet", *TINY]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("part")
        assert [line.split()[:2] for line in lines[1:4]] == [
            ["train", "2"],
            ["val", "1"],
            ["test", "1"],
        ]
        assert lines[4:6] == ["classes: cell", "images: 96 x 80 px"]
        assert lines[6].startswith("network: unet with ")

    def test_a_recipe_with_a_mistake_is_code_2(self, capsys: Said) -> None:
        assert run(["check", "scenes-unet", "train.sed=1"]) == 2
        assert capsys.readouterr() == (
            "",
            "error: command line: train.sed is not an option; did you mean 'seed'?\n",
        )

    def test_a_folder_that_is_missing_is_code_3(self, tmp_path: Path, capsys: Said) -> None:
        missing = tmp_path / "none"
        assert run(["check", "nuclei-unet", f"data.root={missing}"]) == 3
        assert capsys.readouterr().err == (
            f"error: {missing}: found no such folder, wanted the folder of the data; "
            "check the path.\n"
        )

    def test_a_first_recipe_is_one_that_can_be_checked(self, tmp_path: Path, capsys: Said) -> None:
        rng = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        labels = np.zeros((64, 64), np.uint8)
        labels[4:24, 4:24], labels[30:50, 30:50] = 1, 2
        for number in range(12):
            name = f"{number:02d}.tif"
            pixels = rng.integers(0, 255, (64, 64), np.uint8)
            tifffile.imwrite(tmp_path / "images" / name, pixels)
            tifffile.imwrite(tmp_path / "masks" / name, labels)
        out = tmp_path / "r.yaml"
        folders = [str(tmp_path / "images"), str(tmp_path / "masks")]
        assert run(["init", *folders, "-o", str(out)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "12 images, 24 objects",
            "object diameter 23 to 23 px, median 23",
            f"{out}  train it with: domainseg train {out}",
        ]
        assert run(["check", str(out)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(int(line.split()[1]) for line in lines[1:4]) == 12
        assert run(["init", *folders, "-o", str(out)]) == 3
        assert capsys.readouterr().err == (
            f"error: {out}: found a file of that name, wanted a new one; choose another name.\n"
        )

    def test_the_machine_is_described(self, capsys: Said) -> None:
        assert run(["doctor"]) == 0
        rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        assert rows[0] == ["domainseg", __version__]
        assert "torch" in [row[0] for row in rows]


class TestScoring:
    def test_label_images_are_scored(self, tmp_path: Path, capsys: Said) -> None:
        truth = np.zeros((16, 16), np.uint8)
        truth[2:6, 2:6], truth[9:14, 9:14] = 1, 2
        predicted = np.where(truth == 2, 0, truth)
        for folder, labels in (("pred", predicted), ("truth", truth)):
            (tmp_path / folder).mkdir()
            tifffile.imwrite(tmp_path / folder / "a.tif", labels)
        scores = tmp_path / "scores.json"
        folders = [str(tmp_path / "pred"), str(tmp_path / "truth")]
        assert run(["evaluate", "--labels", *folders, "--json", str(scores)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == str(scores)
        # One of two found, none wrong: AP = TP / (TP + FN + FP) = 1/2, F1 = 2/3.
        assert {"0.500", "0.667"} <= {figure[:5] for figure in lines[1].split()}
        assert '"all"' in scores.read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("arguments", "found"),
        [
            ([], "neither a model nor --labels"),
            (["m", "--labels", "a", "b"], "both a model and --labels"),
        ],
    )
    def test_there_is_one_thing_to_score(
        self, arguments: list[str], found: str, capsys: Said
    ) -> None:
        assert run(["evaluate", *arguments]) == 2
        assert capsys.readouterr().err == (
            f"error: evaluate: found {found}, wanted one of them; give MODEL DATA, or "
            "--labels PRED TRUTH.\n"
        )

    def test_a_report_on_nothing_is_code_3(self, tmp_path: Path, capsys: Said) -> None:
        assert run(["report", str(tmp_path / "none")]) == 3
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error: {tmp_path / 'none'}: found ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["m.safetensors", "--kinds", "k.csv"], "found --kinds with a model"),
        (["--labels", "a", "b", "-o", "c"], "found -o with --labels"),
        (["--labels", "a", "b", "--split", "val"], "found --split with --labels"),
        (["--labels", "a", "b", "--diameter-px", "9"], "found --diameter-px with --labels"),
        (["--labels", "a", "b", "--true-diameter"], "found --true-diameter with --labels"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *arguments]) == 2
    name = text.split()[1]
    assert f"evaluate: {text}, wanted options that take effect; drop {name}." in " ".join(
        capsys.readouterr().err.split()
    )
