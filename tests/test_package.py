"""The package as a user gets it: its public names, and what a wheel carries."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("evaluate", "evaluate_labels", "load_recipe", "open_image", "predict", "report", "train")
SUBMODULES = ("evaluate", "predict", "report", "train")


def child(code: str, *, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "before",
    [
        "import domainseg",
        "import domainseg.{name}; import domainseg",
        "import importlib, domainseg; importlib.import_module('domainseg.{name}')",
        "import domainseg; domainseg.{name}; import domainseg.{name}",
        "import sys, domainseg.{name}; import importlib; "
        "del sys.modules['domainseg.{name}']; importlib.import_module('domainseg.{name}')",
    ],
)
def test_a_public_name_is_the_function_whatever_was_imported_before(before: str) -> None:
    code = "\n".join(
        f"{before.format(name=name)}\n"
        f"import types, domainseg\n"
        f"assert isinstance(domainseg.{name}, types.FunctionType), domainseg.{name}\n"
        f"from domainseg import {name}\n"
        f"assert {name} is domainseg.{name}"
        for name in SUBMODULES
    )
    assert child(code) == ""


def test_submodules_are_still_imported_from() -> None:
    code = (
        "import domainseg\n"
        "domainseg.train\n"
        "from domainseg.train import Trained, train\n"
        "from domainseg.report.document import Document\n"
        "assert train is domainseg.train\n"
        "print(Trained.__name__, Document.__name__)"
    )
    assert child(code) == "Trained Document"


def test_every_public_name_is_there_and_listed() -> None:
    code = (
        "import domainseg\n"
        f"for name in {NAMES}:\n"
        "    assert callable(getattr(domainseg, name)), name\n"
        "    assert name in dir(domainseg)\n"
        "assert domainseg.report.__name__ == 'inspect'\n"
        "assert domainseg.evaluate.__name__ == 'evaluate_model'\n"
        "assert sorted(domainseg.__all__) == sorted([*domainseg._FUNCTIONS, '__version__'])\n"
        "from domainseg import *\n"
        "print(__version__ == domainseg.__version__)"
    )
    assert child(code) == "True"


def test_another_name_is_refused_as_python_does() -> None:
    import domainseg

    with pytest.raises(AttributeError, match="module 'domainseg' has no attribute 'trian'"):
        domainseg.trian  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named hatchling" in done.stderr:
        pytest.skip("hatchling is not installed")
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_a_wheel_carries_recipes_cards_templates_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, ending in (("recipes", ".yaml"), ("datasets", ".toml")):
        shipped = {f"domainseg/_{folder}/{path.name}" for path in (ROOT / folder).iterdir()}
        assert shipped <= names
        assert any(name.endswith(ending) for name in shipped)
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "domainseg").rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".css", ".typed")
    }
    assert {path.rpartition(".")[2] for path in kept} == {"py", "j2", "css", "typed"}
    assert kept <= names


def test_a_wheel_carries_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert not [name for name in archive.namelist() if "__pycache__" in name]
    assert {top.rpartition(".")[2] for top in tops} == {"domainseg", "dist-info"}


def test_an_installed_wheel_finds_its_recipes_and_cards(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from domainseg.shipped import shipped\n"
        "print(*sorted(p.name for f in ('recipes', 'datasets') for p in shipped(f).iterdir()))\n"
        "print(shipped('recipes').parent)"
    )
    found, package = child(code, cwd=tmp_path).splitlines()
    assert package == str(tmp_path / "domainseg")
    expected = [p.name for folder in ("recipes", "datasets") for p in (ROOT / folder).iterdir()]
    assert found.split() == sorted(expected)
