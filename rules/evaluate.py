"""Evaluation: every rule over all machines at once, in SQL.

For each rule one query finds the violations of the whole fleet, and set-based joins turn them
into a state for each machine and root. Nothing here loops over machines.

How the state of one rule for one root comes about, first match wins:

1. the site deselected the rule: ``notselected``;
2. the machine failed or has no operating system, or the rule's SQL cannot be run: ``error``;
3. ``applies_to`` does not hold: ``notapplicable``, unless a table it needs was not fully seen;
4. a table listed in ``complete`` was not fully seen: as 6;
5. there are violations: ``fail``, or ``informational`` for rules so marked, whatever else could
   not be seen: evidence that was found is evidence;
6. a table that the rule reads was not fully seen: ``unknown`` when it failed, is missing or came
   out empty, ``notchecked`` when it was not asked for, ``notapplicable`` when it does not apply;
   one that lacks nothing but rows of files which the rule does not look at counts as seen;
7. the rule's ``unknown`` query names the root: ``unknown``;
8. ``pass``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from rules import subjects, waivers
from rules.model import CompiledRule, Config, Pack, Rule, Waiver
from rules.results import SCHEMA, Results
from rules.sql import Select
from scanner.errors import FleetscanError
from scanner.tables import load_tables

log = logging.getLogger(__name__)

EVIDENCE_ROWS = 20
"""Offending rows kept a result; ``violations`` counts all of them."""

EVIDENCE_TEXT = 1024
"""Characters kept of a text in them: a guest's strings may be as long as it likes."""


@dataclass(frozen=True)
class Limits:
    """What rules may use.

    Attributes:
        seconds: longest time for one rule.
        memory: DuckDB's memory limit, in its own notation.
    """

    seconds: float = 120.0
    memory: str = "2GiB"


