"""The JSON report: everything, one row a line, as README.md describes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from fleetscan.appliance.ground.schema import Kind, Scope
from fleetscan.reports.compose import DEFAULT_TITLE, build_report
from fleetscan.reports.contents import Report, ReportLimits, RuleLine
from fleetscan.reports.fact_sections import MACHINES_SQL
from fleetscan.reports.report_database import RESULTS, ReportDatabase, attached
from fleetscan.reports.sections import SectionLostError, Sections, why
from fleetscan.reports.states import RuleText, Tally
from fleetscan.reports.text import from_epoch, iso
from fleetscan.rules.results import SCHEMA
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.machines.spec import Outcome
from fleetscan.scanner.tables.results.spec import ResultState, Severity

SCHEMA_VERSION = 1
"""Raised when a field is renamed, removed or changes its meaning; new fields do not raise it."""

Object = dict[str, Any]
"""A JSON object; ``Any`` is any JSON value."""

_TEXT_CHARACTERS, _LIST_ITEMS = 4096, 1000
"""Characters shown of a guest's text, and items of a list."""

_ROWS_A_SIGN = 10_000  # rows after which the section is named again, as a sign of life

_NO_LISTS = ReportLimits(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def render_json(
    connection: duckdb.DuckDBPyConnection,
    results: pa.Table | None,
    *,
    rules: Iterable[RuleText] = (),
    title: str = DEFAULT_TITLE,
    generated: datetime,
    sections: Sections | None = None,
) -> Iterator[str]:
    """The report as pieces of one JSON object, in ASCII and without NaN.

    Rows are read while pieces are taken; the connection must not be used for anything else
    meanwhile.

    Args: as :func:`fleetscan.reports.html.render_html`.

    Raises:
        SectionLostError: a section cannot be computed; what was taken so far is worth nothing.
    """
    sections = sections or Sections()
    with attached(connection, results) as db:
        report = build_report(
            db,
            checked=results is not None,
            rules=rules,
            title=title,
            generated=generated,
            limits=_NO_LISTS,
            sections=sections,
        )
        for number, (name, value) in enumerate(_head(report).items()):
            yield f"{',' if number else '{'}\n{_text(name)}: {_text(value)}"
        yield from _array(sections, "rules", map(_rule, report.rules))
        yield from _array(sections, "results", _results(db))
        yield from _array(sections, "machines", _machines(db))
        yield from _array(sections, "coverage", _table(db, "coverage"))
        yield from _array(sections, "left_out", _table(db, "left_out"))
        yield from _array(sections, "filesystems", _table(db, "filesystems"))
        yield "\n}\n"


def _array(sections: Sections, name: str, rows: Iterable[Object]) -> Iterator[str]:
    if name in sections.problems:
        yield f",\n{_text(name)}: null"
        return
    sections.starting(name)
    try:
        yield f",\n{_text(name)}: ["
        for number, row in enumerate(rows):
            yield f"{',' if number else ''}\n{_text(row)}"
            if number % _ROWS_A_SIGN == 0:
                sections.starting(name)
        yield "\n]"
    except Exception as error:
        raise SectionLostError(name, why(error)) from error


def _text(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _head(report: Report) -> Object:
    run = report.run
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": "fleetscan",
        "title": report.title,
        "generated": iso(report.generated),
        "run": {
            "run_id": run.run_id,
            "started": run.started and iso(run.started),
            "finished": run.finished and iso(run.finished),
            "sources": run.sources,
            "accelerators": run.accelerators,
            "machine_seconds": _finite(run.machine_seconds),
            "reused": run.reused,
            "torn": run.torn,
            "journals_ignored": run.journals_ignored,
        },
        "summary": _summary(report),
        "problems": dict(report.problems),
    }


def _summary(report: Report) -> Object:
    machines, tally, totals = report.machines, report.tally, report.filesystem_totals
    return {
        "machines": {
            "total": machines.total,
            **{outcome: getattr(machines, outcome) for outcome in Outcome},
            "with_roots": machines.with_roots,
            "without_verdict": machines.without_verdict,
        },
        "disks": machines.disks,
        "roots": machines.roots,
        "checks": {"evaluated": report.checked, **_checks(tally)},
        "severities": [
            {
                "severity": row.severity,
                "rules": row.rules,
                "failing_rules": row.failing_rules,
                "failing_machines": row.failing_machines,
                "checks": _checks(row.tally),
            }
            for row in report.severities
        ],
        "coverage": report.coverage,
        "filesystems": None
        if "filesystems" in report.problems
        else {
            "total": totals.filesystems,
            "machines": totals.machines,
            "size": totals.size,
            "used": totals.used,
            "over_90": totals.over_90,
        },
    }


def _checks(tally: Tally) -> Object:
    return {
        "total": tally.total,
        "decided": tally.decided,
        "undecided": tally.undecided,
        "passed_percent": 100 * tally["pass"] / tally.decided if tally.decided else None,
        "states": {state: tally[state] for state in ResultState},
    }


def _rule(row: RuleLine) -> Object:
    return {
        "id": row.id,
        "pack": row.pack,
        "title": row.title,
        "failing": row.failing,
        "severity": row.severity,
        "rationale": row.rationale,
        "remediation": row.remediation,
        "references": {name: list(entries) for name, entries in row.references.items()},
        "machines": row.machines,
        "failing_machines": row.failing_machines,
        "undecided_machines": row.undecided_machines,
        "violations": row.violations,
        "checks": _checks(row.tally),
    }


def _results(db: ReportDatabase) -> Iterator[Object]:
    columns = ", ".join(SCHEMA.names)
    order = "machine_id, root NULLS FIRST, pack, rule_id"
    for row in db.dicts(f"SELECT {columns} FROM {RESULTS} ORDER BY {order}"):  # noqa: S608 - our own names
        row["evidence"] = [_evidence(line) for line in row["evidence"] or []]
        expires = row["waiver_expires"]
        row["waiver_expires"] = expires and expires.isoformat()
        row["checked"] = row["checked"] and iso(row["checked"])
        yield row


def _evidence(line: str) -> object:
    """An offending row as an object; text that is not JSON stays text."""
    try:
        return json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return line


def _machines(db: ReportDatabase) -> Iterator[Object]:
    columns, timestamps = _columns("machines")
    sql = f"""
        WITH summaries AS ({MACHINES_SQL})
        SELECT {columns}, systems, hostnames, failures, undecided, passed
        FROM machines JOIN summaries USING (machine_id) ORDER BY machine_id
        """  # noqa: S608 - our own names
    for row in db.dicts(sql):
        row["failures"] = dict(zip(Severity, row["failures"], strict=True))
        yield _cleaned(row, timestamps)


def _table(db: ReportDatabase, name: str) -> Iterator[Object]:
    columns, timestamps = _columns(name)
    for row in db.dicts(f"SELECT {columns} FROM {name} ORDER BY ALL"):  # noqa: S608 - our own names
        yield _cleaned(row, timestamps)


def _columns(name: str) -> tuple[str, set[str]]:
    """What to select of a fact table, and which columns then hold microseconds since 1970."""
    table = load_tables()[name]
    selected = [f"{name}.run_id", f"{name}.machine_id"]
    selected += [f"{name}.root"] if table.scope is Scope.ROOT else []
    timestamps = set()
    for column in table.columns:
        value = f"{name}.{column.name}"
        if column.kind is Kind.TIMESTAMP:
            timestamps.add(column.name)
            value = f"epoch_us({value}) AS {column.name}"
        elif column.kind is Kind.ENUM:
            value = f"{value}::VARCHAR AS {column.name}"
        elif column.kind is Kind.STRING:
            value = f"left({value}, {_TEXT_CHARACTERS}) AS {column.name}"
        elif column.kind is Kind.STRING_LIST:
            cut = f"lambda item: left(item, {_TEXT_CHARACTERS})"
            value = f"list_transform({value}[:{_LIST_ITEMS}], {cut}) AS {column.name}"
        selected.append(value)
    return ", ".join(selected), timestamps


def _cleaned(row: Mapping[str, Any], timestamps: set[str]) -> Object:
    cleaned: Object = {}
    for name, value in row.items():
        if name in timestamps and value is not None:
            cleaned[name] = iso(from_epoch(value))
        else:
            cleaned[name] = _finite(value) if isinstance(value, float) else value
    return cleaned


def _finite(value: float | str) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
