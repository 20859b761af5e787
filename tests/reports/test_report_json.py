from __future__ import annotations

import json
from typing import Any

import pytest

from fleetscan.reports.json_report import render_json
from tests.reports.report_fleet import (
    GENERATED,
    NASTY,
    RUN,
    Fleet,
    machine,
    rich_fleet,
    small_fleet,
)


def json_of(fleet: Fleet, *, checked: bool = True) -> str:
    results = fleet.results_table() if checked else None
    return "".join(render_json(fleet.connect(), results, rules=fleet.rules, generated=GENERATED))


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json_of(small_fleet()), parse_constant=refuse)
    return parsed


def test_top_level_keys_keep_their_order(small: dict[str, Any]) -> None:
    assert list(small) == [
        "schema_version",
        "generator",
        "title",
        "generated",
        "run",
        "summary",
        "problems",
        "rules",
        "results",
        "machines",
        "coverage",
        "left_out",
        "filesystems",
    ]
    assert small["schema_version"] == 1
    assert small["generated"] == "2026-03-01T06:30:00.000000Z"


def test_summary_has_the_share_passed_with_its_denominator(small: dict[str, Any]) -> None:
    checks = small["summary"]["checks"]
    assert checks["evaluated"] is True
    assert checks["passed_percent"] == pytest.approx(400 / 7)
    assert (checks["decided"], checks["undecided"], checks["total"]) == (7, 4, 12)
    assert checks["states"]["notselected"] == 0
    assert small["summary"]["machines"]["without_verdict"] == 1


def test_every_row_is_there_and_has_the_columns_of_its_table(small: dict[str, Any]) -> None:
    assert [len(small[name]) for name in ("rules", "results", "machines", "coverage")] == [
        4,
        12,
        4,
        6,
    ]
    failed = small["machines"][3]
    assert (failed["machine_id"], failed["stage"], failed["attempts"]) == ("d", "discover", 1)
    assert failed["started"] == "2026-03-01T02:00:00.000000Z"
    assert small["machines"][0]["failures"]["critical"] == 1
    assert small["machines"][0]["systems"] == ["Debian 12"]
    assert [row["status"] for row in small["coverage"]] == ["ok"] * 4 + ["failed", "ok"]
    assert small["filesystems"][0]["run_id"] == RUN


def test_images_that_are_no_machines_are_rows(small: dict[str, Any]) -> None:
    assert [row["machine_id"] for row in small["left_out"]] == ["a", "b", "d"]
    assert small["left_out"][0]["why"] == "base"


def test_evidence_is_objects(small: dict[str, Any]) -> None:
    (found,) = [row for row in small["results"] if row["evidence"]]
    assert found["evidence"][0]["path"] == "/etc/shadow"


def test_each_row_is_on_a_line_of_its_own() -> None:
    lines = json_of(small_fleet()).splitlines()
    start = lines.index('"machines": [')
    rows = [json.loads(line.removesuffix(",")) for line in lines[start + 1 : start + 5]]
    assert [row["machine_id"] for row in rows] == ["a", "b", "c", "d"]


def test_numbers_that_json_lacks_become_null() -> None:
    fleet = Fleet()
    machine(fleet, "x", seconds=float("nan"), seconds_collect=float("inf"))
    fleet.result("x", "r", "low", "fail", evidence=['{"a": NaN, "b": 1e999, "c": -Infinity}'])
    parsed = json.loads(json_of(fleet), parse_constant=refuse)
    assert parsed["machines"][0]["seconds"] is None
    assert parsed["machines"][0]["seconds_collect"] is None
    assert parsed["results"][0]["evidence"] == [{"a": None, "b": None, "c": None}]


def test_evidence_that_is_not_json_stays_text() -> None:
    fleet = Fleet()
    machine(fleet, "x")
    fleet.result("x", "r", "low", "fail", evidence=["{cut", "[" * 100_000])
    (row,) = json.loads(json_of(fleet))["results"]
    assert row["evidence"] == ["{cut", "[" * 100_000]


def test_hostile_text_is_ascii_on_the_way_and_whole_after_it() -> None:
    text = json_of(rich_fleet())
    assert text.isascii()
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    ids = {row["machine_id"] for row in json.loads(text)["machines"]}
    assert set(NASTY) <= ids


def test_a_run_without_results_is_the_same_document() -> None:
    parsed = json.loads(json_of(small_fleet(), checked=False))
    assert parsed["summary"]["checks"]["evaluated"] is False
    assert parsed["summary"]["checks"]["passed_percent"] is None
    assert (parsed["rules"], parsed["results"]) == ([], [])
    assert len(parsed["machines"]) == 4


def test_the_same_input_gives_the_same_bytes() -> None:
    assert json_of(rich_fleet(20)) == json_of(rich_fleet(20))
