"""The demonstration leaves alone what it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainseg.cli.demonstration import MARK, _begin
from domainseg.errors import OutputError


def test_folders_that_something_else_made_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "wafer" / "lot.001"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(OutputError) as caught:
        _begin(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: found a folder wafer without the mark of a demonstration, wanted a new "
        "folder, or one that a demonstration made; name another with --out."
    )
    assert mine.read_text() == "mine"


def test_a_second_demonstration_begins_anew_and_leaves_other_files(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    _begin(out)
    assert (out / MARK).is_file()
    (out / "slide").mkdir()
    (out / "notes.txt").touch()
    _begin(out)
    assert not (out / "slide").exists()
    assert (out / "notes.txt").exists()
