"""Queries over results: tallies, severities, rules with their evidence, waivers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetscan.reports.contents import (
    Example,
    ReportLimits,
    RuleLine,
    SeverityLine,
    Top,
    UndecidedGroup,
    WaiverLine,
)
from fleetscan.reports.report_database import RESULTS, ReportDatabase, sql_list
from fleetscan.reports.states import RuleText, Tally
from fleetscan.scanner.tables.results.spec import UNDECIDED, ResultState, Severity

_MESSAGE_CHARACTERS = 300
_GROUPS_PER_RULE = 5

_Key = tuple[str | None, str]
"""A rule's pack and identifier."""


_UNDECIDED_SQL = sql_list(UNDECIDED)
_STATE_COUNTS = ", ".join(f"count(*) FILTER (state = '{state}')" for state in ResultState)


def severities(db: ReportDatabase) -> tuple[SeverityLine, ...]:
    """One row a severity, also for those that no rule has."""
    found = db.rows(
        f"""
        SELECT severity,
               count(DISTINCT (pack, rule_id)),
               count(DISTINCT (pack, rule_id)) FILTER (state = 'fail'),
               count(DISTINCT machine_id) FILTER (state = 'fail'),
               {_STATE_COUNTS}
        FROM {RESULTS} GROUP BY severity
        """  # noqa: S608 - built of this module's constants
    )
    by_severity = {
        severity: SeverityLine(severity, rules, failing, machines, _tally(counts))
        for severity, rules, failing, machines, *counts in found
    }
    none = Tally({})
    return tuple(
        by_severity.get(severity, SeverityLine(severity, 0, 0, 0, none)) for severity in Severity
    )


def total(rows: Iterable[SeverityLine]) -> Tally:
    """All severities' tallies added up."""
    tallies = [row.tally for row in rows]
    return _tally([sum(tally[state] for tally in tallies) for state in ResultState])


def rules(
    db: ReportDatabase, texts: Iterable[RuleText], limits: ReportLimits
) -> tuple[RuleLine, ...]:
    """All rules that have results or a text, the most severe and most often failed first."""
    counts = _rule_counts(db)
    by_id = {text.id: text for text in texts}
    failing = sum(1 for row in counts if row.tally["fail"])
    share = limits.examples // max(failing, 1)
    examples = _examples(db, limits, max(1, min(share, limits.examples_per_rule)))
    undecided = _undecided(db)
    rows = [_rule_row(row, by_id.get(row.key[1]), examples, undecided) for row in counts]
    seen = {row.id for row in rows}
    rows += [_unused_rule(text) for text in by_id.values() if text.id not in seen]
    return tuple(sorted(rows, key=_gravity))


def waivers(db: ReportDatabase, limit: int) -> Top[WaiverLine]:
    """Waivers that match a failing check, those in force first."""
    found = db.rows(
        f"""
        SELECT rule_id, any_value(title), any_value(severity), waiver_justification,
               waiver_expires::VARCHAR AS expires,
               count(*) FILTER (state = 'waived') AS in_force,
               count(*) FILTER (state = 'fail'),
               count(DISTINCT machine_id)
        FROM {RESULTS} WHERE waiver_justification IS NOT NULL AND state IN ('waived', 'fail')
        GROUP BY rule_id, waiver_justification, expires
        ORDER BY in_force DESC, rule_id, expires, waiver_justification
        """  # noqa: S608 - built of this module's constants
    )
    return Top(tuple(WaiverLine(*row) for row in found[:limit]), len(found))


@dataclass(frozen=True)
class _Counts:
    key: _Key
    title: str
    severity: str
    machines: int
    failing_machines: int
    undecided_machines: int
    violations: int
    tally: Tally


