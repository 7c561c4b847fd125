"""Plots as SVG text: Vega-Lite drawn by vl-convert, without a browser.

A plot takes the numbers it draws, already binned and summarised, so that the
table beside it and the plot cannot differ. The colours are tokens which the page
replaces by its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import vl_convert

from domainseg.quality.statistics import Quartiles
from domainseg.report.visible import shortened, visible

INK = "#101112"
MUTED = "#606162"
RULE = "#d0d1d2"
ACCENT = "#1b6f7a"
GOOD, BAD, WARN, IDLE = "#1f6b3b", "#a3201e", "#8a4301", "#c9cfce"
"""What passes, what fails, what is in between, and what nothing is said of."""
SERIES = ("#1b6f7b", "#b4530a", "#6b4fa0", "#3b7d23", "#a3245b", "#5b6470")
"""Colours of several lines; more lines than colours start again with dashes."""

_WIDTH = 500
_MAP = 560
_VEGA_LITE = "6.1"
_LABEL = 44


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of one class between shared edges, with its quartiles."""

    name: str
    counts: tuple[int, ...]
    summary: Quartiles


@dataclass(frozen=True, slots=True)
class Line:
    """One named series of y over the shared x; None where y is not known."""

    name: str
    y: tuple[float | None, ...]


def size_histograms(
    edges: Sequence[float],
    histograms: Sequence[Histogram],
    *,
    title: str,
    limit: float | None = None,
) -> str:
    """Return one histogram per class, one below the other, on one shared log axis.

    A line above the bars spans the middle half of the objects, a tick on it
    marks the median; an upright line stands at ``limit`` where it lies on the axis.
    """
    ticks = log_ticks(edges[0], edges[-1])
    if limit is not None and not edges[0] <= limit <= edges[-1]:
        limit = None
    panels = [
        _histogram(
            edges, one, ticks=ticks, title=title if one is histograms[-1] else "", limit=limit
        )
        for one in histograms
    ]
    return _drawn(alt.vconcat(*panels, spacing=14))


def lines(x: Sequence[float], series: Sequence[Line], *, x_title: str, y_title: str) -> str:
    """Return lines over ``x`` with y from 0 to 1 and a legend at the top."""
    rows = [
        {"x": at, "y": value, "name": _name(line.name)}
        for line in series
        for at, value in zip(x, line.y, strict=True)
        if value is not None
    ]
    names = [_name(line.name) for line in series]
    colour = alt.Color("name:N").scale(
        domain=names, range=[SERIES[i % len(SERIES)] for i in range(len(names))]
    )
    dash = alt.StrokeDash("name:N", legend=None).scale(
        domain=names, range=[[1, 0] if i < len(SERIES) else [5, 3] for i in range(len(names))]
    )
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point={"size": 34, "filled": True}, strokeWidth=2)
        .encode(
            x=alt.X("x:Q").title(x_title).scale(zero=False, nice=False).axis(values=list(x)),
            y=alt.Y("y:Q").title(y_title).scale(domain=[0, 1]).axis(tickCount=5, format=".1f"),
            color=colour.legend(
                orient="top", title=None, symbolType="stroke", columns=4, columnPadding=18
            ),
            strokeDash=dash,
        )
        .properties(width=_WIDTH, height=220)
    )
    return _drawn(chart)


@dataclass(frozen=True, slots=True)
class Spot:
    """A stretch of a map: ``x0, y0, x1, y1`` with y up, its colour and how opaque that is."""

    box: tuple[float, float, float, float]
    colour: str
    opacity: float = 0.55


