"""The quality page in a real browser: no error, no request, rows that sort and filter."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domainseg.judge import judge

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
missing = [
    name
    for name, there in (
        ("playwright", importlib.util.find_spec("playwright") is not None),
        ("chromium", Path(CHROMIUM).is_file()),
    )
    if not there
]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

RULES = """schema: 1
units: um
classes: {scratch: {weight: 0.9, kill_prob: 0.5}, default: {ref_um: 10, kill_prob: 0.1}}
cluster: {eps_um: 500, min_samples: 3}
accept: [{id: density, metric: density_per_cm2, max: 10}]
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a wafer of 200 defects."""
    from test_judge import wafer_file

    folder = tmp_path_factory.mktemp("page")
    rules = folder / "rules.yaml"
    rules.write_text(RULES, encoding="utf-8")
    hostile = "<script>alert(1)</script>"
    source = wafer_file(folder, classes={1: "scratch", 2: hostile, 3: "stain"})
    judge([source], rules=rules, out=folder / "out", formats=["html"])
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser: Any, page: Path, **options: Any) -> tuple[Any, list[str]]:
    """Return the page, opened, and what went wrong or out so far."""
    tab = browser.new_page(**options)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
        ),
    )
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.goto(page.as_uri())
    return tab, said


@pytest.mark.parametrize("width", [1280, 768, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_goes_wrong_and_nothing_leaves(
    width: int, scheme: str, browser: Any, page: Path
) -> None:
    tab, said = opened(browser, page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert said == []
    # Nothing is wider than the window: tables scroll inside their own frame.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.emulate_media(media="print")
    assert tab.locator(".filter").first.is_hidden()
    assert said == []
    tab.close()


def test_rows_sort_by_number_and_filter_by_words(browser: Any, page: Path) -> None:
    tab, said = opened(browser, page, viewport={"width": 1280, "height": 800})
    rows = tab.locator("#worst tbody tr")
    count = rows.count()
    assert count > 50
    heads = tab.locator("#worst thead th").all_inner_texts()
    column = next(i for i, text in enumerate(heads) if text.startswith("Area"))
    head = tab.locator("#worst thead th").nth(column)

    def values() -> list[float]:
        found: list[float] = tab.evaluate(
            "c => [...document.querySelectorAll('#worst tbody tr')]"
            ".map(r => Number(r.cells[c].dataset.v))",
            column,
        )
        return found

    before = values()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    box = tab.get_by_label("Filter")
    box.fill("scratch critical")
    shown = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < count
    assert all("scratch" in row.inner_text() for row in shown)
    assert tab.locator("output").inner_text() == f"{len(shown)} of {count} rows"
    box.fill("")
    assert all(row.is_visible() for row in rows.all()[:20])
    assert said == []
    tab.close()


def test_without_scripts_the_page_says_the_same(browser: Any, page: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    text = tab.locator("main").inner_text()
    context.close()
    for words in ("FAIL", "Rules of acceptance", "The worst defects", "Yield", "<script>alert(1)"):
        assert words in text


def test_a_reader_that_does_not_see_finds_its_way(browser: Any, page: Path) -> None:
    tab, _ = opened(browser, page, viewport={"width": 1280, "height": 800})
    assert tab.locator("h1").count() == 1
    assert tab.locator("main h2").count() == tab.locator("nav a").count()
    assert tab.evaluate(
        "[...document.querySelectorAll('table')]"
        ".every(t => t.caption && t.querySelector('th[scope=col]'))"
    )
    assert tab.evaluate(
        "[...document.querySelectorAll('[role=img]')].every(f => f.getAttribute('aria-label'))"
    )
    tab.close()
