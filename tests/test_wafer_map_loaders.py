"""Loaders of wafer maps: what they read, what a pickle cannot do, the sentences of refusals."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
import pickletools
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, RecipeError
from domainseg.loaders.cards import find_card
from domainseg.loaders.frame_pickle import NAMES, PANDAS_NAMES, read_frame
from domainseg.loaders.mixedwm38 import COLUMNS, MixedWM38
from domainseg.loaders.splits import Split, split
from domainseg.loaders.wafer_map import NO_PATTERN, PATTERNS, LabelledMaps
from domainseg.loaders.wm811k import WM811K

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def load(name: str) -> ModuleType:
    """Load a file beside this one; importlib mode puts none of them on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


old = load("python2_pickle")

FIRST = np.array([[0, 1, 0], [1, 2, 1]], np.uint8)
SECOND = np.array([[2, 2], [1, 0], [0, 1]], np.uint8)
THIRD = np.tile(np.array([[1, 2], [0, 1]], np.uint8), (20, 30))
"""Longer than 255 bytes: written with another opcode than the others."""
COLUMNS_OF_FRAME: dict[str, list[Any]] = {
    "waferMap": [FIRST, np.asfortranarray(SECOND), THIRD, FIRST.astype(np.int64)],
    "dieSize": [4.0, 4.0, 1800.0, 4.0],
    "lotName": ["lot1", "lot1", "lot2\xe4", "lot3"],
    "waferIndex": [1.0, 2.0, 25.0, 7.0],
    "trianTestLabel": [np.array([["Training"]]), np.empty((0, 0)), np.array([["Test"]]), []],
    "failureType": [np.array([["none"]]), np.empty((0, 0)), np.array([["Near-full"]]), []],
}
LAYOUTS = ("0.13", "0.16", "0.18")


