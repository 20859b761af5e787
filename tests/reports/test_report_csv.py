from __future__ import annotations

import csv
import io

import pytest

from fleetscan.reports.formats import load_formats
from fleetscan.reports.report_format import CheckedRun, TextFormat
from fleetscan.reports.sections import SectionLostError, Sections
from fleetscan.rules.results import SCHEMA
from tests.reports.report_fleet import GENERATED, NASTY, Fleet, rich_fleet, small_fleet


def text_of(fleet: Fleet, *, checked: bool = True) -> str:
    form = load_formats()["csv"]
    assert isinstance(form, TextFormat)
    results = fleet.results_table() if checked else None
    asked = CheckedRun(fleet.connect(), results, (), "title", GENERATED, Sections())
    return "".join(form.pieces(asked))


def rows_of(fleet: Fleet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(fleet))))


def test_there_is_a_row_for_each_result_in_the_order_of_machines() -> None:
    fleet = small_fleet()
    rows = rows_of(fleet)
    assert list(rows[0]) == SCHEMA.names
    told = {(row["machine_id"], row["rule_id"], row["state"]) for row in rows}
    assert told == {(row["machine_id"], row["rule_id"], row["state"]) for row in fleet.results}
    assert len(rows) == len(fleet.results)
    assert [row["machine_id"] for row in rows] == sorted(row["machine_id"] for row in rows)


def test_no_text_of_a_guest_is_a_formula_a_second_line_or_a_control_character() -> None:
    text = text_of(rich_fleet())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert "'=cmd|' /C calc'!A0" in {row["machine_id"] for row in rows}
    assert {NASTY[0]} <= {row["machine_id"] for row in rows}
    for row in rows:
        assert not [cell for cell in row.values() if cell.lstrip()[:1] in tuple("=+-@")]
    assert text.count("\r\n") == len(rows) + 1
    assert all(character.isprintable() for character in text.replace("\r\n", ""))


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\xa0=1"])
def test_whatever_begins_a_formula_is_escaped(start: str) -> None:
    fleet = small_fleet()
    fleet.results[0] = {**fleet.results[0], "message": start}
    messages = {row["message"] for row in rows_of(fleet)}
    assert any(message[:1] in ("'", "\\") and "1" in message for message in messages)


def test_a_run_that_was_not_checked_has_the_header_alone() -> None:
    assert text_of(small_fleet(), checked=False) == ",".join(SCHEMA.names) + "\r\n"


def test_rows_that_cannot_be_read_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("fleetscan.reports.report_database.ReportDatabase.dicts", fail)
    with pytest.raises(SectionLostError, match="no more"):
        text_of(small_fleet())
