"""Rules' own cases: facts in, states out.

A case file is ``cases/<rule-id>.yaml`` in its pack: a list of cases, each of which describes a
small fleet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from fleetscan.rules import case_facts, source
from fleetscan.rules.case_facts import DEVICE, MACHINE, FactError
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.model import Config, Pack, Parameter, Rule, Strict, Text
from fleetscan.rules.query import READABLE
from fleetscan.rules.source import Document, Problem, SourceError
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.results.spec import ResultState

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""The time at which cases are evaluated, unless they say another."""


class Expected(Strict):
    """The state of one root.

    Attributes:
        machine, root: whose; root null where no system was found.
        state: what the rule must give.
        violations: how many offending rows, when the case cares.
    """

    machine: Text = MACHINE
    root: Text | None = DEVICE
    state: ResultState
    violations: int | None = None


class Case(Strict):
    """One case.

    Attributes:
        name: what it shows.
        facts: rows by table, as rules.case_facts.connect takes them.
        coverage: coverage rows that differ from ok and empty.
        parameters: values in place of the rule's defaults.
        now: the day of evaluation.
        absent: whether it shows what the absence of what the rule is about means.
        expect: a state, for a case about one root, or a list of what each root gets.
    """

    name: Text
    facts: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    coverage: list[dict[str, Any]] = Field(default_factory=list)
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    now: dt.date | None = None
    absent: bool = False
    expect: ResultState | list[Expected]

    def expected(self) -> list[Expected]:
        """What each root gets."""
        if isinstance(self.expect, ResultState):
            return [Expected(state=self.expect)]
        return sorted(self.expect, key=lambda item: (item.machine, item.root or ""))


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one case.

    Attributes:
        pack, rule_id, name: which case.
        path, line: where it stands.
        states: the states it expects.
        absent: whether what the rule is about is not there.
        problem: how the result differs from them; empty when it does not.
    """

    pack: str
    rule_id: str
    name: str
    path: Path
    line: int
    states: tuple[ResultState, ...]
    absent: bool
    problem: str

    @property
    def passed(self) -> bool:
        """Whether every root got the state that the case expects."""
        return not self.problem


def case_path(pack: Pack, rule: Rule) -> Path:
    """Where a rule's cases stand."""
    return pack.folder / "cases" / f"{rule.id}.yaml"


@dataclass(frozen=True)
class _Placed:
    """A case, where it stands, and its rows."""

    pack: Pack
    rule: Rule
    document: Document
    case: Case
    rows: dict[str, list[dict[str, Any]]]


def run_cases(packs: Sequence[Pack]) -> list[CaseOutcome]:
    """Evaluate every case of some packs.

    Cases are evaluated side by side, the machines of each under names of their own; those of
    fleet rules, which would see each other, one by one. Rules without a case file have no
    outcomes.

    Raises:
        UsageError: some case file is wrong or is no rule's; every problem with file and line.
    """
    problems: list[Problem] = []
    cases: list[_Placed] = []
    for pack in packs:
        problems += _stray_files(pack)
        for rule in pack.rules:
            try:
                cases += _read_cases(pack, rule)
            except SourceError as error:
                problems += error.problems
    if problems:
        raise source.usage_error(problems)
    outcomes = [outcome for together in _rounds(cases) for outcome in _run(together)]
    return sorted(outcomes, key=lambda outcome: (outcome.pack, outcome.rule_id, outcome.line))


def _stray_files(pack: Pack) -> list[Problem]:
    wanted = {case_path(pack, rule) for rule in pack.rules}
    found = sorted((pack.folder / "cases").glob("*.yaml"))
    return [Problem(path, 0, "no rule has this id") for path in found if path not in wanted]


def _read_cases(pack: Pack, rule: Rule) -> list[_Placed]:
    path = case_path(pack, rule)
    if not path.exists():
        return []
    document = source.read(path)
    placed = []
    for case, part in zip(document.parse(list[Case]), document.items(), strict=True):
        placed.append(_Placed(pack, rule, part, case, _rows(part, case, rule)))
    return placed


