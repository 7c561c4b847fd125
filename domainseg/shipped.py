"""Where the recipes, data cards and models are that come with domainseg."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_models() -> dict[str, Path]:
    """Return the model files that come inside the package, by name."""
    folder = Path(__file__).resolve().parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def shipped(folder: Literal["recipes", "datasets"]) -> Path:
    """Return the folder of recipes or of data cards, installed or in a source checkout.

    A wheel carries them inside the package; a checkout, also one installed as
    editable, has them at the top of the repository.

    Raises:
        FileNotFoundError: when the installation carries neither.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / f"_{folder}", package.parent / folder):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"{package / f'_{folder}'}: found no folder, wanted the {folder} that come with "
        "domainseg; install it again."
    )
