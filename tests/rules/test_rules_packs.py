from __future__ import annotations

import duckdb
import pytest

from fleetscan.rules import case_facts
from fleetscan.rules.cases import CaseOutcome, run_cases
from fleetscan.rules.load import load_packs
from fleetscan.rules.model import Pack, Rule

PACKS = load_packs()
RULES = [(pack, rule) for pack in PACKS for rule in pack.rules]
IDS = [rule.id for _, rule in RULES]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[CaseOutcome]]:
    found: dict[str, list[CaseOutcome]] = {}
    for outcome in run_cases(PACKS):
        found.setdefault(outcome.rule_id, []).append(outcome)
    return found


@pytest.mark.parametrize(("pack", "rule"), RULES, ids=IDS)
def test_cases_give_what_they_expect(
    pack: Pack, rule: Rule, outcomes: dict[str, list[CaseOutcome]]
) -> None:
    wrong = [
        f"{case.path}:{case.line}: {case.problem}" for case in outcomes[rule.id] if case.problem
    ]

    assert not wrong


@pytest.mark.parametrize(("pack", "rule"), RULES, ids=IDS)
def test_every_rule_has_a_case_that_passes_and_one_that_fails(
    pack: Pack, rule: Rule, outcomes: dict[str, list[CaseOutcome]]
) -> None:
    states = {state for case in outcomes.get(rule.id, []) for state in case.states}

    assert "pass" in states
    assert states & {"fail", "informational"}


@pytest.mark.parametrize(("pack", "rule"), RULES, ids=IDS)
def test_every_rule_says_why_and_what_to_do_and_what_it_rests_on(pack: Pack, rule: Rule) -> None:
    assert len(rule.rationale) > 20
    assert len(rule.remediation) > 15
    assert rule.references
    assert all(rule.references.values())
    assert rule.tags


@pytest.mark.parametrize(("pack", "rule"), RULES, ids=IDS)
def test_titles_say_what_must_hold_and_what_is_wrong(pack: Pack, rule: Rule) -> None:
    first = rule.title.split()[0].lower()

    assert rule.failing
    assert rule.failing != rule.title
    for text in (rule.title, rule.failing):
        assert not text.endswith(".")
        assert len(text) <= 80
    assert first not in {"check", "ensure", "verify", "detect", "find", "finds", "should", "must"}


@pytest.mark.parametrize(("pack", "rule"), RULES, ids=IDS)
def test_evidence_says_more_than_whose_it_is(pack: Pack, rule: Rule) -> None:
    with case_facts.load({}) as connection:
        connection.execute(
            "CREATE TABLE end_of_life(distro TEXT, release TEXT, eol DATE, source TEXT, taken DATE)"
        )
        columns = _columns(connection, rule)

    assert "machine_id" in columns
    assert set(columns) - {"machine_id", "root"}


def _columns(connection: duckdb.DuckDBPyConnection, rule: Rule) -> list[str]:
    compiled = rule.compile()
    built_in = {"today": "2026-01-01", "now": "2026-01-01"}
    values = {**compiled.parameters, **built_in}
    cursor = connection.execute(
        f"SELECT * FROM ({compiled.violations.sql}\n) LIMIT 0",  # noqa: S608 - our own rules
        {name: values[name] for name in compiled.violations.parameters},
    )
    return [item[0] for item in cursor.description or ()]


def test_ids_are_unique_over_all_packs() -> None:
    assert len(IDS) == len(set(IDS))


def test_the_baseline_is_a_pack_of_substance() -> None:
    [baseline] = [pack for pack in PACKS if pack.name == "linux-baseline"]

    assert len(baseline.rules) >= 20
