"""The HTML report in a real browser: it fits, loads nothing and complains about nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Playwright, sync_playwright

from fleetscan.reports.html import render_html
from tests.browser.browser import BrowserError, Page, chromium, processes_of
from tests.reports.report_fleet import GENERATED, Fleet, rich_fleet, small_fleet

Scheme = Literal["light", "dark"]

# Elements that stick out of the window and do not lie in a box that scrolls by itself.
_STICKING_OUT = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  if (box.width < 2 || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let up = element; up !== document.body; up = up.parentElement)
    if (getComputedStyle(up).overflowX !== "visible") return false;
  return true;
}).map(element => element.outerHTML.slice(0, 200))
"""
_OPEN_ALL = "document.querySelectorAll('details').forEach(item => { item.open = true })"
_WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def write(folder: Path, name: str, fleet: Fleet, *, checked: bool = True) -> Path:
    results = fleet.results_table() if checked else None
    pieces = render_html(fleet.connect(), results, rules=fleet.rules, generated=GENERATED)
    file = folder / f"{name}.html"
    file.write_text("".join(pieces), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        "rich": write(folder, "rich", rich_fleet()),
        "small": write(folder, "small", small_fleet()),
        "unchecked": write(folder, "unchecked", small_fleet(), checked=False),
        "empty": write(folder, "empty", Fleet(), checked=False),
    }


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def page(playwright: Playwright) -> Iterator[Page]:
    with chromium(playwright) as opened:
        yield opened


@pytest.mark.parametrize("name", ["rich", "small", "unchecked", "empty"])
@pytest.mark.parametrize("width", [1280, 760, 400, 320])
def test_page_never_scrolls_sideways(
    page: Page, files: dict[str, Path], name: str, width: int
) -> None:
    page.show(files[name], width)
    page.evaluate(_OPEN_ALL)
    content, window = page.evaluate(_WIDTHS)
    assert content == window
    assert page.evaluate(_STICKING_OUT) == []


def test_page_requests_nothing_and_complains_about_nothing(
    page: Page, files: dict[str, Path]
) -> None:
    page.requests.clear()
    page.complaints.clear()
    page.show(files["rich"], 1280)
    outward = [url[:200] for url in page.requests if not url.startswith("data:image/svg+xml;")]
    assert outward == [files["rich"].as_uri()]
    assert page.complaints == []


def test_the_watch_would_notice_a_request_and_a_violated_policy(
    page: Page, files: dict[str, Path]
) -> None:
    page.show(files["empty"], 1280)
    page.complaints.clear()
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'}))")
    page.evaluate("new Promise(done => setTimeout(done, 200))")
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


@pytest.mark.parametrize(("width", "drawn"), [(1280, 520), (400, 320)])
def test_charts_are_drawn_in_the_variant_for_the_window(
    page: Page, files: dict[str, Path], width: int, drawn: int
) -> None:
    page.show(files["rich"], width)
    widths = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert widths == [drawn] * 4


def test_charts_follow_the_colour_scheme(page: Page, files: dict[str, Path]) -> None:
    shown = {}
    schemes: tuple[Scheme, ...] = ("light", "dark")
    for scheme in schemes:
        page.show(files["rich"], 1280, scheme)
        shown[scheme] = page.evaluate(
            "[document.images[0].currentSrc, getComputedStyle(document.body).backgroundColor]"
        )
    assert shown["light"][0] != shown["dark"][0]
    assert shown["light"][1] == "rgb(245, 247, 249)"
    assert shown["dark"][1] == "rgb(16, 21, 27)"


def test_hostile_strings_ran_nothing_and_made_no_element(
    page: Page, files: dict[str, Path]
) -> None:
    page.show(files["rich"], 1280)
    counts = page.evaluate(
        "['script', 'img:not(picture img)', 'b b'].map(s => document.querySelectorAll(s).length)"
    )
    assert counts == [0, 0, 0]


def test_rules_open_from_the_keyboard(page: Page, files: dict[str, Path]) -> None:
    page.show(files["small"], 1280)
    page.evaluate("document.querySelector('.rule > summary').focus()")
    page.driven.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('.rule').open") is True


def test_paper_shows_what_is_folded_on_screen(page: Page, files: dict[str, Path]) -> None:
    page.show(files["small"], 1280)
    visible = "document.querySelector('.rule .examples').checkVisibility()"
    assert page.evaluate(visible) is False
    page.driven.emulate_media(media="print")
    assert page.evaluate(visible) is True
    page.driven.emulate_media(media="null")


@pytest.mark.parametrize("width", [718, 1000])  # A4 with 1 cm margins, upright and across
def test_paper_cuts_nothing_off(page: Page, files: dict[str, Path], width: int) -> None:
    page.show(files["rich"], width)
    page.driven.emulate_media(media="print")
    content, window = page.evaluate(_WIDTHS)
    page.driven.emulate_media(media="null")
    assert content == window


def test_no_process_outlives_its_browser(playwright: Playwright) -> None:
    with chromium(playwright) as opened:
        version = opened.evaluate("navigator.userAgent")
        profile = opened.profile
        assert processes_of(profile)
    assert "Chrome" in version
    assert processes_of(profile) == []
    assert not Path(profile).exists()


def test_a_missing_browser_is_an_error_that_names_the_package(
    playwright: Playwright, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BrowserError, match="apt-get install chromium"), chromium(playwright):
        pass
