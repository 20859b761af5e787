"""Charts as static SVG, drawn by Vega-Altair and vl-convert while the report is made.

Each chart comes in four variants (light and dark, wide and narrow), each a ``data:`` URI for an
``<img>``: an image runs no script, loads nothing and cannot reach the page around it.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import vl_convert

from fleetscan.reports.contents import Report
from fleetscan.reports.sections import Sections
from fleetscan.reports.text import chart_text, count, percent
from fleetscan.scanner.tables.results.spec import UNDECIDED, ResultState

_SYSTEMS_SHOWN = 7
_FILESYSTEMS_SHOWN = 8
_FULL = 90.0  # per cent from which a filesystem is drawn as nearly full
_WIDTHS = {"wide": 520, "narrow": 320}
_LABEL_CHARACTERS = {"wide": 62, "narrow": 36}
_STEP = 40
_BAR = 10
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_PARTS = {
    "failed": (ResultState.FAIL,),
    "undecided": UNDECIDED,
    "waived": (ResultState.WAIVED,),
    "passed": (ResultState.PASS,),
}


@dataclass(frozen=True)
class Theme:
    """Colours of one colour scheme.

    Text has a contrast of 4.5:1 or more against its background, bars of 3:1 (WCAG 2.2 1.4.3,
    1.4.11).
    """

    text: str
    track: str
    good: str
    bad: str
    unsure: str
    neutral: str
    plain: str


THEMES = {
    "light": Theme(
        text="#1c2530",
        track="#e8ecf1",
        good="#1f8a70",
        bad="#c0362c",
        unsure="#b7791f",
        neutral="#76869a",
        plain="#3d6fb4",
    ),
    "dark": Theme(
        text="#e3e9f0",
        track="#2a333e",
        good="#3fb795",
        bad="#f0766a",
        unsure="#e0a94a",
        neutral="#8b9aad",
        plain="#7aa7e8",
    ),
}


@dataclass(frozen=True)
class Style:
    """One variant of a chart: colours, and the name of its width."""

    theme: Theme
    width: str


@dataclass(frozen=True)
class Bar:
    """One line of a chart.

    Attributes:
        label: what it represents; may come from a guest.
        text: its value in words.
        parts: lengths of its segments by name.
        colours: a colour of :class:`Theme` for each segment.
    """

    label: str
    text: str
    parts: Mapping[str, float]
    colours: Mapping[str, str]


@dataclass(frozen=True)
class Chart:
    """One chart, drawn.

    Attributes:
        name: identifier for the page.
        title: what it shows.
        description: its message in a sentence, for those who cannot see it; no guest's text.
        images: ``data:`` URI by colour scheme and width.
    """

    name: str
    title: str
    description: str
    images: Mapping[tuple[str, str], str]


def draw_charts(report: Report, sections: Sections | None = None) -> dict[str, Chart]:
    """All charts for which the report has numbers, by name; each is a section of its own."""
    sections = sections or Sections()
    charts: dict[str, Callable[[Report], Chart]] = {"outcomes": _outcomes}
    if report.tally.decided + report.tally.undecided:
        charts["severities"] = _severities
    if report.systems.rows:
        charts["systems"] = _systems
    if report.filesystems.rows:
        charts["filesystems"] = _filesystems
    drawn = {
        name: sections.get(f"chart of {name}", functools.partial(draw, report), None)
        for name, draw in charts.items()
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def _severities(report: Report) -> Chart:
    colours = {"failed": "bad", "undecided": "unsure", "waived": "neutral", "passed": "good"}
    bars = []
    summary = []
    for row in report.severities:
        numbers = {part: row.tally.of(states) for part, states in _PARTS.items()}
        whole = sum(numbers.values())
        if whole:
            shares = {part: 100 * number / whole for part, number in numbers.items()}
            text = f"{count(numbers['failed'])} failed of {count(whole)}"
            bars.append(Bar(row.severity, text, shares, colours))
            summary.append(
                f"{row.severity}: " + ", ".join(f"{n} {part}" for part, n in numbers.items())
            )
    return _chart("severities", "Checks by severity", "; ".join(summary), bars, 100)


def _outcomes(report: Report) -> Chart:
    machines = report.machines
    numbers = {
        "scanned in full": (machines.ok, "good"),
        "scanned in part": (machines.partial, "unsure"),
        "failed": (machines.failed, "bad"),
    }
    bars = [
        Bar(label, count(number), {"": number}, {"": colour})
        for label, (number, colour) in numbers.items()
    ]
    summary = ", ".join(f"{number} {label}" for label, (number, _) in numbers.items())
    return _chart("outcomes", "Machines by outcome", summary, bars, machines.total)


def _systems(report: Report) -> Chart:
    by_product: dict[str, int] = {}
    for row in report.systems.rows:
        by_product[row.product] = by_product.get(row.product, 0) + row.roots
    top = sorted(by_product.items(), key=lambda item: -item[1])[:_SYSTEMS_SHOWN]
    bars = [Bar(name, count(roots), {"": roots}, {"": "plain"}) for name, roots in top]
    others = report.machines.roots - sum(roots for _, roots in top)
    if others > 0:
        bars.append(Bar("others", count(others), {"": others}, {"": "neutral"}))
    summary = f"the {len(top)} most frequent; the table has all numbers"
    return _chart("systems", "Operating systems", summary, bars, max(bar.parts[""] for bar in bars))


def _filesystems(report: Report) -> Chart:
    top = report.filesystems.rows[:_FILESYSTEMS_SHOWN]
    bars = [
        Bar(
            f"{row.machine_id}  {(row.mountpoints or (row.device,))[0]}",
            percent(row.used, row.used + row.available),
            {"": row.percent},
            {"": "bad" if row.percent >= _FULL else "plain"},
        )
        for row in top
    ]
    summary = f"the {len(top)} fullest, from {top[-1].percent:.0f} to {top[0].percent:.0f} per cent"
    return _chart("filesystems", "Fullest filesystems", summary, bars, 100)


def _chart(name: str, title: str, summary: str, bars: Sequence[Bar], whole: float) -> Chart:
    images = {
        (scheme, width): _data_uri(_draw(bars, max(whole, 1), Style(theme, width)))
        for scheme, theme in THEMES.items()
        for width in _WIDTHS
    }
    return Chart(name, title, f"{title}: {summary}.", images)


def _draw(bars: Sequence[Bar], whole: float, style: Style) -> alt.LayerChart:
    """Lines of a name and a value above a segmented bar.

    Names stand above the bars because guests choose how long they are.
    """
    theme, width = style.theme, _WIDTHS[style.width]
    limit = _LABEL_CHARACTERS[style.width] - max(len(bar.text) for bar in bars)
    lines = [
        {"line": line, "label": chart_text(bar.label, limit), "text": bar.text, "whole": whole}
        for line, bar in enumerate(bars)
    ]
    segments = [
        {
            "line": line,
            "order": order,
            "part": part,
            "length": length,
            "colour": getattr(theme, bar.colours[part]),
        }
        for line, bar in enumerate(bars)
        for order, (part, length) in enumerate(bar.parts.items())
    ]
    y = alt.Y("line:O", axis=None)
    scale = alt.Scale(domain=[0, whole], nice=False)
    track = alt.Chart(alt.InlineData(values=lines)).mark_bar(
        size=_BAR, color=theme.track, cornerRadius=2
    )
    filled = alt.Chart(alt.InlineData(values=segments)).mark_bar(size=_BAR)
    words = alt.Chart(alt.InlineData(values=lines))
    layers = [
        track.encode(y=y, x=alt.X("whole:Q", scale=scale, axis=None)),
        filled.encode(
            y=y,
            x=alt.X("length:Q", scale=scale, axis=None, stack="zero"),
            color=alt.Color("colour:N", scale=None),
            order=alt.Order("order:Q"),
        ),
        words.mark_text(align="left", dy=-15, fontSize=13, color=theme.text).encode(
            y=y, x=alt.value(0), text="label:N"
        ),
        words.mark_text(
            align="right", dy=-15, fontSize=13, fontWeight=600, color=theme.text
        ).encode(y=y, x=alt.value(width), text="text:N"),
    ]
    return alt.LayerChart(layer=layers, width=width, height=_STEP * len(bars))


def _data_uri(chart: alt.LayerChart) -> str:
    configured = chart.configure(
        background="transparent",
        font=_FONT,
        view=alt.ViewConfig(stroke=None),
        padding={"left": 0, "right": 0, "top": 6, "bottom": 0},
    )
    svg = vl_convert.vegalite_to_svg(configured.to_dict())
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
