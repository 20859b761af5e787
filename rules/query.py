"""One rule as the SQL that judges it, with all that the SQL binds.

A :class:`RuleQuery` is plain data: it goes to the process that evaluates rules (see
rules.judging_process), which knows nothing of packs and their files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetscan.rules.sql import Select
from fleetscan.scanner.store.quoting import identifier, literal
from fleetscan.scanner.tables.results.spec import ResultState, Severity

if TYPE_CHECKING:
    from fleetscan.rules.model import CompiledRule, Config, Pack, Rule

_DIGEST = 16  # digits: enough to tell a site's rules apart

EVIDENCE_ROWS = 20
"""Offending rows kept a result; ``violations`` counts all of them."""

EVIDENCE_TEXT = 1024
"""Characters kept of a text in them: a guest's strings may be as long as it likes."""

EVIDENCE_ITEMS = 32
"""Items kept of a list in them."""

EVIDENCE_BYTES = 64 << 10
"""Bytes kept of a result's offending rows; the first one is kept however long it is."""

MESSAGE_TEXT = 1024
"""Characters kept of a result's message, which may quote a guest."""

# The pieces in braces are SELECTs that rules.sql found harmless, quoted column names, and names
# of tables that exist; all values are bound.
EVALUATE = """
WITH _found AS (
    SELECT machine_id, {root} AS root, {evidence} AS evidence FROM (
{violations}
    )
), _kept AS (
    SELECT machine_id, root, count(*) AS violations, min(evidence, {rows}) AS evidence
    FROM _found GROUP BY ALL
), _applies AS (
{applies_to}
), _unsure AS (
{unknown}
), _present AS (
{subject}
), _looked_at AS (
    SELECT table_name, lower(pattern) AS file, regexp_extract(file, '^[^*?[\\\\]*') AS plain
    FROM (SELECT unnest($_read_tables::VARCHAR[]) AS table_name,
        unnest($_read_files::VARCHAR[]) AS pattern)
), _concerned AS (
    SELECT DISTINCT u.machine_id, u.root, u.table_name, u.part, u.key
    FROM (SELECT * REPLACE (lower(file) AS file) FROM _unread) u
    JOIN _looked_at l ON l.table_name = u.table_name
        AND NOT (u.part = 'by_hand' AND l.plain IN ('', '/'))
        AND CASE
        WHEN NOT ends_with(u.file, '/') THEN u.file GLOB l.file
        WHEN l.plain = l.file THEN starts_with(l.file || '/', u.file)
        ELSE starts_with(l.plain, u.file) OR starts_with(u.file, l.plain) END
), _problem AS (
    SELECT machine_id, root,
        min({{'rank': rank, 'message': message, 'state': state}}) AS any_table,
        min({{'rank': rank, 'message': message, 'state': state}})
            FILTER (list_contains($_applies_tables, table_name)) AS applies_table,
        min({{'rank': rank, 'message': message, 'state': state}})
            FILTER (list_contains($_complete, table_name)) AS complete_table
    FROM _problems LEFT JOIN (SELECT *, true AS concerns FROM _concerned)
        USING (machine_id, root, table_name, part, key)
    WHERE list_contains($_tables, table_name)
        AND NOT (lenient AND list_contains($_empty_ok, table_name))
        AND NOT (part = 'share' AND list_contains($_own_disks, table_name))
        AND NOT (part = 'by_hand' AND concerns IS NULL)
        AND NOT (unread IS NOT NULL AND concerns IS NULL AND list_contains($_reads, table_name))
    GROUP BY machine_id, root
), _elsewhere AS (
    SELECT machine_id, root, min(message) AS message FROM _problems
    WHERE part = 'share' AND list_contains($_own_disks, table_name)
    GROUP BY machine_id, root
), _joined AS (
    SELECT s.*, a.machine_id IS NOT NULL AS applies, p.any_table, p.complete_table,
        e.message AS elsewhere,
        CASE WHEN a.machine_id IS NULL THEN p.applies_table END AS applies_table,
        u.message AS unsure, there.machine_id IS NULL AS absent,
        coalesce(of_root.violations, 0) + coalesce(of_machine.violations, 0) AS violations,
        list_concat(of_root.evidence, of_machine.evidence)[:{rows}] AS evidence
    FROM (FROM _subjects WHERE failure IS NULL AND {within}) s
    LEFT JOIN (SELECT DISTINCT machine_id, root FROM _applies) a
        ON a.machine_id = s.machine_id AND a.root IS NOT DISTINCT FROM s.root
    LEFT JOIN _problem p ON p.machine_id = s.machine_id AND p.root = s.root
    LEFT JOIN _elsewhere e ON e.machine_id = s.machine_id AND e.root = s.root
    LEFT JOIN (
        SELECT machine_id, root, min(left(message, {text})) AS message FROM _unsure GROUP BY ALL
    ) u ON u.machine_id = s.machine_id AND u.root = s.root
    LEFT JOIN (
        SELECT DISTINCT r.machine_id, r.root FROM _subjects r JOIN _present p
            ON p.machine_id = r.machine_id AND coalesce(p.root, r.root) IS NOT DISTINCT FROM r.root
    ) there ON there.machine_id = s.machine_id AND there.root IS NOT DISTINCT FROM s.root
    LEFT JOIN (SELECT * FROM _kept WHERE root IS NOT NULL) of_root
        ON of_root.machine_id = s.machine_id AND of_root.root = s.root
    LEFT JOIN (SELECT * FROM _kept WHERE root IS NULL) of_machine
        ON of_machine.machine_id = s.machine_id
), _judged AS (
    SELECT *, CASE
        WHEN applies_table IS NOT NULL
            THEN {{'state': applies_table.state, 'message': applies_table.message}}
        WHEN NOT applies
            THEN {{'state': 'notapplicable', 'message': 'the rule is not about this system'}}
        WHEN complete_table IS NOT NULL
            THEN {{'state': complete_table.state, 'message': complete_table.message}}
        WHEN violations > 0 THEN {{'state': $_broken, 'message': any_table.message}}
        WHEN any_table IS NOT NULL
            THEN {{'state': any_table.state, 'message': any_table.message}}
        WHEN unsure IS NOT NULL THEN {{'state': 'unknown', 'message': unsure}}
        WHEN absent THEN {{'state': $_absent, 'message': 'what the rule is about is not there'}}
        ELSE {{'state': 'pass', 'message': 'on the machine''s own disks; ' || elsewhere}}
    END AS verdict
    FROM _joined
)
SELECT run_id, machine_id, root, $_pack AS pack, $_pack_version::VARCHAR AS pack_version,
    $_rule AS rule_id, $_digest AS rule_digest, $_title AS title,
    $_severity AS severity, verdict.state AS state,
    CASE WHEN verdict.state = $_broken THEN violations ELSE 0 END::UBIGINT AS violations,
    CASE WHEN verdict.state = $_broken THEN evidence[:1] || list_transform(
        list_filter(
            list_transform(evidence[2:], lambda text, place: {{
                'text': text,
                'bytes': list_sum(list_transform(evidence[:place + 1], lambda one: strlen(one)))
            }}),
            lambda kept: kept.bytes <= {bytes}
        ),
        lambda kept: kept.text
    ) ELSE []::VARCHAR[] END AS evidence,
    verdict.message AS message, $_checked::TIMESTAMPTZ AS checked
FROM _judged
"""

