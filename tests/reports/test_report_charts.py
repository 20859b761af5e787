from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest

from fleetscan.reports.charts import THEMES

CSS = (Path(__file__).parents[2] / "reports/templates/report.css").read_text()
_LIGHT, _, _DARK_ON = CSS.partition("@media (prefers-color-scheme: dark)")
PALETTES = {"light": _LIGHT, "dark": _DARK_ON.partition("* { box-sizing")[0]}


def palette(scheme: str) -> dict[str, str]:
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", PALETTES["light"]))
    found.update(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", PALETTES[scheme]))
    return found


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


TEXT_PAIRS = [
    *itertools.product(("text", "muted", "link"), ("page", "surface", "sunken")),
    *((f"{name}-text", f"{name}-tint") for name in ("good", "bad", "unsure", "neutral")),
    ("unsure-text", "surface"),
    *(("badge", name) for name in ("critical", "high", "medium", "low", "info")),
    *((name, "surface") for name in ("critical", "high", "medium", "low")),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), TEXT_PAIRS)
def test_text_has_the_contrast_that_wcag_aa_asks_for(scheme: str, front: str, back: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[front], colours[back]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["good", "bad", "unsure", "neutral", "plain"])
def test_bars_have_the_contrast_that_wcag_aa_asks_for(scheme: str, name: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[name], colours["surface"]) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_have_the_colours_of_the_page(scheme: str) -> None:
    colours = palette(scheme)
    theme = THEMES[scheme]
    for name in ("text", "track", "good", "bad", "unsure", "neutral", "plain"):
        assert getattr(theme, name) == colours[name]
