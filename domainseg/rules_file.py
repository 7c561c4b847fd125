"""The rules file of a report: read, and refused in one sentence that names file, line and key."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from domainseg.errors import RecipeError, sentence
from domainseg.quality.rules import Rules
from domainseg.recipe_errors import Origin, describe, read_sections


def load_rules(path: Path | str) -> Rules:
    """Return the rules in a YAML file.

    Raises:
        RecipeError: the file is not there or not YAML, a key is unknown, a value does not fit,
            or two parts do not go together; names file, line and key.
    """
    file = Path(path)
    if not file.is_file():
        raise RecipeError(
            sentence(file, found="no such file", wanted="a rules file", fix="check the path")
        )
    values, node = read_sections(file, wanted="schema, units, accept")
    try:
        return Rules.model_validate(values)
    except ValidationError as error:
        origin = Origin(str(file), node)
        raise RecipeError(describe(error, origin, values=values, kind=Rules)) from None
