"""The report's blocks, renderers, drawings and text, on hand-made input."""

import base64
import hashlib
import json as stdlib_json
import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.instances.matching import tally
from domainseg.instances.overlaps import overlap_maps
from domainseg.instances.overlay import overlay
from domainseg.quality.statistics import Interval, Quartiles
from domainseg.report import html, json, plots, text
from domainseg.report.crops import (
    PREDICTION,
    TRUTH,
    Comparison,
    draw_mistake,
    draw_whole,
    outline,
    window_around,
    without_outlines,
)
from domainseg.report.document import (
    COUNT,
    MEASURE,
    RATIO,
    TEXT,
    Banner,
    Callout,
    Column,
    Document,
    Fact,
    Facts,
    Figure,
    Form,
    Formula,
    Formulas,
    Gallery,
    KeyNumber,
    KeyNumbers,
    Paragraph,
    Picture,
    Section,
    Subheading,
    Table,
    Value,
)
from domainseg.report.mistakes import Mistake, find_mistakes, instructive
from domainseg.report.numbers import written
from domainseg.report.pictures import Shot, encode_within, shrink
from domainseg.report.sections.pictures import evenly_spaced
from domainseg.report.svg import inline_svg
from domainseg.report.visible import shortened, visible

HOSTILE = "<script>alert('1')</script>\"&\x00\u202e{{ 7 * 7 }}\nx\ud800" + "y" * 10_000
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{}</svg>'


def document(*blocks: object, title: str = "a title") -> Document:
    section = Section("part", "Part", blocks)  # type: ignore[arg-type]
    return Document(title, "a subtitle", (section,), "domainseg 0.0", "a footer")


def every_block(name: str) -> Document:
    """One block of each sort, with ``name`` wherever text from data can stand."""
    table = Table("t", name, (Column("k", name), Column("n", "n", COUNT)), ((name, 1), ("b", None)))
    picture = Picture(b"\x89PNG", "image/png", 3, 2, name, name, name)
    return document(
        Paragraph(name),
        Subheading(name),
        Callout("warning", name, (name,)),
        Banner("FAIL", name, (name, "a line")),
        KeyNumbers("k", (KeyNumber("x", name, 1.5, MEASURE, name, Interval(1, 2), name),)),
        table,
        Figure("f", SVG.format("<text>a</text>"), name, name, None),
        Gallery("g", (picture,), "small", name, ((name, "#112233"),)),
        Formulas("o", (Formula(name, name, name),)),
        Facts("p", name, (Fact("a", name, name), Fact("b", name, name, literal=True)), folded=True),
        title=name,
    )


