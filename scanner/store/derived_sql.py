"""The SQL that makes the views of derived tables: results of checks, runs, and reference data."""

# ruff: noqa: S608 - the SQL is made of names from the specs, and of quoted texts and paths
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from datetime import date, datetime
from pathlib import Path

from fleetscan.scanner.store import layout
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.end_of_life import load_end_of_life
from fleetscan.scanner.store.quoting import literal
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.view_sql import path_list, sql_type
from fleetscan.scanner.tables import load_all_tables
from fleetscan.scanner.tables.machines.spec import Outcome

# A failure lasts from one verdict to the next that is another; states that are no verdict, such as
# unknown, neither begin nor end one. Run ids sort by time.
_FAILURES = """
CREATE VIEW history.failures AS
WITH judged AS (
    SELECT r.*, runs.started, r.state IN ('fail', 'waived') AS failing,
        lag(failing, 1, false) OVER (
            PARTITION BY r.machine_id, r.root, r.pack, r.rule_id ORDER BY r.run_id
        ) AS failed_before
    FROM history.results r JOIN history.runs USING (run_id)
    WHERE r.state IN ('fail', 'waived', 'pass', 'notapplicable')
), over_time AS (
    SELECT machine_id, root, pack, rule_id,
        arg_max(title, run_id) AS title,
        arg_max(severity, run_id) AS severity,
        arg_max(state, run_id) AS state,
        min(started) FILTER (failing) AS first_seen,
        max(started) FILTER (failing AND NOT failed_before) AS began,
        max(started) FILTER (failing) AS last_seen,
        max(started) FILTER (NOT failing AND failed_before) AS ended,
        arg_max(failing, run_id) AS fails
    FROM judged GROUP BY machine_id, root, pack, rule_id HAVING bool_or(failing)
)
SELECT * EXCLUDE (began, ended, fails, last_seen),
    CASE WHEN fails THEN began END AS failing_since,
    last_seen,
    CASE WHEN NOT fails THEN ended END AS fixed
FROM over_time
"""


def results_paths(facts: Path, runs: Sequence[RunInfo]) -> list[Path]:
    """The files with the results of some runs.

    Raises:
        StoreError: a folder of theirs cannot be read.
    """
    return [path for run in runs for path in layout.results_files(facts, run.run_id)]


def derived_views(facts: Path, run: RunInfo, runs: Sequence[RunInfo]) -> Iterator[str]:
    """Statements that make the derived tables: of one run, and of all in the schema ``history``.

    Args:
        facts: the store's directory.
        run: the run.
        runs: all visible runs.
    """
    yield from _table("main.end_of_life", [astuple(row) for row in load_end_of_life()])
    for schema, shown in (("main", [run]), ("history", runs)):
        yield from _table(f"{schema}.runs", list(map(_run, shown)))
        yield _results(f"{schema}.results", results_paths(facts, shown))
    yield _FAILURES


def _run(run: RunInfo) -> tuple[object, ...]:
    counts = (run.outcomes.get(outcome, 0) for outcome in Outcome)
    times = (run.started, run.finished)
    return (run.run_id, *times, run.interrupted, run.version, run.machines, *counts)


def _table(name: str, rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    columns = all_columns(load_all_tables()[name.partition(".")[2]])
    types = ", ".join(f'"{column.name}" {sql_type(column)}' for column in columns)
    yield f"CREATE TABLE {name}({types})"
    values = ", ".join(f"({', '.join(map(_value, row))})" for row in rows)
    if rows:
        yield f"INSERT INTO {name} VALUES {values}"


def _value(value: object) -> str:
    if isinstance(value, datetime | date):
        return literal(value.isoformat())
    return literal(value) if isinstance(value, str) else str(value)


def _results(name: str, paths: Sequence[Path]) -> str:
    """A view over the results in some files, null where a file's version lacked a column."""
    columns = [("run_id", "VARCHAR")]
    columns += [(c.name, sql_type(c)) for c in all_columns(load_all_tables()["results"])]
    nothing = ", ".join(f'CAST(NULL AS {kind}) AS "{column}"' for column, kind in columns)
    sql = f"SELECT * FROM (SELECT {nothing}) WHERE false"
    if paths:
        sql += (
            f" UNION ALL BY NAME SELECT * FROM read_parquet({path_list(paths)}, "
            "hive_partitioning = false, union_by_name = true)"
        )
    shown = ", ".join(f'"{column}"' for column, _ in columns)
    return f"CREATE VIEW {name} AS SELECT {shown} FROM ({sql})"
