"""Rules and packs for tests, without files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.model import Pack, PackInfo, Rule
from fleetscan.rules.results import SCHEMA

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROOT_ACCOUNT = {"users": [{"name": "root"}]}
NAMED_BAD = "SELECT machine_id, root, name FROM users WHERE name = 'bad'"

Facts = Mapping[str, Sequence[case_facts.Row]]
Rows = list[dict[str, Any]]


def make_rule(rule_id: str = "some-rule", **fields: Any) -> Rule:
    """A rule of which only what matters is said; without SQL it finds nothing."""
    given: dict[str, Any] = {
        "id": rule_id,
        "title": "Something holds",
        "severity": "high",
        "rationale": "It matters.",
        "remediation": "Do it.",
        **fields,
    }
    if "check" not in fields:
        given.setdefault("violations", "SELECT machine_id, root FROM users WHERE false")
    return Rule.model_validate(given)


def make_pack(*rules: Rule, name: str = "some-pack") -> Pack:
    """A pack of some rules."""
    info = PackInfo(title="Some pack", description="For tests.")
    return Pack(name, Path(name), info, rules)


def run(
    *rules: Rule,
    given: Facts = ROOT_ACCOUNT,
    coverage: Sequence[case_facts.Row] = (),
    **options: Any,
) -> Rows:
    """Results of some rules over some facts, as rows."""
    with case_facts.connect(given, coverage) as connection:
        results = evaluate(connection, [make_pack(*rules)], now=NOW, **options)
    assert results.table.schema == SCHEMA
    rows: Rows = results.table.to_pylist()
    return rows


def only(rows: Rows) -> dict[str, Any]:
    """The one row."""
    [row] = rows
    return row


def status(table: str, status: str, error: str | None = None, **more: Any) -> case_facts.Row:
    """A row of coverage."""
    place = {"machine_id": "m", "root": "/dev/sda1"}
    return {**place, "table_name": table, "status": status, "error": error, **more}
