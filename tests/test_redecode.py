"""Decoding a run again gives what predicting with the same rules gives, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg import results
from domainseg.errors import InputError, MissingInputError, OutputError, UsageError
from domainseg.predict import predict
from domainseg.redecode import decode_run
from domainseg.run_folder import Run
from domainseg.runs import RunOptions

Write = Callable[..., Path]
CHANGES = ("instances.threshold=0.7", "instances.min_area_px=200")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    y, x = np.mgrid[:150, :170]
    waves = 128 + 120 * np.sin(y / 9) * np.sin(x / 7)
    tifffile.imwrite(tmp_path / "a.tif", waves.astype(np.uint8))
    return tmp_path / "a.tif"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"timings.json", "run.json"}
    }


def predicted(model: Path, image: Path, out: Path, *overrides: str) -> Run:
    (run,) = predict(model, [image], out, options=RunOptions(overrides=overrides))
    return run


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_decoded_again_is_the_run_with_those_rules(
    tmp_path: Path, bright_model: Write, image: Path, elsewhere: bool
) -> None:
    model = bright_model()
    run = predicted(model, image, tmp_path / "first")
    wanted = predicted(model, image, tmp_path / "second", *CHANGES)
    before = files_of(run.folder)
    out = tmp_path / "again" if elsewhere else None
    again = decode_run(run.folder, CHANGES, out=out)
    assert again.count == wanted.count != run.count
    assert files_of(again.folder) == files_of(wanted.folder)
    one, two = (json.loads((r.folder / "run.json").read_text()) for r in (again, wanted))
    assert one == two
    if elsewhere:
        assert files_of(run.folder) == before


def test_a_decode_that_was_stopped_goes_on(
    tmp_path: Path, bright_model: Write, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(results, "write_labels", stop)
        with pytest.raises(KeyboardInterrupt):
            decode_run(run.folder, CHANGES)
    assert not (run.folder / "run.json").exists()
    again = decode_run(run.folder, CHANGES)
    wanted = predicted(bright_model(), image, tmp_path / "other", *CHANGES)
    assert files_of(again.folder) == files_of(wanted.folder)


def test_what_needs_the_network_is_refused(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        decode_run(run.folder, ("tiling.core_px=32",))
    assert str(caught.value) == (
        "decode: found 'tiling.core_px=32', wanted a change of instances, report, evaluate; "
        "predict the image again with --set."
    )
    assert (run.folder / "run.json").exists()


def test_a_run_without_maps_is_refused(tmp_path: Path, bright_model: Write, image: Path) -> None:
    options = RunOptions(drop_maps=True)
    (run,) = predict(bright_model(), [image], tmp_path / "out", options=options)
    with pytest.raises(InputError, match=r"found no maps, wanted those of a prediction"):
        decode_run(run.folder)
    assert (run.folder / "run.json").exists()


def test_an_image_that_changed_or_went_away_is_refused(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    pixels: NDArray[np.uint8] = tifffile.imread(image)
    tifffile.imwrite(image, pixels[::-1])
    with pytest.raises(InputError) as caught:
        decode_run(run.folder, CHANGES)
    assert str(caught.value) == (
        f"{image}: found another image than the one that was predicted, wanted the same file; "
        "predict it again."
    )
    image.unlink()
    with pytest.raises(MissingInputError, match="found nothing, wanted an image"):
        decode_run(run.folder, CHANGES)
    assert (run.folder / "run.json").exists()


def test_a_moved_image_is_read_where_it_is_now(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    wanted = predicted(bright_model(), image, tmp_path / "other", *CHANGES)
    moved = image.rename(tmp_path / "moved.tif")
    again = decode_run(run.folder, CHANGES, image=moved)
    assert files_of(again.folder) == files_of(wanted.folder)
    timings = json.loads((run.folder / "timings.json").read_text())
    assert "network_s" not in timings
    assert timings["total_s"] >= timings["decode_s"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        decode_run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: found no run.json, wanted the record that predict writes last; name the "
        "folder of a finished run, or repeat the prediction to finish it."
    )


def test_the_run_itself_under_another_name_is_no_other_folder(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    alias = tmp_path / "alias"
    alias.symlink_to(run.folder)
    again = decode_run(run.folder, CHANGES, out=alias)
    assert again.folder == run.folder
    assert decode_run(run.folder, out=run.folder / ".." / "a").count == again.count


def test_the_run_of_another_image_is_not_replaced(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    tifffile.imwrite(tmp_path / "b.tif", tifffile.imread(image)[::-1])
    other = predicted(bright_model(), tmp_path / "b.tif", tmp_path / "out")
    with pytest.raises(OutputError, match=r"found a run with another image\.name, wanted the same"):
        decode_run(run.folder, CHANGES, out=other.folder)
    assert (other.folder / "run.json").exists()
    assert (other.folder / "maps.zarr").exists()


def test_maps_of_which_a_tile_is_missing_are_refused(
    tmp_path: Path, bright_model: Write, image: Path
) -> None:
    run = predicted(bright_model(), image, tmp_path / "out")
    (run.folder / "maps.zarr" / "c" / "0" / "1" / "2").unlink()
    with pytest.raises(InputError) as caught:
        decode_run(run.folder, CHANGES)
    assert str(caught.value) == (
        f"{run.folder / 'maps.zarr'}: found no maps of the tile at y 52, x 120, wanted those of "
        "all of the image; predict the image again with --restart and without --drop-maps."
    )
    assert (run.folder / "run.json").exists()
