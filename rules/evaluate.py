"""Evaluation: from packs and the facts of a run to results.

For each rule one query finds the violations of the whole fleet (rules.query, rules.judge). When
it fails, it is evaluated over parts of the fleet, so that only those machines get an ``error``
over which it fails (rules.isolate). A run's facts are evaluated in a process of their own with
a hard memory limit (rules.judging_process), as guests choose how large and how odd their rows are.

A machine that failed or has no operating system has one result in all, an ``error`` of the rule
``machine-readable``: nobody knows which rules would be about it.

How the state of one rule for one root comes about, first match wins:

1. the site deselected the rule: ``notselected``;
2. the rule's SQL cannot be run over the machine: ``error``;
3. ``applies_to`` does not hold: ``notapplicable``, unless a table it needs was not fully seen;
4. a table listed in ``complete`` was not fully seen: as 6;
5. there are violations: ``fail``, or ``informational`` for rules so marked, whatever else could
   not be seen: evidence that was found is evidence;
6. a table that the rule reads was not fully seen: ``unknown`` when it failed, is missing or came
   out empty, ``notchecked`` when it was not asked for, ``notapplicable`` when it does not apply;
   one that lacks nothing but rows of files which the rule does not look at counts as seen
   (of a directory, which a slash ends, those of all files that lie below it); a table made by
   walking the tree was not fully seen where something was not mounted that the rule looks at
   (rules.unmounted);
7. the rule's ``unknown`` query names the root: ``unknown``;
8. the rule's ``subject`` query does not name the root: what the rule says in ``absent``;
9. ``pass``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from fleetscan.rules import isolate
from fleetscan.rules import waivers as waiving
from fleetscan.rules.judge import Judge, Judging, RuleLimits
from fleetscan.rules.judging_process import JudgingProcess
from fleetscan.rules.model import Config, Pack, Waiver
from fleetscan.rules.query import OWN_PACK, READABLE, readable_query, rule_query
from fleetscan.rules.results import SCHEMA, Results
from fleetscan.scanner.tables.results.spec import UNDECIDED, ResultState


@dataclass(frozen=True)
class _Given:
    """What else decides results, beside facts and rules; see :func:`evaluate`."""

    waivers: Sequence[Waiver]
    config: Config
    now: dt.datetime
    limits: RuleLimits


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    packs: Sequence[Pack],
    *,
    waivers: Sequence[Waiver] = (),
    config: Config | None = None,
    now: dt.datetime | None = None,
    limits: RuleLimits | None = None,
) -> Results:
    """Evaluate all rules of some packs over the facts of one run, in this process.

    The connection is sealed for good on the way: no file and network access beyond the
    directories already allowed, configuration locked.

    Args:
        connection: with a view for every fact table, holding the rows of one run.
        packs: the rules.
        waivers: accepted risks.
        config: what the site deselects and sets.
        now: the time that expiry and end of life are judged at, with a time zone; by default
            this moment.
        limits: time for a rule, memory for all.

    Raises:
        FleetscanError: the connection still reaches files and cannot be sealed.
    """
    limits = limits or RuleLimits()
    given = _Given(waivers, config or Config(), now or dt.datetime.now(dt.UTC), limits)
    with Judge(connection, _read(packs), limits.memory) as judge:
        return _evaluate(judge, packs, given)


def evaluate_run(
    process: JudgingProcess,
    facts: Path,
    run_id: str,
    packs: Sequence[Pack],
    *,
    waivers: Sequence[Waiver] = (),
    config: Config | None = None,
    now: dt.datetime | None = None,
) -> Results:
    """As :func:`evaluate`, over a stored run, in a process of the rules' own.

    Raises:
        StoreError: there is no such run, or a part of it is missing.
        FleetscanError: the process cannot be started, or dies before it has a rule.
    """
    given = _Given(waivers, config or Config(), now or dt.datetime.now(dt.UTC), process.limits)
    process.prepare(facts, run_id, _read(packs))
    return _evaluate(process, packs, given)


def _read(packs: Sequence[Pack]) -> frozenset[str]:
    return frozenset().union(*(rule.compile().tables for pack in packs for rule in pack.rules))


def _evaluate(judging: Judging, packs: Sequence[Pack], given: _Given) -> Results:
    tables = [judging.state(readable_query(given.now), ResultState.ERROR, None, None)]
    isolation = isolate.Isolation(judging, given.limits.seconds)
    for pack in packs:
        for rule in pack.rules:
            query = rule_query(pack, rule, given.config, given.now)
            if given.config.selects(rule):
                tables += isolation.states(query)
            else:
                tables.append(judging.state(query, ResultState.NOTSELECTED, None, None))
    fleet_rules = [rule.id for pack in packs for rule in pack.rules if rule.fleet]
    finished = _finished(tables, fleet_rules, given)
    return replace(finished, packs=(OWN_PACK, *(pack.name for pack in packs)))


_COMPARED = """
UPDATE _results SET message = 'machines that could not be read and were not compared: ' || (
    SELECT count(DISTINCT machine_id) FROM _results
    WHERE rule_id IN ($rule, $readable) AND list_contains($undecided, state)
)
WHERE rule_id = $rule AND state = 'pass' AND EXISTS (
    SELECT 1 FROM _results
    WHERE rule_id IN ($rule, $readable) AND list_contains($undecided, state)
)
"""


def _finished(tables: Sequence[pa.Table], fleet_rules: Sequence[str], given: _Given) -> Results:
    """States in order, with waivers."""
    if not tables:
        return Results(SCHEMA.empty_table(), tuple(given.waivers))
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        # After two seconds it would go to standard output, among the results.
        connection.execute("SET enable_progress_bar = false")
        connection.register("_arrived", pa.concat_tables(tables))
        connection.execute("CREATE TEMP TABLE _results AS FROM _arrived")
        connection.unregister("_arrived")
        for rule_id in fleet_rules:
            values = {"rule": rule_id, "readable": READABLE, "undecided": list(UNDECIDED)}
            connection.execute(_COMPARED, values)
        today = given.now.astimezone(dt.UTC).date()
        unused = waiving.apply(connection, given.waivers, today)
        names = ", ".join(SCHEMA.names)
        table = connection.sql(
            f"SELECT {names} FROM _waived ORDER BY machine_id, root NULLS FIRST, pack, rule_id"  # noqa: S608 - our own names
        ).to_arrow_table()
    # Each chunk would have dictionaries of its own, which cannot be grouped by.
    return Results(table.cast(SCHEMA).unify_dictionaries(), unused)