class RuleError(FleetscanError):
    """One rule cannot be evaluated; the others go on."""


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    packs: Sequence[Pack],
    *,
    waivers: Sequence[Waiver] = (),
    config: Config | None = None,
    now: dt.datetime | None = None,
    limits: Limits | None = None,
) -> Results:
    """Evaluate all rules of some packs over the facts of one run.

    The connection is sealed for good on the way: no file and network access beyond the
    directories already allowed, configuration locked.

    Args:
        connection: with a view for every fact table, holding the rows of one run.
        packs: the rules.
        waivers: failures that someone answers for.
        config: what the site deselects and sets.
        now: the time that expiry and end of life are judged at, with a time zone; by default
            this moment.
        limits: time for a rule, memory for all.

    Raises:
        FleetscanError: the connection still reaches files and cannot be sealed.
    """
    now = now or dt.datetime.now(dt.UTC)
    seal(connection, limits or Limits())
    run = _Evaluation(connection, config or Config(), now, limits or Limits())
    rules = [(pack, rule) for pack in packs for rule in pack.rules]
    try:
        subjects.prepare(
            connection, frozenset().union(*(rule.compile().tables for _, rule in rules))
        )
        connection.execute(_RESULTS)
        for pack, rule in rules:
            run.add(pack, rule)
        return _finish(connection, waivers, now)
    finally:
        for name in ("_results", "_waived"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
        subjects.clean_up(connection)


def seal(connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
    """Take file and network access away from a connection, and lock its configuration.

    Directories in ``allowed_directories``, which views over Parquet files need, stay readable;
    rules cannot name them, as they may use no table function that reads files.

    Raises:
        FleetscanError: it was locked before while it could still reach files.
    """
    settings = (
        "SET TimeZone = 'UTC'",  # evidence shows times as text
        "SET python_enable_replacements = false",  # names in SQL must not find Python variables
        f"SET memory_limit = '{limits.memory}'",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    )
    for setting in settings:
        with contextlib.suppress(duckdb.InvalidInputException):  # locked already
            connection.execute(setting)
    row = connection.execute("SELECT current_setting('enable_external_access')").fetchone()
    if row is None or row[0]:
        raise FleetscanError("rules are not run: the connection's file access cannot be shut off")


_RESULTS = """
CREATE TEMP TABLE _results(
    run_id VARCHAR, machine_id VARCHAR, root VARCHAR, pack VARCHAR, rule_id VARCHAR,
    title VARCHAR, severity VARCHAR, state VARCHAR, violations UBIGINT, evidence VARCHAR[],
    message VARCHAR
)
"""

# The pieces in braces are SELECTs that rules.sql found harmless, quoted column names, and names
# of tables that exist; all values are bound.
_EVALUATE = """
INSERT INTO _results
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
), _looked_at AS (
    SELECT unnest($_read_tables::VARCHAR[]) AS table_name, unnest($_read_files::VARCHAR[]) AS file
), _concerned AS (
    SELECT DISTINCT u.machine_id, u.root, u.table_name
    FROM (SELECT machine_id, root, table_name, unnest(unread) AS file FROM _problems) u
    JOIN _looked_at l ON l.table_name = u.table_name AND lower(u.file) GLOB lower(l.file)
), _problem AS (
    SELECT machine_id, root,
        min({{'rank': rank, 'message': message, 'state': state}}) AS any_table,
        min({{'rank': rank, 'message': message, 'state': state}})
            FILTER (list_contains($_applies_tables, table_name)) AS applies_table,
        min({{'rank': rank, 'message': message, 'state': state}})
            FILTER (list_contains($_complete, table_name)) AS complete_table
    FROM _problems LEFT JOIN (SELECT *, true AS concerns FROM _concerned)
        USING (machine_id, root, table_name)
    WHERE list_contains($_tables, table_name)
        AND NOT (lenient AND list_contains($_empty_ok, table_name))
        AND NOT (unread IS NOT NULL AND concerns IS NULL AND list_contains($_reads, table_name))
    GROUP BY machine_id, root
), _joined AS (
    SELECT s.*, a.machine_id IS NOT NULL AS applies, p.any_table, p.complete_table,
        CASE WHEN a.machine_id IS NULL THEN p.applies_table END AS applies_table,
        u.message AS unsure,
        coalesce(of_root.violations, 0) + coalesce(of_machine.violations, 0) AS violations,
        list_concat(of_root.evidence, of_machine.evidence)[:{rows}] AS evidence
    FROM _subjects s
    LEFT JOIN (SELECT DISTINCT machine_id, root FROM _applies) a
        ON a.machine_id = s.machine_id AND a.root IS NOT DISTINCT FROM s.root
    LEFT JOIN _problem p ON p.machine_id = s.machine_id AND p.root = s.root
    LEFT JOIN (SELECT machine_id, root, min(message) AS message FROM _unsure GROUP BY ALL) u
        ON u.machine_id = s.machine_id AND u.root = s.root
    LEFT JOIN (SELECT * FROM _kept WHERE root IS NOT NULL) of_root
        ON of_root.machine_id = s.machine_id AND of_root.root = s.root
    LEFT JOIN (SELECT * FROM _kept WHERE root IS NULL) of_machine
        ON of_machine.machine_id = s.machine_id
), _judged AS (
    SELECT *, CASE
        WHEN failure IS NOT NULL THEN {{'state': 'error', 'message': failure}}
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
        ELSE {{'state': 'pass', 'message': NULL}}
    END AS verdict
    FROM _joined
)
SELECT run_id, machine_id, root, $_pack, $_rule, $_title, $_severity, verdict.state,
    CASE WHEN verdict.state = $_broken THEN violations ELSE 0 END,
    CASE WHEN verdict.state = $_broken THEN evidence ELSE []::VARCHAR[] END,
    verdict.message
FROM _judged
"""

_ALL_ROOTS = "SELECT machine_id, root FROM _subjects"
_NOBODY = "SELECT NULL::VARCHAR AS machine_id, NULL::VARCHAR AS root, NULL::VARCHAR AS message"

# What is not known of a system, as its row is missing or lacks a value, does not exclude it.
_ROOTS_OF_PACK = """
SELECT machine_id, root FROM (
{roots}
) ANTI JOIN (
{outside}
) USING (machine_id, root)
"""

_PLAIN = """
INSERT INTO _results
SELECT run_id, machine_id, root, $_pack, $_rule, $_title, $_severity, $_state, 0,
    []::VARCHAR[], $_message
FROM _subjects
"""

_COMPARED = """
UPDATE _results SET message = 'machines that could not be read and were not compared: ' || (
    SELECT count(DISTINCT machine_id) FROM _results
    WHERE rule_id = $_rule AND state IN ('error', 'unknown', 'notchecked')
)
WHERE rule_id = $_rule AND state = 'pass' AND EXISTS (
    SELECT 1 FROM _results
    WHERE rule_id = $_rule AND state IN ('error', 'unknown', 'notchecked')
)
"""


@dataclass(frozen=True)
class _Evaluation:
    """The rules' way into the results of one connection."""

    connection: duckdb.DuckDBPyConnection
    config: Config
    now: dt.datetime
    limits: Limits

    def add(self, pack: Pack, rule: Rule) -> None:
        """Add a rule's states."""
        if not self.config.selects(rule):
            self._add_plain(pack, rule, "notselected", None)
            return
        try:
            self._add_evaluated(pack, rule)
        except (RuleError, duckdb.Error) as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            log.warning("rule %s cannot be evaluated: %s", rule.id, reason)
            self._add_plain(pack, rule, "error", f"the rule cannot be evaluated: {reason}")

    def _add_plain(self, pack: Pack, rule: Rule, state: str, message: str | None) -> None:
        values = {"_state": state, "_message": message}
        self.connection.execute(_PLAIN, {**_labels(pack, rule), **values})

    def _add_evaluated(self, pack: Pack, rule: Rule) -> None:
        compiled = rule.compile()
        self._check_tables(compiled)
        with self._deadline():
            columns = self._columns(rule, compiled.violations)
            unknown = compiled.unknown
            if unknown and not {"machine_id", "root", "message"} <= set(
                self._columns(rule, unknown)
            ):
                raise RuleError("unknown must return machine_id, root and message")
            sql = _EVALUATE.format(
                root="root" if "root" in columns else "NULL::VARCHAR",
                evidence=_evidence(columns),
                violations=compiled.violations.sql,
                applies_to=_applies_to(pack, compiled),
                unknown=unknown.sql if unknown else f"{_NOBODY} LIMIT 0",
                rows=EVIDENCE_ROWS,
            )
            self.connection.execute(sql, self._bindings(pack, rule, compiled))
        if rule.fleet:
            self.connection.execute(_COMPARED, {"_rule": rule.id})

    def _check_tables(self, compiled: CompiledRule) -> None:
        known = {*load_tables(), *subjects.REFERENCE}
        if missing := sorted(compiled.tables - known):
            raise RuleError(f"there is no fact table {', '.join(missing)}")

    def _values(self, rule: Rule, compiled: CompiledRule) -> dict[str, Any]:
        built_in = {"now": self.now, "today": self.now.astimezone(dt.UTC).date()}
        return {**self.config.values(rule, compiled.parameters), **built_in}

    def _columns(self, rule: Rule, select: Select) -> dict[str, str]:
        """Names and types of what a SELECT returns."""
        values = self._values(rule, rule.compile())
        cursor = self.connection.execute(
            f"SELECT * FROM (\n{select.sql}\n) LIMIT 0",  # noqa: S608 - found harmless
            {name: values[name] for name in select.parameters},
        )
        columns = {str(item[0]): str(item[1]) for item in cursor.description or ()}
        if "machine_id" not in columns:
            raise RuleError("violations must return machine_id")
        return columns

    def _bindings(self, pack: Pack, rule: Rule, compiled: CompiledRule) -> dict[str, Any]:
        values = self._values(rule, compiled)
        selects = (compiled.violations, compiled.applies_to, compiled.unknown)
        used = frozenset().union(*(select.parameters for select in selects if select))
        looked_at = [(table, file) for table, some in compiled.reads.items() for file in some]
        applies = compiled.applies_to.tables if compiled.applies_to else frozenset()
        return {
            **{name: values[name] for name in used},
            **_labels(pack, rule),
            "_broken": "informational" if rule.informational else "fail",
            "_tables": sorted(compiled.tables),
            "_applies_tables": sorted(applies),
            "_complete": sorted(compiled.complete),
            "_empty_ok": sorted(rule.empty_ok),
            "_reads": sorted(compiled.reads),
            "_read_tables": [table for table, _ in looked_at],
            "_read_files": [file for _, file in looked_at],
        }

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        """Interrupt the connection when the block takes longer than a rule may."""
        expired = threading.Event()

        def interrupt() -> None:
            expired.set()
            self.connection.interrupt()

        timer = threading.Timer(self.limits.seconds, interrupt)
        timer.start()
        try:
            yield
        except duckdb.InterruptException as error:
            if not expired.is_set():
                raise
            raise RuleError(f"it took longer than {self.limits.seconds:g} seconds") from error
        finally:
            timer.cancel()
            timer.join()


def _labels(pack: Pack, rule: Rule) -> dict[str, str]:
    return {
        "_pack": pack.name,
        "_rule": rule.id,
        "_title": rule.title,
        "_severity": rule.severity,
    }


def _applies_to(pack: Pack, compiled: CompiledRule) -> str:
    roots = compiled.applies_to.sql if compiled.applies_to else _ALL_ROOTS
    outside = pack.info.outside()
    return _ROOTS_OF_PACK.format(roots=roots, outside=outside.sql) if outside else roots


def _evidence(columns: Mapping[str, str]) -> str:
    """An expression for a row's evidence: its columns, whom it is about left out."""
    pairs = []
    for name, kind in columns.items():
        if name not in ("machine_id", "root"):
            value = _identifier(name)
            if kind in ("VARCHAR", "STRING"):  # its name before DuckDB 1.2
                value = f"left({value}, {EVIDENCE_TEXT})"
            pairs.append(f"{_literal(name)}, {value}")
    return f"json_object({', '.join(pairs)})::VARCHAR" if pairs else "'{}'"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _finish(
    connection: duckdb.DuckDBPyConnection, given: Sequence[Waiver], now: dt.datetime
) -> Results:
    unused = waivers.apply(connection, given, now.astimezone(dt.UTC).date())
    names = ", ".join(SCHEMA.names)
    table = connection.sql(
        f"SELECT {names} FROM _waived ORDER BY machine_id, root NULLS FIRST, pack, rule_id"  # noqa: S608 - our own names
    ).to_arrow_table()
    return Results(table.cast(SCHEMA), unused)
