"""The rules file of a report: read, and refused in one sentence that names file, line and key."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from domainseg.errors import RecipeError
from domainseg.quality.rules import Rules
from domainseg.recipe_errors import Origin, describe, read_sections
from domainseg.shipped import shipped


def find_rules(path: Path | str) -> Path:
    """Return the file that ``path`` names: itself, or example rules that ship, by bare name.

    Raises:
        RecipeError: there is neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    folder = shipped("recipes") / "rules"
    names = sorted(one.stem for one in folder.glob("*.yaml"))
    if file.suffix in ("", ".yaml") and file.parent == Path() and file.stem in names:
        return folder / f"{file.stem}.yaml"
    near = get_close_matches(file.stem, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"these ship: {', '.join(names)}."
    raise RecipeError(f"{file}: found no such file, wanted a rules file; {hint}")


def load_rules(path: Path | str) -> Rules:
    """Return the rules in a YAML file, or those that ship under a bare name.

    Raises:
        RecipeError: the file is not there or not YAML, a key is unknown, a value does not fit,
            or two parts do not go together; names file, line and key.
    """
    file = find_rules(path)
    values, node = read_sections(file, wanted="schema, units, accept")
    try:
        return Rules.model_validate(values)
    except ValidationError as error:
        origin = Origin(str(file), node)
        raise RecipeError(describe(error, origin, values=values, kind=Rules)) from None
