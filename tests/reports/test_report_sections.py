"""A section that cannot be computed costs itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.reports import charts, fact_sections, report_process, result_sections
from fleetscan.reports.html import render_html
from fleetscan.reports.json_report import render_json
from fleetscan.reports.report_process import WantedReport, write_report
from fleetscan.reports.sections import SectionLostError, Sections
from tests.reports.report_fleet import GENERATED, small_fleet

WANTED = WantedReport(Path("facts"), "run", "html", GENERATED)


def fail(*_: Any) -> Any:
    raise duckdb.OutOfRangeException("Out of Range Error: <b>Overflow</b>\n\nLINE 1")


def html() -> str:
    fleet = small_fleet()
    results = fleet.results_table()
    return "".join(render_html(fleet.connect(), results, rules=fleet.rules, generated=GENERATED))


@pytest.mark.parametrize(
    ("module", "name", "section"),
    [
        (fact_sections, "filesystem_totals", "filesystems"),
        (fact_sections, "filesystems", "filesystems"),
        (fact_sections, "machines", "machines"),
        (fact_sections, "systems", "systems"),
        (fact_sections, "package_managers", "packages"),
        (fact_sections, "package_spread", "packages"),
        (fact_sections, "coverage_errors", "tables"),
        (fact_sections, "device_errors", "devices"),
        (fact_sections, "failed_machines", "failures"),
        (result_sections, "rules", "rules"),
        (result_sections, "waivers", "waivers"),
        (charts, "_systems", "chart of systems"),
        (charts, "_outcomes", "chart of outcomes"),
    ],
)
def test_the_page_says_which_section_and_why(
    module: Any, name: str, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "_data_uri", lambda _: "data:,")  # drawing takes seconds
    monkeypatch.setattr(module, name, fail)

    page = html()

    assert f"Could not be computed: {section} (<bdi>Out of Range Error: &lt;b&gt;" in page
    assert page.count("<section id=") == 7
    assert page.rstrip().endswith("</html>")


def test_json_has_null_where_a_number_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_sections, "filesystem_totals", fail)
    fleet = small_fleet()
    pieces = render_json(fleet.connect(), fleet.results_table(), generated=GENERATED)

    report = json.loads("".join(pieces))

    assert report["filesystems"] is None
    assert report["summary"]["filesystems"] is None
    assert list(report["problems"]) == ["filesystems"]
    assert len(report["machines"]) == 4


def test_rows_that_break_off_lose_their_array(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = small_fleet()
    monkeypatch.setattr("fleetscan.reports.json_report.from_epoch", fail)
    with pytest.raises(SectionLostError) as caught:
        "".join(render_json(fleet.connect(), fleet.results_table(), generated=GENERATED))
    assert caught.value.section == "machines"

    sections = Sections({"machines": caught.value.reason})
    pieces = render_json(
        fleet.connect(), fleet.results_table(), generated=GENERATED, sections=sections
    )

    report = json.loads("".join(pieces))
    assert report["machines"] is None
    assert len(report["results"]) == len(fleet.results)


def test_a_process_that_dies_is_replaced_without_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    def attempt(wanted: WantedReport, path: Path, lost: dict[str, str]) -> tuple[str, str]:
        asked.append(dict(lost))
        return next(((name, "died") for name in ("rules", "systems") if name not in lost), ("", ""))

    monkeypatch.setattr(report_process, "_attempt", attempt)

    assert write_report(WANTED, tmp_path) == {"rules": "died", "systems": "died"}
    assert asked == [{}, {"rules": "died"}, {"rules": "died", "systems": "died"}]


def test_a_report_that_cannot_do_without_a_section_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_process, "_attempt", lambda *_: ("rules", "died"))

    with pytest.raises(FleetscanError, match="cannot be made: died"):
        write_report(WANTED, tmp_path)