def _rows(document: Document, case: Case, rule: Rule) -> dict[str, list[dict[str, Any]]]:
    # A rule may come before the table it reads: its evaluation says so then, not its cases.
    awaited = rule.compile().tables - set(load_tables())
    rows = {name: rows for name, rows in case.facts.items() if name not in awaited}
    coverage = [row for row in case.coverage if row.get("table_name") not in awaited]
    try:
        return case_facts.complete(rows, coverage)
    except FactError as error:
        place: source.Location = ("facts", error.table)
        if error.table == "coverage" and "coverage" not in case.facts:
            place = ("coverage",)
        if error.index is not None:
            place = (*place, error.index)
        raise SourceError([document.problem(place, str(error))]) from error


def _rounds(cases: Sequence[_Placed]) -> list[list[_Placed]]:
    """Cases that can be evaluated together: on one day, with one set of parameters."""
    rounds: dict[tuple[object, ...], list[_Placed]] = {}
    for number, placed in enumerate(cases):
        case = placed.case
        own = (placed.rule.id, repr(case.parameters)) if case.parameters else ()
        alone = number if placed.rule.fleet else -1
        rounds.setdefault((case.now, own, alone), []).append(placed)
    return list(rounds.values())


def _run(together: Sequence[_Placed]) -> Iterator[CaseOutcome]:
    rules = {placed.rule.id: (placed.pack, placed.rule) for placed in together}
    config = Config(parameters={placed.rule.id: placed.case.parameters for placed in together})
    with case_facts.load(_side_by_side(together)) as connection:
        results = evaluate(
            connection,
            [replace(pack, rules=(rule,)) for pack, rule in rules.values()],
            config=config,
            now=_time(together[0].case),
        )
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results.table.to_pylist():
        number, _, row["machine_id"] = row["machine_id"].partition(":")
        found.setdefault((number, row["rule_id"]), []).append(row)
    for number, placed in enumerate(together):
        # A machine that no rule can look at has one result, which stands for those of all rules.
        rows = [
            row
            for rule_id in (placed.rule.id, READABLE)
            for row in found.get((str(number), rule_id), ())
        ]
        yield CaseOutcome(
            pack=placed.pack.name,
            rule_id=placed.rule.id,
            name=placed.case.name,
            path=placed.document.path,
            line=placed.document.lines[()],
            states=tuple(item.state for item in placed.case.expected()),
            absent=placed.case.absent,
            problem=_difference(rows, placed.case),
        )


def _time(case: Case) -> dt.datetime:
    if case.now is None:
        return NOW
    return dt.datetime(case.now.year, case.now.month, case.now.day, tzinfo=dt.UTC)


def _side_by_side(together: Sequence[_Placed]) -> dict[str, list[dict[str, Any]]]:
    merged: dict[str, list[dict[str, Any]]] = {}
    for number, placed in enumerate(together):
        for name, rows in placed.rows.items():
            merged.setdefault(name, []).extend(
                {**row, "machine_id": f"{number}:{row['machine_id']}"} for row in rows
            )
    return merged


def _difference(rows: Sequence[dict[str, Any]], case: Case) -> str:
    by_subject = {(row["machine_id"], row["root"]): row for row in rows}
    differences = []
    for item in case.expected():
        row = by_subject.pop((item.machine, item.root), None)
        if row is None:
            differences.append(f"{item.machine} {item.root}: no result")
        elif row["state"] != item.state or item.violations not in (None, row["violations"]):
            differences.append(_describe(row, item))
    differences += [f"{machine} {root}: not expected" for machine, root in by_subject]
    return "; ".join(differences)


def _describe(row: dict[str, Any], item: Expected) -> str:
    wanted = item.state if item.violations is None else f"{item.state} of {item.violations}"
    got = f"{row['state']} of {row['violations']}" if row["violations"] else row["state"]
    detail = row["message"] or ", ".join(row["evidence"])
    return f"{item.machine} {item.root}: expected {wanted}, got {got} ({detail})"