class Page(HTMLParser):
    """What a browser would make of a page: elements in order, and all text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (None, COUNT, "\u2013"),
        (float("nan"), RATIO, "\u2013"),
        (float("inf"), MEASURE, "∞"),
        (-float("inf"), MEASURE, "\u2212∞"),
        (1234567, COUNT, "1,234,567"),
        (0.5, RATIO, "0.500"),
        (-0.00001, RATIO, "0.000"),
        (-1.5, RATIO, "\u22121.500"),
        (0, MEASURE, "0"),
        (9.995, MEASURE, "9.99"),
        (9.9951, MEASURE, "10.0"),
        (1234.5, MEASURE, "1,230"),
        (999_500.0, MEASURE, "1.00 \u00d7 10⁶"),
        (0.00123, MEASURE, "0.00123"),
        (0.000123, MEASURE, "1.23 \u00d7 10⁻⁴"),
        (-25.0, Form("significant", 2), "\u221225"),
        (Interval(1.0, 2.5), MEASURE, "1.00 to 2.50"),
        (True, TEXT, "yes"),
        (3e-4, TEXT, "0.0003"),
        ("as it is", COUNT, "as it is"),
    ],
)
def test_numbers_are_written(value: Value, form: Form, expected: str) -> None:
    assert written(value, form) == expected


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_significant_digits_lose_at_most_half_of_the_last(value: float) -> None:
    shown = written(value, MEASURE).replace(",", "")
    plain = shown.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace(" \u00d7 10", "e")
    assert float(plain) == pytest.approx(value, rel=0.005001)


def test_control_and_direction_characters_are_shown() -> None:
    assert (
        visible("a\x00b\n\x7f\u202e\u2066\ud800\ufffe") == "a␀b␊␡⟨U+202E⟩⟨U+2066⟩⟨U+D800⟩⟨U+FFFE⟩"
    )
    assert visible("Zelle µm² שלום 细胞") == "Zelle µm² שלום 细胞"
    assert visible("क्\u200dष") == "क्\u200dष"


@given(st.text(st.characters(), max_size=50))
def test_what_is_visible_stays_and_can_be_encoded(raw: str) -> None:
    shown = visible(raw)
    shown.encode()
    assert visible(shown) == shown
    assert not any(ord(character) < 32 for character in shown)


@given(st.text(max_size=200), st.integers(5, 100))
def test_shortened_text_keeps_both_ends(raw: str, limit: int) -> None:
    short = shortened(raw, limit)
    assert len(short) <= limit
    if len(raw) > limit:
        head, tail = short.split("\u2026", 1) if "\u2026" not in raw else (short[:1], short[-1:])
        assert raw.startswith(head)
        assert raw.endswith(tail)


def test_hostile_text_is_text_on_the_page() -> None:
    page = Page(html.render(every_block(HOSTILE)))
    assert not page.named("script")
    words = "".join(page.words)
    assert "<script>alert('1')</script>\"&␀⟨U+202E⟩{{ 7 * 7 }}␊x⟨U+D800⟩" in words
    assert page.named("img")[0]["alt"] == visible(HOSTILE)
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_json_keeps_to_its_published_schema() -> None:
    schema = stdlib_json.loads(
        resources.files("domainseg.report").joinpath("report.schema.json").read_text("utf-8")
    )
    made = stdlib_json.loads(json.render(every_block("a name")))
    jsonschema.validate(made, schema)
    assert {
        kind["properties"]["type"].get("const") or tuple(kind["properties"]["type"]["enum"])
        for kind in schema["$defs"]["block"]["oneOf"]
        if "properties" in kind
    } >= {block["type"] for block in made["sections"][0]["blocks"]} - {
        "table", "paragraph", "subheading", "note", "warning"
    }  # fmt: skip
    made["sections"][0]["blocks"][0]["more"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema)


def test_hostile_text_is_text_in_json_and_plain_text() -> None:
    content = stdlib_json.loads(json.render(every_block(HOSTILE)))
    assert content["sections"][0]["blocks"][0]["text"] == HOSTILE.replace("\ud800", "\ufffd")
    rendered = text.render(every_block(HOSTILE))
    rendered.encode()
    assert "\x00" not in rendered
    assert "\u202e" not in rendered


def test_page_fetches_nothing_and_runs_nothing() -> None:
    source = html.render(every_block("name"))
    page = Page(source)
    for tag in ("script", "link", "iframe", "object", "embed", "form", "base"):
        assert not page.named(tag)
    for _, attributes in page.elements:
        assert "style" not in attributes
        for key in ("src", "href", "action", "srcset"):
            address = attributes.get(key)
            assert address is None or address.startswith(("#", "data:image/"))
    assert "url(" not in source
    assert "@import" not in source


def test_content_policy_names_the_style_sheet_as_it_stands_in_the_page() -> None:
    source = html.render(every_block("name"))
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    policy = [meta for meta in Page(source).named("meta") if "http-equiv" in meta]
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[0]["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_page_is_structured_for_readers_who_cannot_see_it() -> None:
    page = Page(html.render(every_block("name")))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(cell.get("scope") in ("col", "row") for cell in page.named("th"))
    assert all(image["alt"] for image in page.named("img"))
    assert page.named("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.named("a")]
    assert {str(link)[1:] for link in links} <= set(ids)


def test_equal_documents_give_equal_bytes() -> None:
    for renderer in (html.render, json.render, text.render):
        assert renderer(every_block("a")) == renderer(every_block("a"))


def test_page_says_how_many_rows_it_leaves_to_the_json() -> None:
    table = Table("t", "c", (Column("k", "k"),), tuple((f"row {i}",) for i in range(7)), shown=4)
    source = html.render(document(table))
    assert "row 3" in source
    assert "row 4" not in source
    assert "3 more rows are in report.json." in source
    assert (
        len(stdlib_json.loads(json.render(document(table)))["sections"][0]["blocks"][0]["rows"])
        == 7
    )


def test_json_holds_numbers_unrounded_and_null_for_what_is_none() -> None:
    columns = (Column("k", "k"), Column("a_um", "a", MEASURE, "µm"))
    rows = (
        ("x", 1 / 3),
        ("y", float("nan")),
        ("z", float("inf")),
        ("i", Interval(0.1, float("inf"))),
    )
    content = stdlib_json.loads(json.render(document(Table("t", "c", columns, rows))))
    assert content["schema"] == 1
    assert [row["a_um"] for row in content["sections"][0]["blocks"][0]["rows"]] == [
        1 / 3,
        None,
        None,
        {"low": 0.1, "high": None},
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="table t: 2 values in a row of 1 columns"):
        Table("t", "c", (Column("k", "k"),), (("a", "b"),))


def test_two_sections_of_one_id_are_refused() -> None:
    section = Section("a", "A", ())
    with pytest.raises(ValueError, match="two sections share an id"):
        Document("t", "s", (section, section), "g", "f")


def test_a_drawing_keeps_shapes_and_loses_everything_that_acts() -> None:
    inside = (
        '<script>x</script><a href="http://x"><path d="M0,0"/></a><image href="http://x"/>'
        '<g id="c" onload="x" style="fill:url(http://x)" clip-path="url(#c)" fill="#101112">'
        '<path d="M1,1h2" fill="url(http://x)" stroke="#ABCDEF"/><text>a&lt;b</text></g>'
    )
    got = inline_svg(
        SVG.format(inside), prefix="f", colours={"#101112": "var(--ink)", "#abcdef": "red"}
    )
    assert got == (
        '<svg width="9" height="9" aria-hidden="true" focusable="false">'
        '<g id="f-c" clip-path="url(#f-c)" fill="var(--ink)">'
        '<path d="M1,1h2" stroke="red" /><text>a&lt;b</text></g></svg>'
    )


@pytest.mark.parametrize(
    "broken",
    [
        "<svg",
        "<html/>",
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>',
    ],
)
def test_what_is_no_plain_drawing_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match=r"not an SVG document|document type"):
        inline_svg(broken, prefix="f", colours={})


@given(st.floats(1e-6, 1e9), st.floats(1, 1e9))
def test_log_bins_cover_the_values_with_equal_ratios(low: float, factor: float) -> None:
    high = low * factor
    edges = plots.log_edges(low, high)
    assert edges[0] <= low * (1 + 1e-12)
    assert edges[-1] > high * (1 - 1e-12)
    assert 2 <= len(edges) <= 41
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]), rtol=1e-6)


def test_log_bins_need_positive_values() -> None:
    with pytest.raises(ValueError, match="no logarithmic bins cover 0 to 1"):
        plots.log_edges(0, 1)


def test_log_ticks_are_one_two_and_five() -> None:
    assert plots.log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]
    assert plots.log_ticks(0.1, 2e4) == [0.1, 1, 10, 100, 1000, 10000]


def test_histogram_names_classes_as_text_and_draws_each_bin() -> None:
    histogram = plots.Histogram("<b>&\x00", (3, 0, 1), Quartiles(4, 1.0, 2.0, 5.0))
    svg = plots.size_histograms([1, 2, 4, 8], [histogram], title="size (µm)")
    clean = inline_svg(svg, prefix="f", colours={plots.ACCENT: "var(--accent)"})
    assert "&lt;b&gt;&amp;␀" in clean
    assert clean.count('fill="var(--accent)"') == 2
    assert "size (µm)" in clean


TRUE = np.array(
    [
        [1, 1, 0, 2, 2, 0, 0, 0],
        [1, 1, 0, 2, 2, 0, 3, 3],
        [0, 0, 0, 0, 0, 0, 3, 3],
        [4, 4, 4, 4, 0, 0, 3, 3],
        [4, 4, 4, 4, 0, 0, 3, 3],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [5, 5, 0, 0, 0, 0, 0, 0],
    ],
    np.uint16,
)
FOUND = np.array(
    [
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 6, 6],
        [0, 0, 0, 0, 0, 0, 6, 6],
        [7, 7, 7, 7, 0, 0, 8, 8],
        [7, 7, 7, 7, 0, 0, 8, 8],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 9, 9, 0],
    ],
    np.uint16,
)


def test_mistakes_of_a_hand_made_image() -> None:
    found = find_mistakes(overlap_maps(TRUE, FOUND), TRUE, FOUND)
    assert [(one.kind, one.truth, one.predicted, one.area_px) for one in found] == [
        ("merged", (1, 2), (1,), 10),
        ("split", (3,), (6, 8), 8),
        ("missed", (1,), (), 4),
        ("missed", (2,), (), 4),
        ("missed", (5,), (), 2),
        ("false", (), (1,), 10),
        ("false", (), (8,), 4),
        ("false", (), (9,), 2),
    ]
    assert found[0].box == ((0, 0), (2, 5))
    assert found[1].box == ((1, 6), (5, 8))


def test_instructive_mistakes_show_each_object_once_and_every_sort() -> None:
    found = find_mistakes(overlap_maps(TRUE, FOUND), TRUE, FOUND)
    chosen = instructive(found, limit=4)
    assert [(one.kind, one.truth, one.predicted) for one in chosen] == [
        ("merged", (1, 2), (1,)),
        ("split", (3,), (6, 8)),
        ("missed", (5,), ()),
        ("false", (), (9,)),
    ]
    assert instructive(found, limit=2) == chosen[:2]
    assert instructive([], limit=3) == []


@given(st.integers(0, 2**32 - 1))
def test_mistakes_are_as_many_as_the_scores_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = (
        np.kron(rng.integers(0, 5, (6, 6)), np.ones((2, 2), np.int64)) for _ in range(2)
    )
    overlaps = overlap_maps(truth, predicted)
    kinds = [one.kind for one in find_mistakes(overlaps, truth, predicted)]
    counted = tally(overlaps)
    assert kinds.count("missed") == counted.counts[0].missed
    assert kinds.count("false") == counted.counts[0].false
    assert kinds.count("merged") == counted.merged
    assert kinds.count("split") == counted.split


def test_outline_is_the_inner_edge_of_each_object() -> None:
    labels = np.array(
        [[0, 0, 0, 0, 0], [0, 3, 3, 3, 5], [0, 3, 3, 3, 5], [0, 3, 3, 3, 5]], np.uint8
    )
    expected = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(outline(labels, thickness=1), expected)
    np.testing.assert_array_equal(outline(labels, thickness=2), labels > 0)


@given(
    st.tuples(st.integers(0, 90), st.integers(0, 90)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_window_holds_the_box_and_lies_in_the_image(
    low: tuple[int, int], size: tuple[int, int], shape: tuple[int, int]
) -> None:
    start = tuple(min(a, n - 1) for a, n in zip(low, shape, strict=True))
    end = tuple(min(a + s, n) for a, s, n in zip(start, size, shape, strict=True))
    window = window_around(((start[0], start[1]), (end[0], end[1])), shape=shape)
    for axis in (0, 1):
        assert 0 <= window[0][axis] <= start[axis]
        assert end[axis] <= window[1][axis] <= shape[axis]


def test_a_crop_draws_truth_and_prediction_in_their_colours_on_grey() -> None:
    compared = Comparison(np.full(TRUE.shape, 94, np.uint8), TRUE, FOUND)
    found = find_mistakes(overlap_maps(TRUE, FOUND), TRUE, FOUND)
    for drawn in (draw_whole(compared), draw_mistake(compared, found[0])):
        assert drawn.shape == (280, 320, 3)
        colours = {tuple(rgb) for rgb in drawn.reshape(-1, 3).tolist()}
        assert {tuple(bytes.fromhex(colour[1:])) for colour in (TRUTH, PREDICTION)} <= colours
        assert (94, 94, 94) in colours


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_outlines_of_an_overlay_are_removed_again(factor: int) -> None:
    labels = np.zeros((60, 70), np.int32)
    labels[5:30, 5:40], labels[25:50, 45:65], labels[50:, :9] = 1, 2, 3
    flat = np.full((3, *labels.shape), 100, np.uint16)
    flat[:, 0, 0], flat[:, -1, -1] = 0, 200  # what the stretch makes black and white
    plain, drawn = (
        overlay(flat, shown, max_side=-(-70 // factor), percentiles=(0, 100))
        for shown in (np.zeros_like(labels), labels)
    )
    assert (plain != drawn).any()
    cleaned = without_outlines(drawn, labels, factor=factor)
    np.testing.assert_array_equal(cleaned[3:-3, 3:-3], plain[3:-3, 3:-3, 0])


def test_an_overlay_of_nothing_but_outlines_stays() -> None:
    picture = np.full((2, 2, 3), 7, np.uint8)
    np.testing.assert_array_equal(without_outlines(picture, np.ones((2, 2), int)), picture[:, :, 0])


def test_a_crop_of_a_smaller_picture_shows_the_same_place() -> None:
    ramp = np.arange(0, 240, 2).astype(np.uint8)
    grey = np.maximum(ramp[:, None], ramp[None])
    half = grey.reshape(60, 2, 60, 2).mean((1, 3)).astype(np.uint8)
    labels = np.zeros(grey.shape, np.int32)
    lower_right = Mistake("false", (), (1,), ((70, 80), (80, 90)), 100)
    whole = draw_mistake(Comparison(grey, labels, labels), lower_right).astype(int)
    small = draw_mistake(Comparison(half, labels, labels, 2), lower_right).astype(int)
    assert whole.min() > 100
    assert np.abs(whole - small).max() <= 4


def test_a_crop_draws_other_objects_fainter() -> None:
    picture = np.zeros(TRUE.shape, np.uint8)
    merged = find_mistakes(overlap_maps(TRUE, FOUND), TRUE, FOUND)[0]
    drawn = draw_mistake(Comparison(picture, TRUE, FOUND), merged)
    missed_elsewhere = drawn[-40:, :80].reshape(-1, 3).max(0)
    assert tuple(missed_elsewhere) == tuple(
        round(0.45 * value) for value in bytes.fromhex(TRUTH[1:])
    )


def test_pictures_shrink_until_they_fit_the_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 600, 3), np.uint8)
    shots = [Shot(noise, "alt", "title")] * 2
    free = encode_within(shots)
    assert (free[0].width, free[0].height, free[0].media) == (480, 720, "image/png")
    tight = encode_within(shots, budget=200_000)
    assert sum(len(one.data) for one in tight) <= 200_000
    assert tight[0].media == "image/webp"
    assert encode_within([]) == []
    assert shrink(noise).shape == (720, 480, 3)
    assert shrink(noise[:8, :9]).shape == (8, 9, 3)


def test_evenly_spaced_names_hold_the_first_and_the_last() -> None:
    names = [str(i) for i in range(10)]
    assert evenly_spaced(names, 4) == ["0", "3", "6", "9"]
    assert evenly_spaced(names, 10) == names
    assert evenly_spaced([], 4) == []


def test_a_tiny_picture_is_enlarged_in_squares_and_a_larger_one_is_smoothed() -> None:
    pictures = tuple(
        Picture(b"\x89PNG", "image/png", width, 9, "dies", str(width), "") for width in (128, 129)
    )
    source = html.render(document(Gallery("g", pictures)))
    shown = {one["width"]: one.get("class") for one in Page(source).named("img")}
    assert shown == {"128": "pixels", "129": None}
    assert "img.pixels { image-rendering: pixelated; }" in source
