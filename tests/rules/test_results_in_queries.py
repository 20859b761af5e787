"""Derived tables beside the facts, as ``fleetscan query`` and ``fleetscan.facts`` show them."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetscan.appliance.ground.schema import Origin
from fleetscan.rules.results import SCHEMA, Results, results_path, write_results
from fleetscan.scanner.cli.main import run as fleetscan
from fleetscan.scanner.store import layout
from fleetscan.scanner.store import run as store_run
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.end_of_life import load_end_of_life
from fleetscan.scanner.store.view_sql import sql_type
from fleetscan.scanner.store.views import connect, query
from fleetscan.scanner.tables import load_all_tables
from tests.scanner.store.making import finished_run

DERIVED = {n: t for n, t in load_all_tables().items() if t.origin is Origin.DERIVED}
FAIL, PASS, WAIVED, UNKNOWN, NA = "fail", "pass", "waived", "unknown", "notapplicable"
CHECKED = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def checked(facts: Path, run_id: str, states: Mapping[str, str], pack: str = "some-pack") -> None:
    """Leave the results of a check: the state of one rule on each machine."""
    rows = [
        {
            "run_id": run_id,
            "machine_id": machine,
            "root": "/dev/sda1",
            "pack": pack,
            "rule_id": "some-rule",
            "rule_digest": "0f",
            "title": "Something holds",
            "severity": "high",
            "state": state,
            "violations": 0,
            "evidence": [],
            "checked": CHECKED,
        }
        for machine, state in states.items()
    ]
    write_results(Results(pa.Table.from_pylist(rows, SCHEMA), packs=(pack,)), facts, run_id)


def rows(facts: Path, sql: str, run_id: str | None = None) -> list[tuple[Any, ...]]:
    with connect(facts, run_id, history=True) as connection:
        return [tuple(row.values()) for row in query(connection, sql).to_pylist()]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs of five nights over two machines, below ``tmp_path``."""
    found = []
    for night in range(1, 6):
        now = dt.datetime(2026, 1, night, tzinfo=dt.UTC)
        monkeypatch.setattr(store_run, "_now", functools.partial(_same, now))
        found.append(finished_run(tmp_path, {"a": [], "b": []}).run_id)
    return found


def _same(now: dt.datetime) -> dt.datetime:
    return now


@pytest.mark.parametrize("name", [name for name in DERIVED if name != "failures"])
def test_derived_tables_have_the_columns_of_their_specs(
    name: str, runs: list[str], tmp_path: Path
) -> None:
    for schema in ("main", "history"):
        if (schema, name) != ("history", "end_of_life"):
            _assert_columns(tmp_path, f"{schema}.{name}", name)


def test_failures_have_the_columns_of_their_spec(runs: list[str], tmp_path: Path) -> None:
    _assert_columns(tmp_path, "history.failures", "failures")


def _assert_columns(facts: Path, view: str, name: str) -> None:
    found = [(row[0], row[1]) for row in rows(facts, f"DESCRIBE {view}")]
    kinds = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    described = [(column.name, sql_type(column)) for column in all_columns(DERIVED[name])]
    first = [("run_id", "VARCHAR")] if name == "results" else []
    assert [(column, kinds.get(kind, kind)) for column, kind in found] == [*first, *described]


def test_a_run_that_was_not_checked_has_no_results(runs: list[str], tmp_path: Path) -> None:
    assert rows(tmp_path, "SELECT * FROM results") == []
    assert rows(tmp_path, "SELECT * FROM history.failures") == []


def test_results_are_of_one_run_and_the_history_of_all(runs: list[str], tmp_path: Path) -> None:
    checked(tmp_path, runs[0], {"a": FAIL})
    checked(tmp_path, runs[4], {"a": PASS, "b": FAIL})
    sql = "SELECT run_id, machine_id, state FROM {}results ORDER BY ALL"
    newest = [(runs[4], "a", PASS), (runs[4], "b", FAIL)]
    assert rows(tmp_path, sql.format("")) == newest
    assert rows(tmp_path, sql.format(""), runs[0]) == [(runs[0], "a", FAIL)]
    assert rows(tmp_path, sql.format("history.")) == [(runs[0], "a", FAIL), *newest]


