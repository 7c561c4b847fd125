"""The layers: imports only point down, read from the source; and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "domainseg"

LAYERS = (
    ("errors", "records", "atomic", "allocator", "shipped"),
    ("images", "instances", "quality"),
    ("loaders", "models", "tiling", "training", "report"),
    (
        "catalog",
        "recipe_errors",
        "recipe_sections",
        "recipe",
        "rules_file",
        "gallery",
        "graded_outlines",
        "run_files",
        "manifest",
        "units",
        "lots",
        "sources",
        "gathering",
        "verify_detection",
        "panoptic",
        "model_plane",
        "segmenter",
        "verify_maps",
        "results",
        "run_folder",
        "outside",
        "about",
        "seen",
        "runs",
        "diameter",
        "train_folder",
        "tune_images",
    ),
    (
        "train",
        "predict",
        "predict_data",
        "redecode",
        "evaluate",
        "inspection",
        "judge",
        "survey",
        "preview",
        "tune",
        "defects",
        "machine",
        "budget",
        "verify_tiling",
    ),
    ("cli",),
    ("__main__",),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
APART = (2, 4)
"""Layers whose rooms do not know each other."""
NO_TORCH = (*LAYERS[0], *LAYERS[1])


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name below the package, and the file, of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imported(path: Path) -> set[str]:
    """Return the dotted names a file imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, below the package."""
    found = set()
    for name in imported(path):
        inner = name.removeprefix("domainseg").lstrip(".")
        if name.split(".")[0] == "domainseg" and inner != "__version__":
            found.add(inner if inner in MODULES else inner.rpartition(".")[0])
    return found


def outer(path: Path) -> set[str]:
    """Return the top-level names of other packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)} - {"domainseg"}


ROOMED = [(name, path) for name, path in MODULES.items() if name]


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name, _ in ROOMED} == set(LAYER)


@pytest.mark.parametrize(("name", "path"), ROOMED, ids=[name for name, _ in ROOMED])
def test_imports_only_point_down(name: str, path: Path) -> None:
    room = name.split(".")[0]
    for other in own(path):
        target = other.split(".")[0]
        assert target, f"{name} imports the package itself for more than its version"
        assert LAYER[target] <= LAYER[room], f"{name} imports {other}, which is above it"
        if LAYER[target] == LAYER[room] and LAYER[room] in APART:
            assert target == room, f"{name} imports {other}, which is beside it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own(path) - {name} for name, path in ROOMED}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("room", NO_TORCH)
def test_words_arrays_and_files_do_without_torch(room: str) -> None:
    for name, path in ROOMED:
        if name.split(".")[0] == room:
            known = {"torch", "torchvision", "lightning", "monai", "timm"}
            assert not known & outer(path), name


def test_words_do_with_numpy_alone() -> None:
    for name in LAYERS[0]:
        assert outer(MODULES[name]) - set(sys.stdlib_module_names) <= {"numpy"}, name


def test_one_file_knows_albumentations() -> None:
    knowing = [name for name, path in MODULES.items() if "albumentations" in outer(path)]
    assert knowing == ["training.augment"]


def test_only_the_command_line_prints() -> None:
    for name, path in ROOMED:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if name.split(".")[0] != "cli":
            assert "print" not in names, name
            assert not {"rich", "typer"} & outer(path), name


def test_no_room_is_a_drawer() -> None:
    assert not {name.split(".")[-1] for name in MODULES} & {"utils", "base", "common", "helpers"}


def test_the_package_itself_imports_for_types_only() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert name is not None
            assert name.split(".")[0] in {*sys.stdlib_module_names, "__future__"}


def child(code: str) -> str:
    """Return what a fresh interpreter in the repository's root prints.

    ``-P`` as for an installed command: the folder one happens to stand in is not on the path.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = "{'torch', 'numba', 'monai', 'polars', 'scipy', 'skimage', 'timm', 'lightning', 'numpy'}"


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert child(f"import sys, domainseg; print({HEAVY} & set(sys.modules))") == "set()"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, io, contextlib\n"
        "from domainseg.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "    code = run(['--help'])\n"
        "assert 'predict' in said.getvalue()\n"
        f"print(code, {HEAVY} & set(sys.modules), 'rich.progress' in sys.modules)"
    )
    assert child(code) == "0 set() False"


def test_the_folder_of_data_cards_is_no_package() -> None:
    folders = child(
        "import importlib.util as u; s = u.find_spec('datasets'); "
        "print(*(s.submodule_search_locations or []) if s else [], sep='\\n')"
    )
    assert str(ROOT / "datasets") not in folders.splitlines()