PLAIN = """
SELECT run_id, machine_id, root, $_pack AS pack, $_pack_version::VARCHAR AS pack_version,
    $_rule AS rule_id, $_digest AS rule_digest, $_title AS title,
    $_severity AS severity, $_state AS state, 0::UBIGINT AS violations,
    []::VARCHAR[] AS evidence, coalesce($_message, failure) AS message,
    $_checked::TIMESTAMPTZ AS checked
FROM _subjects WHERE (failure IS NOT NULL) = $_unread AND {within}
"""
"""One state for all subjects that rules can look at, or for all others."""

_ALL_ROOTS = "SELECT machine_id, root FROM _subjects"
NOBODY = (
    "SELECT NULL::VARCHAR AS machine_id, NULL::VARCHAR AS root, NULL::VARCHAR AS message LIMIT 0"
)
"""What stands where a rule has no ``unknown`` query."""

EVERYBODY = "SELECT machine_id, root FROM _subjects"
"""What stands where the absence of what a rule is about passes."""

# What is not known of a system, as its row is missing or lacks a value, does not exclude it.
_ROOTS_OF_PACK = """
SELECT machine_id, root FROM (
{roots}
) ANTI JOIN (
{outside}
) USING (machine_id, root)
"""


@dataclass(frozen=True)
class RuleQuery:
    """A rule, ready to be evaluated.

    Attributes:
        labels: what results say of the rule, by the name of the parameter.
        fleet: whether it compares machines with each other.
        violations: finds the offending rows.
        unknown: finds the roots of which the rule can say nothing.
        subject: finds the roots that have what the rule is about; None where absence passes.
        applies_to: SQL that finds the roots that the rule is about.
        tables: the tables it reads.
        values: what its own SQL binds.
        bindings: what else the evaluation binds.
        unread: it is about the machines that no rule can look at, and no others.
    """

    labels: Mapping[str, Any]  # whatever DuckDB binds
    fleet: bool
    violations: Select
    unknown: Select | None
    subject: Select | None
    applies_to: str
    tables: frozenset[str]
    values: Mapping[str, Any]  # any value that DuckDB binds
    bindings: Mapping[str, Any]

    unread: bool = False

    @property
    def rule_id(self) -> str:
        """The rule's identifier."""
        return str(self.labels["_rule"])

    def values_of(self, select: Select) -> dict[str, Any]:
        """What one of its SELECTs binds."""
        return {name: self.values[name] for name in select.parameters}