def test_several_checks_of_a_run_stand_side_by_side(runs: list[str], tmp_path: Path) -> None:
    checked(tmp_path, runs[4], {"a": FAIL}, "one")
    checked(tmp_path, runs[4], {"a": PASS}, "other's pack")
    checked(tmp_path, runs[4], {"a": PASS}, "one")
    found = rows(tmp_path, "SELECT pack, state, checked FROM results ORDER BY pack")
    assert found == [("one", PASS, CHECKED), ("other's pack", PASS, CHECKED)]


def test_results_of_a_version_without_a_column_show_null(runs: list[str], tmp_path: Path) -> None:
    checked(tmp_path, runs[3], {"a": FAIL})
    checked(tmp_path, runs[4], {"a": FAIL})
    path = results_path(tmp_path, runs[3], "some-pack")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["checked"]), path)
    found = rows(tmp_path, "SELECT checked FROM history.results ORDER BY run_id")
    assert found == [(None,), (CHECKED,)]


@pytest.mark.parametrize(
    ("states", "first_seen", "failing_since", "last_seen", "fixed"),
    [
        ((FAIL, FAIL, FAIL, FAIL, FAIL), 0, 0, 4, None),
        ((PASS, FAIL, PASS, PASS, PASS), 1, None, 1, 2),
        ((FAIL, PASS, PASS, FAIL, FAIL), 0, 3, 4, None),
        ((FAIL, PASS, FAIL, PASS, PASS), 0, None, 2, 3),
        ((FAIL, UNKNOWN, UNKNOWN, FAIL, UNKNOWN), 0, 0, 3, None),
        ((FAIL, UNKNOWN, PASS, UNKNOWN, UNKNOWN), 0, None, 0, 2),
        ((PASS, WAIVED, FAIL, WAIVED, NA), 1, None, 3, 4),
        ((None, None, FAIL, None, FAIL), 2, 2, 4, None),
    ],
)
def test_failures_say_since_when_and_until_when(
    states: tuple[str | None, ...],
    first_seen: int,
    failing_since: int | None,
    last_seen: int,
    fixed: int | None,
    runs: list[str],
    tmp_path: Path,
) -> None:
    for run_id, state in zip(runs, states, strict=True):
        if state is not None:  # it was checked
            checked(tmp_path, run_id, {"a": state, "b": PASS})
    begun = dict(rows(tmp_path, "SELECT run_id, started FROM history.runs"))
    times = [begun[run_id] for run_id in runs]
    [found] = rows(
        tmp_path,
        "SELECT machine_id, first_seen, failing_since, last_seen, fixed FROM history.failures",
    )
    wanted = [None if one is None else times[one] for one in (failing_since, last_seen, fixed)]
    assert found == ("a", times[first_seen], *wanted)


def test_runs_can_be_queried(runs: list[str], tmp_path: Path) -> None:
    sql = "SELECT run_id, machines, ok, partial, failed, interrupted FROM {}runs ORDER BY run_id"
    assert rows(tmp_path, sql.format(""), runs[1]) == [(runs[1], 2, 2, 0, 0, False)]
    every = rows(tmp_path, sql.format("history."))
    assert [row[0] for row in every] == sorted(runs)


def test_ends_of_life_can_be_queried(runs: list[str], tmp_path: Path) -> None:
    known = load_end_of_life()
    assert rows(tmp_path, "SELECT count(*), max(eol) FROM end_of_life") == [
        (len(known), max(release.eol for release in known))
    ]


def test_the_command_checks_side_by_side_and_queries_what_it_found(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for pack in ("linux-baseline", "windows-baseline"):
        fleetscan(["check", "--facts", str(tmp_path), "--pack", pack])
    names = [path.name for path in layout.results_files(tmp_path, runs[4])]
    packs = ("fleetscan", "linux-baseline", "windows-baseline")
    assert names == [f"pack-{pack}.parquet" for pack in packs]
    capsys.readouterr()
    sql = "SELECT rule_id, count(*) AS machines FROM results GROUP BY 1"
    assert fleetscan(["query", sql, "--facts", str(tmp_path), "--output", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["machine-readable,2"]