def arrays(**changes: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` of three maps, out of the order of their rows."""
    maps = [SECOND, THIRD, FIRST]
    made = {
        "maps_flat": np.concatenate([one.reshape(-1) for one in maps]),
        "offsets": np.concatenate([[0], np.cumsum([one.size for one in maps])]),
        "shapes": np.array([one.shape for one in maps], np.int16),
        "label": np.array(["Edge-Ring", "", "None"]),
        "split": np.array(["test", "", "train"]),
        "index": np.array([70, 9, 11], np.int32),
    }
    return {**made, **changes}


def npz(root: Path, **changes: Any) -> Path:
    held: dict[str, Any] = {
        name: values for name, values in arrays(**changes).items() if values is not None
    }
    np.savez_compressed(root / "wm811k_subset.npz", **held)
    return root


def mixed(root: Path, maps: Any = None, labels: Any = None) -> Path:
    square = np.ones((3, 4, 4), np.uint8)
    square[:, 0, 0], square[:, 1, 2] = 0, 2
    hot = np.zeros((3, 8), np.uint8)
    hot[0, 7] = hot[1, 0] = hot[1, 6] = 1
    held: dict[str, Any] = {
        "arr_0": square if maps is None else maps,
        "arr_1": hot if labels is None else labels,
    }
    np.savez(root / "Wafer_Map_Datasets.npz", **held)
    return root


def frame(root: Path, layout: str = "0.18", **changes: Any) -> Path:
    (root / "LSWMD.pkl").write_bytes(old.legacy_frame({**COLUMNS_OF_FRAME, **changes}, layout))
    return root


def images(opened: LabelledMaps) -> list[Any]:
    return [opened.load(entry).image[:].tolist() for entry in opened.entries()]


def refusal(
    options: WM811K | MixedWM38, root: Path, kind: type[Exception] = InputError, **select: Any
) -> str:
    with pytest.raises(kind) as caught:
        options.open(root, select=select or None)
    return str(caught.value)


# The arrays of WM-811K


def test_a_map_is_one_channel_of_dies_whose_label_is_its_tag(tmp_path: Path) -> None:
    opened = WM811K().open(npz(tmp_path))
    first, second = opened.entries()
    assert opened.classes == PATTERNS
    assert (first.id, first.kind, first.tags) == ("row-0000011", "None", (NO_PATTERN,))
    assert (second.id, second.kind, second.tags) == ("row-0000070", "Edge-Ring", ("Edge-Ring",))
    assert [entry.columns for entry in (first, second)] == [{"split": "train"}, {"split": "test"}]
    assert [entry.group for entry in (first, second)] == ["row-0000011", "row-0000070"]
    sample = opened.load(second)
    assert (sample.id, sample.group, sample.kind, sample.tags) == (
        "row-0000070",
        "row-0000070",
        "Edge-Ring",
        ("Edge-Ring",),
    )
    assert (sample.channels, sample.spacing_um, sample.truth) == (("die",), None, None)
    np.testing.assert_array_equal(sample.image[:], SECOND[None])
    assert sample.image.dtype == np.uint8
    assert sample.ignore is not None
    np.testing.assert_array_equal(sample.ignore, SECOND == 0)


def test_a_map_without_a_label_comes_only_when_asked_for(tmp_path: Path) -> None:
    opened = WM811K(unlabelled=True).open(npz(tmp_path))
    first, *others = opened.entries()
    assert (first.id, first.kind, first.tags, first.columns) == (
        "row-0000009",
        None,
        (),
        {"split": ""},
    )
    assert len(others) == 2
    assert images(opened) == [[THIRD.tolist()], [FIRST.tolist()], [SECOND.tolist()]]
    parts = split(opened.entries(), Split(by="column", leave_out=("",)))
    assert [e.id for e in (*parts.train, *parts.test)] == ["row-0000011", "row-0000070"]


def test_what_is_done_to_a_sample_does_not_reach_the_next(tmp_path: Path) -> None:
    opened = WM811K().open(npz(tmp_path))
    entry = opened.entries()[0]
    image: Any = opened.load(entry).image
    image[:] = 0
    np.testing.assert_array_equal(opened.load(entry).image[:], FIRST[None])


def test_wider_integers_and_other_orders_are_the_same_maps(tmp_path: Path) -> None:
    wide = WM811K().open(npz(tmp_path, maps_flat=arrays()["maps_flat"].astype(">i4")))
    assert images(wide) == [[FIRST.tolist()], [SECOND.tolist()]]
    maps = np.random.default_rng(0).integers(1, 3, (9, 5, 7))
    hot = np.zeros((9, 8), np.int32)
    for order in ("C", "F"):
        opened = MixedWM38().open(mixed(tmp_path, np.asarray(maps, order=order), hot))
        assert images(opened) == maps[:, None].tolist()


def test_an_entry_of_another_data_set_is_not_loaded(tmp_path: Path) -> None:
    every = WM811K(unlabelled=True).open(npz(tmp_path))
    with pytest.raises(KeyError, match="row-0000009"):
        WM811K().open(tmp_path).load(every.entries()[0])


# MixedWM38


def test_a_mixed_map_has_all_its_patterns_in_one_order(tmp_path: Path) -> None:
    opened = MixedWM38().open(mixed(tmp_path))
    one, two, three = opened.entries()
    assert (one.id, one.tags, one.kind) == ("row-0000000", ("Random",), "Random")
    assert (two.tags, two.kind) == (("Center", "Scratch"), "Center+Scratch")
    assert (three.tags, three.kind) == (("None",), "None")
    assert {entry.group for entry in opened.entries()} == {entry.id for entry in opened.entries()}
    assert sorted(COLUMNS) == sorted(PATTERNS)


def test_each_column_of_the_labels_is_its_pattern(tmp_path: Path) -> None:
    opened = MixedWM38().open(mixed(tmp_path, np.ones((8, 2, 2), np.uint8), np.eye(8, dtype=int)))
    assert [entry.tags for entry in opened.entries()] == [(name,) for name in COLUMNS]


def test_a_value_above_two_is_refused_or_counts_as_failing(tmp_path: Path) -> None:
    maps = np.ones((3, 2, 2), np.int64)
    maps[1, 0, 1] = 3
    root = mixed(tmp_path, maps)
    assert refusal(MixedWM38(), root) == (
        f"{tmp_path}/Wafer_Map_Datasets.npz:row-0000001: found the value 3, wanted 0 (no die), "
        "1 (pass) or 2 (fail); correct the map, or set beyond to fail to count what is above 2 "
        "as failing."
    )
    assert images(MixedWM38(beyond="fail").open(root))[1] == [[[1, 2], [1, 1]]]


@pytest.mark.parametrize("value", [-1, 255, 1000])
def test_a_value_that_is_no_byte_is_refused_all_the_same(tmp_path: Path, value: int) -> None:
    maps = np.ones((3, 2, 2), np.int64)
    maps[2, 1, 1] = value
    assert refusal(MixedWM38(beyond="fail"), mixed(tmp_path, maps)) == (
        f"{tmp_path}/Wafer_Map_Datasets.npz:row-0000002: found a value below 0, or 255 or more, "
        "wanted 0 (no die), 1 (pass) or 2 (fail); correct the map."
    )


def test_mixed_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "Wafer_Map_Datasets.npz"
    root = mixed(tmp_path, labels=np.zeros((3, 7), int))
    assert refusal(MixedWM38(), root) == (
        f"{path}: found arr_0 of (3, 4, 4) and arr_1 of (3, 7), wanted (N, H, W) maps and their "
        "(N, 8) labels; use the publisher's file."
    )
    hot = np.zeros((3, 8), int)
    hot[1, 6] = 2
    assert refusal(MixedWM38(), mixed(tmp_path, labels=hot)) == (
        f"{path}:row-0000001: found 2 for Scratch, wanted 1 where the map has the pattern, else 0; "
        "correct arr_1."
    )
    assert refusal(MixedWM38(), mixed(tmp_path, maps=np.zeros((3, 4, 4)))) == (
        f"{path}:arr_0: found an array of float64, wanted integers or booleans; save it as such."
    )


# What an npz may not be


def test_a_map_without_a_die_is_refused_by_its_row(tmp_path: Path) -> None:
    flat = arrays()["maps_flat"].copy()
    flat[:6] = 0
    assert refusal(WM811K(), npz(tmp_path, maps_flat=flat)) == (
        f"{tmp_path}/wm811k_subset.npz:row-0000070: found a map of 3 x 2 without a die, "
        "wanted at least one value above 0; remove the row."
    )
    nothing = {"offsets": np.array([0, 6, 6, 12]), "shapes": np.array([[3, 2], [0, 9], [2, 3]])}
    kept = np.concatenate([SECOND.reshape(-1), FIRST.reshape(-1)])
    assert refusal(WM811K(), npz(tmp_path, maps_flat=kept, **nothing)) == (
        f"{tmp_path}/wm811k_subset.npz:row-0000009: found a map of 0 x 9 without a die, "
        "wanted at least one value above 0; remove the row."
    )


def test_unknown_words_are_refused_by_their_row(tmp_path: Path) -> None:
    path = tmp_path / "wm811k_subset.npz"
    assert refusal(WM811K(), npz(tmp_path, label=np.array(["Edge-Rign", "", "None"]))) == (
        f"{path}:row-0000070: found the label 'Edge-Rign', wanted one of Center, Donut, Edge-Loc, "
        "Edge-Ring, Loc, Near-full, Random, Scratch, None; correct it, or leave it empty for a "
        "map without a label."
    )
    assert refusal(WM811K(), npz(tmp_path, split=np.array(["test", "", "trian"]))) == (
        f"{path}:row-0000011: found the split 'trian', wanted Training, Test or nothing; "
        "correct it."
    )


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wm811k_subset.npz"
    assert refusal(WM811K(), npz(tmp_path, offsets=None, index=None)) == (
        f"{path}: found arrays label, maps_flat, shapes and 1 more, wanted also offsets, index; "
        "use the publisher's file."
    )
    assert refusal(WM811K(), npz(tmp_path, offsets=np.array([0, 6, 12]))) == (
        f"{path}:offsets: found an array of (3,), wanted (4,), for 3 labels; "
        "use the publisher's file."
    )
    right = arrays()["offsets"]
    assert refusal(WM811K(), npz(tmp_path, offsets=right + np.array([0, 1, 0, 0]))) == (
        f"{path}:row-0000070: found 7 values for a map of 3 x 2, wanted 6, from offsets to "
        "offsets; correct offsets or shapes."
    )
    flat = arrays()["maps_flat"]
    assert refusal(WM811K(), npz(tmp_path, maps_flat=np.append(flat, flat[:1]))) == (
        f"{path}:offsets: found 0 to {len(flat)}, wanted 0 to {len(flat) + 1}, the length of "
        "maps_flat; correct offsets."
    )
    wrapping = np.array([[3, 2], [1 << 32, 1 << 32], [2, 3]])
    assert "values for a map of 4294967296 x 4294967296" in refusal(
        WM811K(), npz(tmp_path, shapes=wrapping)
    )
    assert refusal(WM811K(), npz(tmp_path, index=np.array([4, 9, 4]))) == (
        f"{path}: found row 4 twice, wanted every row once; number the maps again."
    )
    assert refusal(WM811K(), npz(tmp_path, index=np.array([4, -9, 5]))) == (
        f"{path}: found row -9, wanted rows from 0 to 9999999; number the maps again."
    )


def test_an_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    words = np.array(["Edge-Ring", "", "None"], object)
    assert refusal(WM811K(), npz(tmp_path, label=words)) == (
        f"{tmp_path}/wm811k_subset.npz:label: found pickled Python objects, which can run code, "
        "wanted an array of numbers or text; save it again without objects."
    )


def test_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    words = np.array(["Loc", "", "None"])
    words.view(np.uint32)[1] = 0x110000
    path = npz(tmp_path, label=words) / "wm811k_subset.npz"
    assert refusal(WM811K(), tmp_path) == (
        f"{path}: found a damaged .npz (ValueError), wanted a whole file; download it again."
    )


def test_what_is_no_npz_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path) / "wm811k_subset.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert refusal(WM811K(), tmp_path) == (
        f"{path}: found no .npz file, or a truncated one, wanted a zip of numpy arrays; "
        "download it again."
    )
    middle = whole.index(b"maps_flat.npy") + 150
    path.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    message = refusal(WM811K(), tmp_path)
    assert message.startswith(f"{path}: found a damaged .npz (")
    assert message.endswith("), wanted a whole file; download it again.")
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays(maps_flat=np.zeros(1000, np.uint8)).items():
            memory = io.BytesIO()
            np.save(memory, values)
            data = memory.getvalue().replace(b"'shape': (1000,)", b"'shape': (9000,)")
            archive.writestr(f"{name}.npy", data)
    assert refusal(WM811K(), tmp_path) == (
        f"{path}:maps_flat: found 1000 bytes, wanted 9000, as its header says; "
        "download the file again."
    )


def test_the_file_is_the_one_there_is(tmp_path: Path) -> None:
    assert refusal(WM811K(), tmp_path, MissingInputError) == (
        f"{tmp_path}: found no table of wafer maps, wanted wm811k_subset.npz or LSWMD.pkl; "
        "check the path or name the file."
    )
    assert refusal(MixedWM38(), tmp_path, MissingInputError) == (
        f"{tmp_path}/Wafer_Map_Datasets.npz: found no file, wanted an .npz of wafer maps; "
        "check the path."
    )
    assert refusal(WM811K(file="a.pkl"), tmp_path, MissingInputError) == (
        f"{tmp_path}/a.pkl: found no file, wanted a pickled frame; check the path."
    )
    assert len(WM811K().open(frame(tmp_path)).entries()) == 2
    npz(tmp_path)
    assert refusal(WM811K(), tmp_path) == (
        f"{tmp_path}: found wm811k_subset.npz and LSWMD.pkl, wanted one of them; name the file."
    )
    assert WM811K(file="LSWMD.pkl").open(tmp_path).entries()[0].id == "row-0000000"


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        WM811K(file="LSWMD.csv")
    assert str(caught.value) == (
        "file: found LSWMD.csv, wanted an .npz or a .pkl; name wm811k_subset.npz or LSWMD.pkl, or "
        "leave it out."
    )
    for options in (WM811K(), MixedWM38()):
        assert refusal(options, tmp_path, RecipeError, z=0) == (
            f"image.select: found {{'z': 0}} for wafer maps in {tmp_path}, wanted nothing, as a "
            "wafer map is not a stack; remove it."
        )


# The pickled frame


def said_of_frame(opened: LabelledMaps) -> None:
    """Assert that every map and word of ``COLUMNS_OF_FRAME`` is there."""
    one, two, three, four = opened.entries()
    assert (one.id, one.group, one.kind, one.tags) == ("row-0000000", "lot1", "None", ("None",))
    assert (two.group, two.kind, two.tags) == ("lot1", None, ())
    assert (three.group, three.kind) == ("lot2\xe4", "Near-full")
    assert [entry.columns["split"] for entry in (one, two, three, four)] == [
        "train",
        "",
        "test",
        "",
    ]
    assert three.columns == {"split": "test", "lot": "lot2\xe4", "wafer": "25"}
    maps = [FIRST, SECOND, THIRD, FIRST]
    assert images(opened) == [[values.tolist()] for values in maps]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_of_old_pandas_are_read_without_it(tmp_path: Path, layout: str) -> None:
    said_of_frame(WM811K(unlabelled=True).open(frame(tmp_path, layout)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("text", ["str", "object", "string[python]", "string[pyarrow]"])
def test_frames_of_new_pandas_are_read_without_it(tmp_path: Path, protocol: int, text: str) -> None:
    pandas: Any = pytest.importorskip("pandas")
    made = pandas.DataFrame(COLUMNS_OF_FRAME)
    made["lotName"] = made["lotName"].astype(text)
    made.to_pickle(tmp_path / "LSWMD.pkl", protocol=protocol)
    said_of_frame(WM811K(unlabelled=True).open(tmp_path))


def test_a_frame_that_was_filtered_transposed_or_made_of_columns_is_read(tmp_path: Path) -> None:
    pandas: Any = pytest.importorskip("pandas")
    path = tmp_path / "LSWMD.pkl"
    made = pandas.DataFrame(COLUMNS_OF_FRAME)
    made["lotName"] = made["lotName"].where(made["waferIndex"] != 2.0)
    made[made["waferIndex"] < 20][::-1].to_pickle(path)
    found = read_frame(path)
    assert list(map(list, (found["lotName"], found["waferIndex"]))) == [
        ["lot3", None, "lot1"],
        [7.0, 2.0, 1.0],
    ]
    assert [e.group for e in WM811K(unlabelled=True).open(tmp_path).entries()] == [
        "lot3",
        "row-0000001",
        "lot1",
    ]
    numbers = pandas.DataFrame(np.arange(6).reshape(2, 3), columns=list("abc"))
    numbers.T.T.assign(d=[True, False]).to_pickle(path)
    assert {name: list(values) for name, values in read_frame(path).items()} == {
        "a": [0, 3],
        "b": [1, 4],
        "c": [2, 5],
        "d": [True, False],
    }


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    import subprocess

    ask = (
        "import sys; from pathlib import Path; from domainseg.loaders.wm811k import WM811K; "
        "WM811K().open(Path(sys.argv[1])); print({'pandas', 'pyarrow'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", ask, str(frame(tmp_path))]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "set()"


def test_maps_may_be_their_own_group_and_the_column_spelled_right(tmp_path: Path) -> None:
    columns = dict(COLUMNS_OF_FRAME)
    columns["trainTestLabel"] = columns.pop("trianTestLabel")
    (tmp_path / "LSWMD.pkl").write_bytes(old.legacy_frame(columns))
    opened = WM811K(group="map").open(tmp_path)
    assert [entry.group for entry in opened.entries()] == ["row-0000000", "row-0000002"]


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "LSWMD.pkl"
    words = [np.array([["Loc"]]), np.array([["Dot"]]), [], []]
    assert refusal(WM811K(), frame(tmp_path, failureType=words)).startswith(
        f"{path}:row-0000001: found the label 'Dot', wanted one of Center, "
    )
    flat = [FIRST, SECOND, THIRD[0], FIRST]
    assert refusal(WM811K(), frame(tmp_path, waferMap=flat)) == (
        f"{path}:row-0000002: found an array of uint8 of 1 axes, wanted a map of integers of two "
        "axes; correct waferMap or remove the row."
    )
    assert refusal(WM811K(), frame(tmp_path, waferMap=[*flat[:2], "map", FIRST])) == (
        f"{path}:row-0000002: found no array, wanted a map of integers of two axes; "
        "correct waferMap or remove the row."
    )
    several = [np.array([["Loc", "Donut"]]), [], [], []]
    assert refusal(WM811K(), frame(tmp_path, failureType=several)) == damaged(path, "ValueError")
    columns = {name: values for name, values in COLUMNS_OF_FRAME.items() if name != "waferMap"}
    path.write_bytes(old.legacy_frame(columns))
    assert refusal(WM811K(), tmp_path) == (
        f"{path}: found columns dieSize, failureType, lotName and 2 more, wanted a column "
        "waferMap; use the publisher's file, or rename the column."
    )


def damaged(path: Path, kind: str) -> str:
    return (
        f"{path}: found no pickled data frame, or a damaged one ({kind}), wanted a pandas frame "
        "as to_pickle writes it; get the file again from its publisher."
    )


def refused_name(path: Path, name: str) -> str:
    return (
        f"{path}: found the name {name}, which opening it would import and may run, wanted a "
        "pandas frame of arrays, numbers and text, which needs no such name; get the file from "
        "its publisher, or save such columns as plain ones."
    )


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_something_is_refused_by_name(
    tmp_path: Path, protocol: int
) -> None:
    import os

    path, mark = tmp_path / "LSWMD.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Runs(os.mkdir, str(mark)), protocol=protocol))
    assert refusal(WM811K(), tmp_path) == refused_name(path, "posix.mkdir")
    path.write_bytes(pickle.dumps(Runs(eval, f"__import__('os').mkdir({str(mark)!r})"), protocol))
    home = "builtins" if protocol == 4 else "__builtin__"
    assert refusal(WM811K(), tmp_path) == refused_name(path, f"{home}.eval")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("pandas", "read_pickle"),
        ("pandas.io.common", "get_handle"),
        ("pandasx.core.frame", "DataFrame"),
        ("domainseg.loaders.frame_pickle", "read_frame"),
        ("__builtin__", "getattr"),
        ("copy_reg", "_reconstructor"),
        ("pandas", "DataFrame.__setstate__"),
    ],
)
def test_every_other_name_is_refused(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / "LSWMD.pkl"
    path.write_bytes(old.Writer().dump(old.Made(old.Name(module, name), ("true",))))
    assert refusal(WM811K(), tmp_path) == refused_name(path, f"{module}.{name}")


KNOWN = (*(f"pandas.{name}" for name in PANDAS_NAMES), *NAMES)


@pytest.mark.parametrize("known", KNOWN)
def test_a_pickle_cannot_change_what_a_name_stands_for(tmp_path: Path, known: str) -> None:
    path, (module, _, name) = tmp_path / "LSWMD.pkl", known.rpartition(".")
    # BUILD with the state (None, {attribute: value}) sets attributes of what is on the stack.
    states: tuple[Any, ...] = (
        (None, {"__setstate__": None, "__call__": None, "_function": None, "find_class": None}),
        {"__setstate__": None, "__call__": None, "_function": None},
    )
    for state in states:
        attack = old.Writer()
        attack.save(old.Name(module, name))
        attack.save(state)
        path.write_bytes(bytes(attack.out + b"b."))
        assert refusal(WM811K(), tmp_path).startswith(f"{path}: found no pickled data frame, or a")
    said_of_frame(WM811K(unlabelled=True).open(frame(tmp_path)))


def array_state(shape: Any, code: str, raw: Any, type_state: Any = None) -> Any:
    kind = old.Made(old.Name("numpy", "dtype"), (code, 0, 1), type_state)
    return old.Made(old.RECONSTRUCT, (old.NDARRAY, (0,), "b"), (1, shape, kind, False, raw))


@pytest.mark.parametrize(
    "forged",
    [
        array_state((1, 1), "O8", "12345678"),
        array_state((1, 1), "O8", "12345678", (3, "|", None, None, None, -1, -1, 0)),
        array_state((2, 3), "u1", "12345"),
        array_state((2, 3), "u1", ["a"] * 6),
        array_state((-2, -3), "u1", "123456"),
        array_state((1 << 40, 0, 1 << 40), "u1", "1"),
        array_state((2, 3), "V1", "123456"),
        array_state((2, 3), "u1,u1", "123456789012"),
        array_state((1,), "u1", "1", (3, "|", None, ("a",), {}, 1, 1, 0)),
        array_state((1, 1), "u3", "123"),
    ],
)
def test_a_forged_array_is_refused_before_it_is_one(tmp_path: Path, forged: Any) -> None:
    path = frame(tmp_path, waferMap=[FIRST, forged, THIRD, FIRST]) / "LSWMD.pkl"
    with pytest.raises(InputError) as caught:
        read_frame(path)
    assert str(caught.value).startswith(f"{path}: found no pickled data frame, or a damaged one (")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_pickle_is_refused_wherever_it_ends(tmp_path: Path, layout: str) -> None:
    path = frame(tmp_path, layout) / "LSWMD.pkl"
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert "found no pickled data frame, or a damaged one (" in refusal(WM811K(), tmp_path)
    path.write_bytes(whole[:-1])
    assert refusal(WM811K(), tmp_path) == damaged(path, "EOFError")


def largest_memo_place(data: bytes) -> int:
    """Return the largest place of the memo that a pickle names before it makes no sense."""
    largest = 0
    with contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "LONG_BINPUT" and isinstance(argument, int):
                largest = max(largest, argument)
    return largest


def test_noise_in_a_pickle_is_one_sentence_or_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    few: dict[str, Any] = {**COLUMNS_OF_FRAME, "waferMap": [FIRST, SECOND, SECOND, FIRST]}
    path = frame(tmp_path, **few) / "LSWMD.pkl"
    whole = path.read_bytes()
    for _ in range(600):
        noisy = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            noisy[place] = rng.integers(256)
        # Python makes room for every place up to the largest: gigabytes, for nothing.
        if largest_memo_place(bytes(noisy)) > 10_000:
            continue
        path.write_bytes(bytes(noisy))
        with contextlib.suppress(InputError):
            images(WM811K(unlabelled=True).open(tmp_path))


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "LSWMD.pkl"
    values: tuple[Any, ...] = ({"waferMap": []}, [1, 2], "text", None)
    for value in values:
        path.write_bytes(pickle.dumps(value))
        assert refusal(WM811K(), tmp_path) == damaged(path, "TypeError")
    path.write_bytes(b"PK\x03\x04 a zip file")
    assert refusal(WM811K(), tmp_path) == damaged(path, "UnpicklingError")


# The real files


def real(folder: str) -> Path:
    found = DATA / folder
    if not found.is_dir():
        pytest.skip(f"{found} is not there: real wafer maps")
    return found


def test_the_labels_and_splits_of_the_real_subset_are_those_of_its_file() -> None:
    root = real("wafer-wm811k")
    with np.load(root / "wm811k_subset.npz") as held:
        labels, splits, rows = (held[name].tolist() for name in ("label", "split", "index"))
        flat, offsets, shapes = (held[name] for name in ("maps_flat", "offsets", "shapes"))
    opened = WM811K().open(root)
    assert Counter(entry.kind for entry in opened.entries()) == Counter(labels)
    assert Counter(entry.columns["split"] for entry in opened.entries()) == Counter(splits)
    assert [entry.id for entry in opened.entries()] == [f"row-{row:07d}" for row in sorted(rows)]
    place = {row: i for i, row in enumerate(rows)}
    for entry in opened.entries():
        i, sample = place[int(entry.id[4:])], opened.load(entry)
        wanted = flat[offsets[i] : offsets[i + 1]].reshape(shapes[i])
        assert sample.kind == labels[i]
        assert np.array_equal(sample.image[0], wanted)


def test_the_card_of_wm811k_splits_the_real_subset() -> None:
    opened = WM811K().open(real("wafer-wm811k"))
    parts = split(opened.entries(), find_card("wm811k").split)
    assert len(parts.test) == 5263
    assert len(parts.val) + len(parts.train) == 24344
    assert len(parts.val) == pytest.approx(2434, abs=150)


def test_the_labels_of_the_real_mixed_maps_are_those_of_its_file() -> None:
    root = real("wafer-mixedwm38")
    with np.load(root / "Wafer_Map_Datasets.npz") as held:
        maps, hot = held["arr_0"], held["arr_1"]
    names = (root / "names.txt").read_text().split()
    opened = MixedWM38().open(root)
    assert len(opened.entries()) == len(maps)
    counts = Counter(tag for entry in opened.entries() for tag in entry.tags)
    wanted = dict(zip(names, hot.sum(0).tolist(), strict=True))
    assert counts == {**wanted, NO_PATTERN: int((hot.sum(1) == 0).sum())}
    for entry, values in zip(opened.entries(), maps, strict=True):
        assert np.array_equal(opened.load(entry).image[0], values)
