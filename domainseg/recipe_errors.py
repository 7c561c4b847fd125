"""What is wrong with a recipe, in one sentence that names file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from domainseg.errors import RecipeError, sentence

Keys = tuple[str, ...]
MOST_VALUES = 100_000
"""Of a file; a recipe has a hundred, rules for many classes a thousand."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")
_SECTION = "a section with options"
_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "dataclass_type": _SECTION,
    "model_attributes_type": _SECTION,
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length:g}",
}
"""What pydantic wanted, by the type of its complaint."""


class MisfitError(ValueError):
    """Two parts of a recipe do not go together; ``keys`` is the option to change."""

    def __init__(self, keys: Keys, reason: str) -> None:
        super().__init__(reason)
        self.keys = keys


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a recipe's values came from, to name the line of a mistake.

    Attributes:
        name: of the file, or what stands for one.
        node: the file's YAML tree, None where there is no file.
        overridden: keys that the command line set.
    """

    name: str
    node: yaml.Node | None = None
    overridden: frozenset[Keys] = field(default_factory=frozenset)

    def place(self, keys: Keys) -> str:
        """Return ``command line``, ``file:line`` or ``file``: where ``keys`` were set."""
        line, depth = self._line(keys)
        for set_ in self.overridden:
            absent = depth < len(keys) and set_[: len(keys)] == keys
            if absent or keys[: len(set_)] == set_:
                return "command line"
        return self.name if line is None else f"{self.name}:{line}"

    def _line(self, keys: Keys) -> tuple[int | None, int]:
        """Return the line of the deepest of ``keys`` that the file has, and how deep it is."""
        node, line, depth = self.node, None, 0
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == key), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and int(key) < len(node.value):
                node = node.value[int(key)]
                line = node.start_mark.line + 1
            else:
                break
            depth += 1
        return line, depth


def refuse_endless(name: str, node: yaml.Node | None) -> None:
    """Raise RecipeError where aliases make a file hold itself, or `MOST_VALUES` and more."""
    sizes: dict[int, int] = {}

    def size(one: yaml.Node) -> int:
        known = sizes.get(id(one))
        if known == 0:
            raise RecipeError(
                f"{name}:{one.start_mark.line + 1}: found a part that holds itself, wanted none; "
                "remove the alias."
            )
        if known is None:
            sizes[id(one)] = 0
            inner: list[yaml.Node] = []
            if isinstance(one, yaml.SequenceNode):
                inner = list(one.value)
            elif isinstance(one, yaml.MappingNode):
                inner = [value for pair in one.value for value in pair]
            known = sizes[id(one)] = 1 + sum(size(value) for value in inner)
        return known

    if node is not None and (total := size(node)) > MOST_VALUES:
        raise RecipeError(
            f"{name}: found {total:.3g} values, aliases counted as often as they stand, wanted at "
            f"most {MOST_VALUES:,}; remove some."
        )


def refuse_repeated_keys(name: str, node: yaml.Node | None) -> None:
    """Raise RecipeError when a section names a key twice: YAML would keep the last in silence."""
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            refuse_repeated_keys(name, inner)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if (before := first.setdefault(str(key.value), line)) != line:
                raise RecipeError(
                    f"{name}:{line}: {key.value} is set in line {before} too; remove one."
                )
            refuse_repeated_keys(name, value)


def read_sections(file: Path, *, wanted: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the sections of a YAML file, and its tree.

    Raises:
        RecipeError: it is not YAML, has a key twice, or no sections, ``wanted`` among them.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        refuse_endless(str(file), node)
        values = yaml.safe_load(text)
    # A date of month 13 is a ValueError, lists in lists a thousand deep end the recursion.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(yaml_problem(str(file), error)) from error
    refuse_repeated_keys(str(file), node)
    if not isinstance(values, dict):
        raise RecipeError(sentence(file, found="no sections", wanted=wanted, fix="add them"))
    return values, node


def yaml_problem(name: str, error: Exception) -> str:
    """Return one sentence for what a YAML parser says."""
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{where}: this is not YAML, {reason.rstrip('.')}; correct it."


def describe(
    error: ValidationError, origin: Origin, *, values: Mapping[str, Any], kind: type
) -> str:
    """Return one sentence for what pydantic found wrong with ``values`` as a ``kind``."""
    found = error.errors(include_url=False)
    unknown = [e for e in found if e["type"] in _UNKNOWN]
    first = (unknown or found)[0]
    keys = _keys(first, values)
    # The branches of a union complain each for itself; the one that went deepest was meant.
    alike = [e for e in found if _keys(e, values)[: len(keys)] == keys]
    first = first if unknown else max(alike, key=lambda e: len(_keys(e, values)))
    keys = _keys(first, values)
    if first["type"] == "value_error":
        return _own_words(first["ctx"]["error"], keys, origin, values=values, kind=kind)
    where, name = origin.place(keys), ".".join(keys)
    if first["type"] in _UNKNOWN:
        options = list(options_at(kind, keys[:-1], values))
        return f"{where}: {name} is not an option; {_hint(keys[-1], options)}"
    if first["type"] in _MISSING:
        return f"{where}: {name} is missing; add it."
    if first["type"].startswith("union_tag"):
        return _unknown_part(first, keys, origin, values=values, kind=kind)
    wanted = dict.fromkeys(_wanted(e) for e in found if _keys(e, values) == keys)
    return f"{where}: {name} is {_shown(first['input'])}, wanted {', or '.join(wanted)}."


def options_at(kind: Any, keys: Sequence[str], values: Any) -> dict[str, Any]:
    """Return name and type of each option of the section at ``keys`` of a ``kind``."""
    options, of_each = _options(kind), False
    for key in keys:
        if isinstance(values, Mapping):
            values = values.get(key)
        elif isinstance(values, list | tuple) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            values = None
        if of_each:  # a name or number of one of several sections of a kind
            of_each = False
            continue
        annotation = options.get(key)
        of_each = get_origin(annotation) in (dict, tuple, list)
        parts = _parts(annotation)
        if len(parts) > 1:
            name = values.get("name") if isinstance(values, Mapping) else None
            parts = [part for part in parts if part.__dataclass_fields__["name"].default == name]
        options = _options(parts[0]) if parts else {}
    return options


def is_text(annotation: Any) -> bool:
    """Tell whether an option takes text and nothing else, but perhaps null."""
    kinds = set(get_args(annotation) or (annotation,))
    return str in kinds and kinds <= {str, NoneType}


def _options(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            option.alias or name: option.annotation for name, option in kind.model_fields.items()
        }
    hints = get_type_hints(kind)
    # What all parts of a kind share is no option.
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _parts(annotation: Any) -> list[Any]:
    """Return the sections that an option may hold: one, or the members of a union."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = get_args(annotation) or (annotation,)
    return [m for m in members if isinstance(m, type) and (is_dataclass(m) or _is_model(m))]


