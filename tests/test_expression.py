"""When a unit fails: the small grammar of conditions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainseg.errors import RecipeError
from domainseg.quality.expression import (
    DEEPEST,
    LONGEST,
    Comparison,
    Condition,
    Joined,
    Not,
    parse,
    text,
)

NAMES = ("critical", "major", "demerits", "android", "notes")
VALUES = {"critical": 1.0, "major": 3.0, "demerits": 120.5, "android": 0.0, "notes": -2.0}

numbers = st.floats(allow_nan=False, allow_infinity=False)
comparisons = st.builds(
    Comparison, st.sampled_from(NAMES), st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), numbers
)


def joined(inside: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    """Return nots and chains of conditions; a chain within a chain has the other word."""

    def chain(word: str) -> st.SearchStrategy[Condition]:
        parts = inside.filter(lambda one: not (isinstance(one, Joined) and one.word == word))
        return st.lists(parts, min_size=2, max_size=3).map(lambda p: Joined(word, tuple(p)))

    return st.one_of(inside.map(Not), chain("and"), chain("or"))


conditions: st.SearchStrategy[Condition] = st.recursive(comparisons, joined, max_leaves=12)


@given(conditions)
@settings(max_examples=300, deadline=None)
def test_a_condition_written_down_is_read_again(condition: Condition) -> None:
    assert parse(text(condition), NAMES) == condition


@given(conditions)
@settings(max_examples=300, deadline=None)
def test_it_holds_where_the_same_words_hold_in_python(condition: Condition) -> None:
    held = eval(text(condition), {"__builtins__": {}}, VALUES)
    assert condition.holds(VALUES) == held
    assert bool(condition.broken(VALUES)) == held


@given(st.text(st.sampled_from("critical major and or not ()<>=! 0.5e-"), max_size=40))
@settings(max_examples=500, deadline=None)
def test_what_is_read_means_what_it_means_in_python_and_the_rest_is_refused(source: str) -> None:
    try:
        condition = parse(source, NAMES)
    except RecipeError:
        return
    assert parse(text(condition), NAMES) == condition


@pytest.mark.parametrize(
    ("source", "held"),
    [
        ("critical > 0 or demerits > 100", True),
        ("critical > 0 and demerits < 100", False),
        ("critical > 5 or major > 5 and demerits > 0", False),
        ("critical > 0 or major > 5 and demerits < 0", True),  # and binds closer than or
        ("(critical > 0 or major > 5) and demerits < 0", False),
        ("not critical > 5 and major > 5", False),  # and not closer than and
        ("not (critical > 5 and major > 5)", True),
        ("notes==-2 and android<=0", True),
        ("demerits >= 1.205e2", True),
        ("demerits >= .5", True),
    ],
)
def test_words_bind_as_they_do_everywhere(source: str, held: bool) -> None:
    assert parse(source, NAMES).holds(VALUES) == held


def test_reasons_are_those_that_hold() -> None:
    condition = parse("critical > 5 or major >= 3 or demerits > 100", NAMES)
    assert condition.broken(VALUES) == (
        "major is 3, which is >= 3",
        "demerits is 120.5, which is > 100",
    )
    assert parse("not (major > 5)", NAMES).broken(VALUES) == ("not (major > 5.0)",)
    assert parse("critical > 5 and major >= 3", NAMES).broken(VALUES) == ()


def test_what_is_unknown_is_never_more_nor_less() -> None:
    unknown = {"critical": float("nan")}
    for sign in ("<", "<=", ">", ">=", "=="):
        assert not parse(f"critical {sign} 1", NAMES).holds(unknown)
    assert parse("critical != 1", NAMES).holds(unknown)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expression: found the end, wanted one of critical, major"),
        ("criticl > 0", "expression: found criticl, wanted one of critical, major"),
        ("critical", "expression: found the end, wanted a comparison such as >"),
        ("critical > ", "expression: found the end, wanted a number"),
        ("critical > major", "expression: found major, wanted a number"),
        ("0 < critical", "expression: found 0, wanted one of critical"),
        ("critical > 0 demerits > 1", "expression: found demerits, wanted and, or, or the end"),
        ("(critical > 0", "expression: found the end, wanted )"),
        ("critical > 0)", "expression: found ), wanted and, or, or the end"),
        ("critical ( 0", "expression: found (, wanted a comparison such as >"),
        ("critical > 0; import os", "expression: found ; import os, wanted a name"),
        ("__import__('os').system('true')", "expression: found 'os'"),
        ("critical.real > 0", "expression: found .real > 0, wanted"),
        ("and > 0", "expression: found and, wanted one of critical"),
        ("not " * (DEEPEST + 2) + "critical > 0", "expression: found too many parentheses"),
        ("(" * (DEEPEST + 2) + "critical > 0", "expression: found too many parentheses"),
        ("critical > " + "9" * LONGEST, f"expression: found {LONGEST + 11} characters"),
    ],
)
def test_everything_else_is_refused(source: str, message: str) -> None:
    with pytest.raises(RecipeError, match="expression") as error:
        parse(source, NAMES)
    assert str(error.value).startswith(message)


def test_a_long_chain_is_no_deep_one() -> None:
    source = " or ".join(["critical > 0"] * 100)
    assert parse(source, NAMES).holds(VALUES)


def test_a_number_that_is_too_large_is_refused() -> None:
    with pytest.raises(RecipeError, match="found 1e999, wanted a finite number"):
        parse("critical > 1e999", NAMES)