def _rule_counts(db: ReportDatabase) -> list[_Counts]:
    found = db.rows(
        f"""
        SELECT pack, rule_id, any_value(title), any_value(severity),
               count(DISTINCT machine_id),
               count(DISTINCT machine_id) FILTER (state = 'fail'),
               count(DISTINCT machine_id) FILTER (state IN ({_UNDECIDED_SQL})),
               coalesce(sum(violations) FILTER (state = 'fail'), 0),
               {_STATE_COUNTS}
        FROM {RESULTS} GROUP BY pack, rule_id
        """  # noqa: S608 - built of this module's constants
    )
    return [
        _Counts((pack, rule_id), title, severity, on, failing, undecided, int(rows), _tally(counts))
        for pack, rule_id, title, severity, on, failing, undecided, rows, *counts in found
    ]


def _examples(
    db: ReportDatabase, limits: ReportLimits, per_rule: int
) -> Mapping[_Key, list[Example]]:
    found = db.rows(
        f"""
        SELECT pack, rule_id, machine_id, root, coalesce(violations, 0),
               coalesce([left(line, ?) FOR line IN evidence[1:?]], []),
               left(message, ?), waiver_justification, waiver_expires::VARCHAR
        FROM {RESULTS} WHERE state = 'fail'
        QUALIFY row_number() OVER (
            PARTITION BY pack, rule_id ORDER BY violations DESC, machine_id, root) <= ?
        ORDER BY pack, rule_id, violations DESC, machine_id, root
        """,  # noqa: S608 - built of this module's constants
        (limits.evidence_characters + 1, limits.evidence, _MESSAGE_CHARACTERS, per_rule),
    )
    examples: dict[_Key, list[Example]] = defaultdict(list)
    for pack, rule_id, *rest in found:
        examples[pack, rule_id].append(Example(*rest))
    return examples


def _undecided(db: ReportDatabase) -> Mapping[_Key, list[UndecidedGroup]]:
    found = db.rows(
        f"""
        SELECT pack, rule_id, state, left(message, ?) AS reason,
               count(*) AS checks, count(DISTINCT machine_id), min(machine_id)
        FROM {RESULTS} WHERE state IN ({_UNDECIDED_SQL})
        GROUP BY pack, rule_id, state, reason
        QUALIFY row_number() OVER (
            PARTITION BY pack, rule_id ORDER BY checks DESC, state, reason) <= ?
        ORDER BY pack, rule_id, checks DESC, state, reason
        """,  # noqa: S608 - built of this module's constants
        (_MESSAGE_CHARACTERS, _GROUPS_PER_RULE),
    )
    groups: dict[_Key, list[UndecidedGroup]] = defaultdict(list)
    for pack, rule_id, *rest in found:
        groups[pack, rule_id].append(UndecidedGroup(*rest))
    return groups


def _rule_row(
    row: _Counts,
    text: RuleText | None,
    examples: Mapping[_Key, list[Example]],
    undecided: Mapping[_Key, list[UndecidedGroup]],
) -> RuleLine:
    return RuleLine(
        id=row.key[1],
        pack=row.key[0],
        title=row.title,
        failing=(text.failing if text else None) or row.title,
        severity=row.severity,
        rationale=text.rationale if text else "",
        remediation=text.remediation if text else "",
        references=text.references if text else {},
        tally=row.tally,
        machines=row.machines,
        failing_machines=row.failing_machines,
        undecided_machines=row.undecided_machines,
        violations=row.violations,
        examples=Top(tuple(examples.get(row.key, ())), row.tally["fail"]),
        undecided=tuple(undecided.get(row.key, ())),
    )


def _unused_rule(text: RuleText) -> RuleLine:
    counts = _Counts((None, text.id), text.title, text.severity, 0, 0, 0, 0, Tally({}))
    return _rule_row(counts, text, {}, {})


def _gravity(row: RuleLine) -> tuple[int, int, int, str, str]:
    return (
        Severity(row.severity).rank,
        -row.failing_machines,
        -row.undecided_machines,
        row.id,
        row.pack or "",
    )


def _tally(counts: Sequence[Any]) -> Tally:
    return Tally(dict(zip(ResultState, map(int, counts), strict=True)))
