"""A guest that was taken over costs its own machine alone, within its limits, and says so."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground.schema import Origin, Scope
from fleetscan.appliance.vm import LocalAppliance
from fleetscan.scanner import inspect as inspection
from fleetscan.scanner.inspect import inspect_directory
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.store.staging import MemorySink
from fleetscan.scanner.tables import load_tables
from tests.appliance.hostile import BEHAVIOURS

DEADLINE = 4.0
SLACK = 7.0  # a host that is busy with other things

COVERED_TABLES = {
    name
    for name, table in load_tables().items()
    if table.origin is Origin.GUEST or table.scope is Scope.ROOT
}

Row = dict[str, Any]  # Any: a column's value

# Behaviour -> outcome, kind of error, and words of it.
ENDS_THE_MACHINE = {
    "stall": ("failed", "DeadlineError", "did not finish within 4 s"),
    "drip": ("failed", "DeadlineError", "did not finish within 4 s"),
    "exit": ("failed", "ApplianceError", "the appliance stopped"),
    "kill": ("failed", "ApplianceError", "the appliance stopped"),
    "zeros": ("failed", "WireError", "invalid frame"),
    "announce": ("failed", "WireError", "4294967295 bytes announced"),
    "request": ("failed", "WireError", "REQUEST frame out of turn"),
    "cut-json": ("failed", "WireError", "JSON"),
    "deep-json": ("failed", "WireError", "JSON"),
    "long-number": ("failed", "WireError", "JSON"),
    "error-not-json": ("failed", "WireError", "JSON"),
    "error-of-wrong-type": ("failed", "WireError", "not text"),
    "error-of-control": ("failed", "GuestError", "]0;owned"),
    "not-applicable": ("failed", "GuestError", "said the guest"),
    # The limit or the deadline, whichever comes first.
    "log-flood": ("failed", "Error", ""),
    "log-control": ("failed", "Error", ""),
    "reply-null": ("failed", "WireError", "wrong shape"),
    "reply-list": ("failed", "WireError", "wrong shape"),
    "reply-more": ("failed", "WireError", "wrong shape"),
    "reply-wrong-types": ("failed", "WireError", "wrong shape"),
    "roots-many": ("failed", "WireError", "wrong shape"),
    "roots-twice": ("failed", "WireError", "a root twice"),
    "roots-alike": ("failed", "WireError", "a root twice"),
    "warnings-many": ("failed", "WireError", "wrong shape"),
    "rows-unasked": ("failed", "WireError", "ROWS frame out of turn"),
    "other-table": ("partial", "WireError", "not asked for"),
    "unknown-table": ("partial", "WireError", "not asked for"),
    "unnamed-table": ("partial", "WireError", "without a table's name"),
    "row-flood": ("partial", "DeadlineError", "did not finish within 4 s"),
    "tiny-frames": ("partial", "Error", ""),
    "exit-midway": ("partial", "ApplianceError", "the appliance stopped"),
}
ENDS_ITS_TABLE = {
    "unknown-column": 0,
    "wrong-type": 0,
    "out-of-range": 0,
    "missing-column": 0,
    "identity": 0,
    "not-rows": 0,
    "deep-rows": 0,
    "long-row": 0,
    "good-then-bad": 1,  # rows that came before are kept
}
# What is no lie on the face of it is taken for the truth: the facts are the guest's own words.
BELIEVED = {
    "roots-long": "ok",
    "roots-control": "partial",
    "devices-many": "ok",
    "no-roots": "failed",
    "all-empty": "ok",
    "reply-twice": "ok",
}


class HostileAppliance(LocalAppliance):
    agent = (sys.executable, "-m", "tests.appliance.hostile")


class Inspected:
    """What became of a machine whose agent was taken over."""

    def __init__(self, summary: MachineSummary, sink: MemorySink, seconds: float) -> None:
        self.summary = summary
        self.seconds = seconds
        self.sink = sink

    def rows(self, table: str) -> list[Row]:
        rows: list[Row] = self.sink.table(table).to_pylist()
        return rows

    @property
    def machine(self) -> Row:
        (row,) = self.rows("machines")
        return row

    def coverage(self, table: str) -> Row:
        (row,) = [row for row in self.rows("coverage") if row["table_name"] == table]
        return row


Hostile = Callable[[str], Inspected]


def agents_left(directory: Path) -> list[str]:
    """Processes that were given this directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(directory).encode() in words:
            found.append(folder.name)
    return found


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Inspected]:
    """Inspects a machine whose agent behaves so, and sees that nothing is left of it."""
    monkeypatch.setattr(inspection, "LocalAppliance", HostileAppliance)

    def inspect(behaviour: str) -> Inspected:
        assert behaviour in BEHAVIOURS
        directory = tmp_path / behaviour
        directory.mkdir()
        sink = MemorySink()
        begun = time.monotonic()
        summary = inspect_directory(directory, ScanOptions.of(deadline=DEADLINE), sink)
        seconds = time.monotonic() - begun
        assert agents_left(directory) == []
        return Inspected(summary, sink, seconds)

    return inspect


