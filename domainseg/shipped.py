"""Where the recipes and data cards are that come with domainseg."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


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