def wafer_map(
    spots: Sequence[Spot],
    dots: Sequence[tuple[float, float, str]],
    *,
    radius: float | None,
    notch: str = "down",
) -> str:
    """Return a map of dies with defects as dots ``(x, y, colour)``, y up, in one scale.

    With a ``radius`` the wafer's rim is drawn around the origin, with its notch.
    """
    points = [(x, y) for s in spots for x, y in (s.box[:2], s.box[2:])]
    points += [(x, y) for x, y, _ in dots]
    reach = [abs(v) for point in points for v in point]
    if radius is None:
        low = [min((p[i] for p in points), default=0.0) for i in (0, 1)]
        high = [max((p[i] for p in points), default=1.0) for i in (0, 1)]
    else:
        side = max([radius, *reach]) * 1.02
        low, high = [-side, -side], [side, side]
    span = max(high[0] - low[0], high[1] - low[1]) or 1.0
    scale = _MAP / span

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - low[0]) * scale, (high[1] - y) * scale

    width, height = ((b - a) * scale for a, b in zip(low, high, strict=True))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}" height="{height:.1f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}">'
    ]
    if radius is not None:
        x, y = at(0.0, 0.0)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius * scale:.1f}" fill="none" '
            f'stroke="{MUTED}" stroke-width="1.5"/>'
        )
        parts.append(_notch(at, radius, notch))
    for spot in spots:
        x, y = at(spot.box[0], spot.box[3])
        wide, tall = (max((spot.box[i + 2] - spot.box[i]) * scale, 0.2) for i in (0, 1))
        gap = 0.6 if tall > 3 else 0.0
        parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(wide - gap, 0.2):.2f}" '
            f'height="{max(tall - gap, 0.2):.2f}" fill="{spot.colour}" '
            f'fill-opacity="{spot.opacity:.2g}"/>'
        )
    for x, y, colour in dots:
        x, y = at(x, y)
        parts.append(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="2" fill="{colour}"/>')
    return "".join([*parts, "</svg>"])


def _notch(at: Callable[[float, float], tuple[float, float]], radius: float, notch: str) -> str:
    """Return a small triangle that points at the wafer's centre."""
    x, y = {"down": (0, -1), "left": (-1, 0), "up": (0, 1), "right": (1, 0)}[notch]
    tip, base, half = 0.955 * radius, radius, 0.02 * radius
    corners = [
        at(x * tip, y * tip),
        at(x * base - y * half, y * base + x * half),
        at(x * base + y * half, y * base - x * half),
    ]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon points="{points}" fill="{MUTED}"/>'


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a ranking: name, height, and the share of all that it and those above hold."""

    name: str
    value: float
    cumulative: float


def pareto(bars: Sequence[Bar], *, title: str) -> str:
    """Return bars that fall from the top down, each with the cumulative share beside it."""
    rows = [
        {
            "order": i,
            "name": _name(one.name),
            "value": one.value,
            "share": f"{100 * one.cumulative:.0f} %",
        }
        for i, one in enumerate(bars)
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("order:O").axis(None),
        x=alt.X("value:Q").title(title).axis(tickCount=5, format="~s"),
    )
    names = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_text(align="right", dx=-6, fontSize=12, color=INK)
        .encode(y=alt.Y("order:O").axis(None), x=alt.value(0), text="name:N")
    )
    shares = base.mark_text(align="left", dx=5, fontSize=12, color=MUTED).encode(text="share:N")
    chart = alt.layer(base.mark_bar(color=ACCENT, opacity=0.85), shares, names)
    # Room for names that a browser draws wider than they were measured.
    room = {"left": 5 + max((len(_name(one.name)) for one in bars), default=0), "right": 12}
    sized = chart.properties(width=_WIDTH - 150, height=24 * max(1, len(rows)), padding=room)
    return _drawn(sized)


def severities(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> str:
    """Return a histogram of severity from 0 to 100, stacked by grade, the worst at the bottom."""
    colours = {"critical": BAD, "major": WARN, "minor": ACCENT, "review": MUTED, "ignore": IDLE}
    rows = [
        {"low": low, "high": high, "start": start, "end": start + count, "grade": grade}
        for low, high, stack in zip(
            edges[:-1], edges[1:], zip(*counts.values(), strict=True), strict=True
        )
        for grade, count, start in zip(counts, stack, _starts(stack), strict=True)
        if count
    ]
    present = [grade for grade, values in counts.items() if any(values)]
    colour = alt.Color("grade:N").scale(domain=present, range=[colours[g] for g in present])
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(opacity=0.85)
        .encode(
            x=alt.X("low:Q").scale(domain=[0, 100]).title("severity"),
            x2="high:Q",
            y=alt.Y("start:Q").title("defects").axis(tickCount=4, format="~s"),
            y2="end:Q",
            color=colour.legend(orient="top", title=None, symbolType="square"),
        )
        .properties(width=_WIDTH, height=180)
    )
    return _drawn(chart)


def _starts(stack: Sequence[int]) -> list[int]:
    return [sum(stack[:i]) for i in range(len(stack))]


def log_edges(low: float, high: float) -> list[float]:
    """Return edges of equal ratio that cover ``[low, high]``, at most 41, on a fixed grid.

    The grid is ``10 ** (k / n)`` with n of 40, 20, 10, 5 or 1 a decade, so that two
    reports of like sizes have bins in common.

    Raises:
        ValueError: unless ``0 < low <= high < inf``.
    """
    if not 0 < low <= high < math.inf:
        raise ValueError(f"no logarithmic bins cover {low} to {high}")
    for per_decade in (40, 20, 10, 5, 1):
        first = math.floor(math.log10(low) * per_decade)
        last = max(math.floor(math.log10(high) * per_decade) + 1, first + 1)
        if last - first <= 40:
            break
    return [10 ** (k / per_decade) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten inside ``[low, high]``; only powers when many."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    factors: tuple[int, ...] = (1, 2, 5) if math.log10(high / low) <= 4 else (1,)
    ticks = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _histogram(
    edges: Sequence[float],
    one: Histogram,
    *,
    ticks: Sequence[float],
    title: str,
    limit: float | None,
) -> alt.LayerChart | alt.FacetChart:
    bars = [
        {"low": low, "high": high, "count": count}
        for low, high, count in zip(edges[:-1], edges[1:], one.counts, strict=True)
        if count
    ]
    top = max(one.counts)
    x = (
        alt.X("low:Q")
        .scale(type="log", domain=[edges[0], edges[-1]], nice=False)
        .axis(values=list(ticks), format="~g", grid=False, labels=bool(title), title=title or None)
    )
    # Head-room of a sixth keeps the quartile line clear of the highest bar.
    y = (
        alt.Y("count:Q")
        .scale(domain=[0, top * 1.16])
        .axis(tickCount=3, tickMinStep=1, format="~s", title=None)
    )
    summary = alt.InlineData(
        values=[
            {
                "low": one.summary.q1,
                "high": one.summary.q3,
                "median": one.summary.median,
                "count": top * 1.09,
            }
        ]
    )
    lines = () if limit is None else (_upright(limit),)
    layers = (
        *lines,
        alt.Chart(alt.InlineData(values=bars))
        .mark_bar(color=ACCENT, opacity=0.85)
        .encode(x=x, x2="high:Q", y=y, y2=alt.Y2(datum=0)),
        alt.Chart(summary)
        .mark_rule(color=INK, strokeWidth=2.5, strokeCap="round")
        .encode(x="low:Q", x2="high:Q", y="count:Q"),
        alt.Chart(summary)
        .mark_tick(color=INK, thickness=2.5, size=15, orient="vertical")
        .encode(x="median:Q", y="count:Q"),
    )
    heading = alt.Title(_name(one.name), anchor="start", frame="group", offset=6)
    return alt.layer(*layers).properties(width=_WIDTH, height=110, title=heading)


def _upright(at: float) -> alt.Chart:
    data = alt.InlineData(values=[{"limit": at}])
    rule = alt.Chart(data).mark_rule(color=BAD, strokeWidth=1.5, strokeDash=[4, 3])
    drawn: alt.Chart = rule.encode(x="limit:Q")
    return drawn


def _name(name: str) -> str:
    return shortened(visible(name), _LABEL)


def _drawn(chart: alt.VConcatChart | alt.Chart | alt.LayerChart | alt.FacetChart) -> str:
    """Return the SVG of a chart in the report's plain theme."""
    axis = alt.AxisConfig(
        labelColor=MUTED,
        titleColor=MUTED,
        titleFontWeight="normal",
        titleFontSize=12,
        labelFontSize=12,
        domainColor=RULE,
        tickColor=RULE,
        gridColor=RULE,
        gridOpacity=0.7,
        titlePadding=8,
    )
    themed = chart.configure(
        axis=axis,
        aria=False,
        background="transparent",
        view=alt.ViewConfig(stroke="transparent"),
        title=alt.TitleConfig(color=INK, fontSize=13, fontWeight=600),
        legend=alt.LegendConfig(labelColor=INK, labelFontSize=12, labelLimit=260),
    )
    svg: str = vl_convert.vegalite_to_svg(json.dumps(themed.to_dict()), vl_version=_VEGA_LITE)
    return svg