def assert_told(inspected: Inspected) -> None:
    """Whatever happened, the rows say it, in words that do no harm."""
    assert inspected.seconds < DEADLINE + SLACK
    row = inspected.machine
    assert row["outcome"] == inspected.summary.outcome
    assert (row["error"] is None) == (row["outcome"] == "ok")
    covered = {row["table_name"] for row in inspected.rows("coverage")}
    assert covered == COVERED_TABLES or row["error_kind"] == "NoOperatingSystem"
    for table in ("machines", "coverage"):
        for row in inspected.rows(table):
            for value in row.values():
                assert not isinstance(value, str) or (value.isprintable() and len(value) <= 1000)


def test_every_behaviour_is_expected_to_end_somehow() -> None:
    assert BEHAVIOURS.keys() == {*ENDS_THE_MACHINE, *ENDS_ITS_TABLE, *BELIEVED}


@pytest.mark.parametrize("behaviour", ENDS_THE_MACHINE)
def test_what_breaks_the_rules_ends_the_machine(hostile: Hostile, behaviour: str) -> None:
    outcome, kind, words = ENDS_THE_MACHINE[behaviour]
    inspected = hostile(behaviour)
    assert_told(inspected)
    row = inspected.machine
    assert row["outcome"] == outcome
    assert row["error_kind"].endswith(kind)
    assert words in row["error"]
    assert row["stage"] == ("collect" if outcome == "partial" else "discover")
    assert {row["status"] for row in inspected.rows("coverage")} <= {"failed", "empty"}
    assert inspected.coverage("groups")["status"] == "failed"


@pytest.mark.parametrize("behaviour", ENDS_ITS_TABLE)
def test_rows_that_do_not_fit_their_table_end_the_table_alone(
    hostile: Hostile, behaviour: str
) -> None:
    inspected = hostile(behaviour)
    assert_told(inspected)
    assert (inspected.summary.outcome, inspected.machine["error_kind"]) == (
        "partial",
        "IncompleteFacts",
    )
    covered = inspected.coverage("groups")
    assert covered["status"] == "failed"
    assert covered["error"].startswith("rows were refused: ")
    assert covered["rows"] == len(inspected.rows("groups")) == ENDS_ITS_TABLE[behaviour]
    others = [row for row in inspected.rows("coverage") if row["table_name"] != "groups"]
    assert {row["status"] for row in others} == {"empty"}


@pytest.mark.parametrize("behaviour", BELIEVED)
def test_what_is_no_lie_on_the_face_of_it_is_taken_for_the_truth(
    hostile: Hostile, behaviour: str
) -> None:
    inspected = hostile(behaviour)
    assert_told(inspected)
    assert inspected.summary.outcome == BELIEVED[behaviour]
    assert all(len(row["root"] or "") <= 1000 for row in inspected.rows("coverage"))


def test_a_flood_of_log_lines_does_not_reach_the_log(
    hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fleetscan.appliance.session"):
        hostile("log-control")
    lines = [line for line in caplog.messages if line.startswith("guest: ")]
    assert len(lines) == 200
    assert all(line.isprintable() and len(line) < 4000 for line in lines)