def _is_model(kind: type) -> bool:
    return issubclass(kind, BaseModel)


def _keys(error: Any, values: Any) -> Keys:
    """Return an error's location as keys of the file.

    Pydantic puts the names of a union's branches between them.
    """
    return tuple(_walk(error["loc"], values, missing=error["type"] in _MISSING))


def _walk(location: Sequence[str | int], values: Any, *, missing: bool) -> Iterator[str]:
    for place, part in enumerate(location):
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, Mapping) and missing and place == len(location) - 1:
            values = None
        elif isinstance(values, list | tuple) and isinstance(part, int):
            values = values[part] if part < len(values) else None
        else:
            continue
        yield str(part)


def _own_words(
    error: Exception, keys: Keys, origin: Origin, *, values: Mapping[str, Any], kind: type
) -> str:
    """Return the sentence of a part's own check; where it begins with an option, of that one."""
    if isinstance(error, MisfitError):
        return f"{origin.place(error.keys)}: {'.'.join(error.keys)} {error}."
    reason = str(error).rstrip(".")
    if keys:
        reason = reason.removeprefix(f"{keys[-1]}: ").removeprefix(f"{keys[-1]}.")
    option = re.match(r"\w+(\.\w+)*", reason)
    if option and option[0].split(".")[0] in options_at(kind, keys, values):
        rest = reason[option.end() :]
        keys = (*keys, *option[0].split("."))
        return f"{origin.place(keys)}: {'.'.join(keys)}{rest}."
    name = ".".join(keys)
    return f"{origin.place(keys)}: {f'{name}: ' if name else ''}{reason}."


def _unknown_part(
    error: Any, keys: Keys, origin: Origin, *, values: Mapping[str, Any], kind: type
) -> str:
    """Return the sentence for a section whose ``name`` is missing or names no part."""
    parts = _parts(options_at(kind, keys[:-1], values)[keys[-1]])
    names = [str(part.__dataclass_fields__["name"].default) for part in parts]
    keys = (*keys, "name")
    where, name = origin.place(keys), ".".join(keys)
    if error["type"] == "union_tag_not_found":
        return f"{where}: {name} is missing; it is one of {', '.join(names)}."
    tag = error["ctx"]["tag"]
    return f"{where}: {name} is '{tag}', which is not a part; {_hint(tag, names, 'there are')}"


def _hint(word: str, options: Sequence[str], verb: str = "it takes") -> str:
    near = get_close_matches(word, options, n=1)
    return f"did you mean '{near[0]}'?" if near else f"{verb} {', '.join(options)}."


def _wanted(error: Any) -> str:
    known = _WANTED.get(error["type"])
    if known is not None:
        return known.format(**error.get("ctx", {}))
    return str(error["msg"])


def _shown(value: Any) -> str:
    """Return a value as the file would say it, cut where it is long."""
    names = {None: "null", True: "true", False: "false"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