def rule_query(pack: Pack, rule: Rule, config: Config, now: dt.datetime) -> RuleQuery:
    """A rule of a pack as a site evaluates it.

    Args:
        pack: the rule's pack.
        rule: the rule.
        config: the site's own values.
        now: the time that it is judged at.
    """
    compiled = rule.compile()
    built_in = {"now": now, "today": now.astimezone(dt.UTC).date()}
    values = config.values(rule, compiled.parameters)
    used = frozenset().union(*(select.parameters for select in compiled.selects))
    return RuleQuery(
        labels={
            "_pack": pack.name,
            "_pack_version": pack.info.version,
            "_digest": _digest(rule, values),
            "_checked": now,
            "_rule": rule.id,
            "_title": rule.title,
            "_severity": rule.severity,
        },
        fleet=rule.fleet,
        violations=compiled.violations,
        unknown=compiled.unknown,
        subject=compiled.subject,
        applies_to=_applies_to(pack, compiled),
        tables=compiled.tables,
        values={name: {**values, **built_in}[name] for name in used},
        bindings=_bindings(rule, compiled),
    )


OWN_PACK = "fleetscan"
"""What stands as pack in results of no pack."""

READABLE = "machine-readable"
"""What stands as rule in the one result of a machine that no rule can look at."""


def readable_query(now: dt.datetime) -> RuleQuery:
    """What gives each machine that no rule can look at its one result.

    Args:
        now: the time that it is judged at.
    """
    nothing = Select(NOBODY, frozenset(), frozenset())
    title = "The machine can be read and has an operating system"
    return RuleQuery(
        labels={
            "_pack": OWN_PACK,
            "_pack_version": None,
            "_rule": READABLE,
            "_digest": "",
            "_checked": now,
            "_title": title,
            "_severity": Severity.HIGH,
        },
        fleet=False,
        violations=nothing,
        unknown=None,
        subject=None,
        applies_to=NOBODY,
        tables=frozenset(),
        values={},
        bindings={},
        unread=True,
    )


def _digest(rule: Rule, values: Mapping[str, Any]) -> str:
    """What tells a rule, and what the site set of it, from every other."""
    content = json.dumps([rule.model_dump(mode="json"), values], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST]


def _bindings(rule: Rule, compiled: CompiledRule) -> dict[str, Any]:
    looked_at = [(table, file) for table, some in compiled.reads.items() for file in some]
    applies = compiled.applies_to.tables if compiled.applies_to else frozenset()
    broken = ResultState.INFORMATIONAL if rule.informational else ResultState.FAIL
    return {
        "_broken": broken,
        "_absent": broken if rule.absent in (None, ResultState.FAIL) else rule.absent,
        "_tables": sorted(compiled.tables),
        "_applies_tables": sorted(applies),
        "_complete": sorted(compiled.complete),
        "_empty_ok": sorted(rule.empty_ok),
        "_own_disks": sorted(rule.own_disks),
        "_reads": sorted(compiled.reads),
        "_read_tables": [table for table, _ in looked_at],
        "_read_files": [file for _, file in looked_at],
    }


def _applies_to(pack: Pack, compiled: CompiledRule) -> str:
    roots = compiled.applies_to.sql if compiled.applies_to else _ALL_ROOTS
    outside = pack.info.outside()
    return _ROOTS_OF_PACK.format(roots=roots, outside=outside.sql) if outside else roots


def evidence(columns: Mapping[str, str]) -> str:
    """An expression for a row's evidence: its columns without those that name the machine and root.

    Args:
        columns: names and types of what the rule's SELECT returns.
    """
    pairs = [
        f"{literal(name)}, {_bounded(identifier(name), kind)}"
        for name, kind in columns.items()
        if name not in ("machine_id", "root")
    ]
    return f"json_object({', '.join(pairs)})::VARCHAR" if pairs else "'{}'"


# Types whose values are short; their names before DuckDB 1.2 as well.
_SHORT = frozenset(
    {
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "NUMBER", "UUID"),
        *("DATE", "TIME", "INTERVAL"),
    }
)
_TEXTS = ("VARCHAR", "STRING")


def _bounded(value: str, kind: str) -> str:
    if kind in _TEXTS:
        return f"left({value}, {EVIDENCE_TEXT})"
    if kind in [f"{text}[]" for text in _TEXTS]:
        return f"list_transform({value}[:{EVIDENCE_ITEMS}], lambda one: left(one, {EVIDENCE_TEXT}))"
    if kind in _SHORT or kind.startswith(("DECIMAL", "TIMESTAMP", "TIME ")):
        return value
    return f"left({value}::VARCHAR, {EVIDENCE_TEXT})"
