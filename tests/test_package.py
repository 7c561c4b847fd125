"""The package as a user gets it: its public names, and what a wheel carries."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def child(code: str, *, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ORDERS = """
import importlib, sys, types

ORDERS = {
    "attribute alone": "import domainseg",
    "submodule first": "import domainseg.{name}; import domainseg",
    "submodule by name": "import domainseg; importlib.import_module('domainseg.{name}')",
    "submodule after": "import domainseg; domainseg.{name}; import domainseg.{name}",
    "from the submodule": "from domainseg.{name} import __doc__ as _",
    "submodule twice": "import domainseg.{name}; del sys.modules['domainseg.{name}'];"
    "importlib.import_module('domainseg.{name}')",
}
for order, code in ORDERS.items():
    for name in [n for n in sys.modules if n.split(".")[0] == "domainseg"]:
        del sys.modules[name]
    for name in ("train", "predict", "evaluate", "report"):
        exec(code.format(name=name))
        import domainseg
        assert isinstance(getattr(domainseg, name), types.FunctionType), (order, name)
        exec(f"from domainseg import {name} as found")
        assert found is getattr(domainseg, name), (order, name)
from domainseg.train import Trained, train
from domainseg.report.document import Document
assert train is domainseg.train
for name in domainseg.__all__:
    assert name in dir(domainseg)
    assert name == "__version__" or callable(getattr(domainseg, name)), name
assert domainseg.report.__name__ == "inspect"
assert domainseg.evaluate.__name__ == "evaluate_model"
assert set(domainseg.__all__) == {*domainseg._FUNCTIONS, "__version__"}
print("all")
"""


def test_a_public_name_is_the_function_whatever_was_imported_before() -> None:
    # One process for all orders: each forgets the package, but not what the package needs.
    assert child(ORDERS) == "all"


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
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_a_wheel_carries_recipes_cards_templates_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, ending in (("recipes", ".yaml"), ("datasets", ".toml")):
        shipped = {
            f"domainseg/_{folder}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file()
        }
        assert shipped <= names
        assert any(name.endswith(ending) for name in shipped)
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "domainseg").rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".css", ".js", ".json", ".typed")
    }
    endings = {"py", "j2", "css", "js", "json", "typed"}
    assert {path.rpartition(".")[2] for path in kept} == endings
    assert kept <= names


def test_a_wheel_carries_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert not [name for name in archive.namelist() if "__pycache__" in name]
    assert {top.rpartition(".")[2] for top in tops} == {"domainseg", "dist-info"}


def test_a_wheel_stays_under_45_mb(wheel: Path) -> None:
    assert wheel.stat().st_size < 45e6


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
