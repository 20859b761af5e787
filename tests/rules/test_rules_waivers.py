from __future__ import annotations

import datetime as dt
from typing import Any

from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.model import Waiver
from fleetscan.rules.results import Results
from tests.rules.rule_builder import make_pack, make_rule

TODAY = dt.date(2026, 6, 1)
USERS = [{"machine_id": "web/1", "name": "bad"}, {"machine_id": "db/1", "name": "bad"}]
RULES = [
    make_rule(name, violations="SELECT machine_id, root, name FROM users WHERE name = 'bad'")
    for name in ("first-rule", "second-rule")
]


def waiver(**fields: Any) -> Waiver:
    return Waiver.model_validate(
        {
            "rule": "first-rule",
            "machine": "*",
            "justification": "until they move",
            "expires": dt.date(2026, 12, 31),
            **fields,
        }
    )


def run(*waivers: Waiver) -> Results:
    now = dt.datetime(TODAY.year, TODAY.month, TODAY.day, 23, 59, tzinfo=dt.UTC)
    with case_facts.connect({"users": USERS}) as connection:
        return evaluate(connection, [make_pack(*RULES)], waivers=waivers, now=now)


def states(results: Results) -> dict[tuple[str, str], str]:
    return {(row["machine_id"], row["rule_id"]): row["state"] for row in results.table.to_pylist()}


def test_a_live_waiver_covers_its_rule_and_its_machines_alone() -> None:
    results = run(waiver(machine="web/*"))

    assert states(results) == {
        ("db/1", "first-rule"): "fail",
        ("db/1", "second-rule"): "fail",
        ("web/1", "first-rule"): "waived",
        ("web/1", "second-rule"): "fail",
    }
    [row] = [row for row in results.table.to_pylist() if row["state"] == "waived"]
    assert row["waiver_justification"] == "until they move"
    assert row["waiver_expires"] == dt.date(2026, 12, 31)
    assert row["violations"] == 1
    assert row["evidence"] == ['{"name":"bad"}']
    assert results.unused_waivers == ()


def test_a_pattern_may_name_rules() -> None:
    assert set(states(run(waiver(rule="*-rule"))).values()) == {"waived"}


def test_a_waiver_counts_on_its_last_day_and_not_on_the_next() -> None:
    assert states(run(waiver(expires=TODAY)))["db/1", "first-rule"] == "waived"

    results = run(waiver(expires=TODAY - dt.timedelta(days=1)))

    row = results.table.to_pylist()[0]
    assert row["state"] == "fail"
    assert row["message"] == "the waiver expired on 2026-05-31"
    assert row["waiver_justification"] == "until they move"
    assert results.unused_waivers == ()


def test_a_live_waiver_counts_before_an_expired_one_and_the_longest_of_all() -> None:
    expired = waiver(expires=dt.date(2026, 1, 1), justification="old")
    short = waiver(expires=dt.date(2026, 7, 1), justification="short")
    long = waiver(expires=dt.date(2026, 8, 1), justification="long")

    row = run(expired, short, long).table.to_pylist()[0]

    assert (row["state"], row["waiver_justification"]) == ("waived", "long")


def test_a_waiver_that_matches_no_failure_is_reported() -> None:
    gone = waiver(machine="mail/*")
    other = waiver(rule="third-rule")
    used = waiver()

    assert run(gone, used, other).unused_waivers == (gone, other)
