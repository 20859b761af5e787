"""The example of a site's own pack, which users copy."""

from __future__ import annotations

from pathlib import Path

from fleetscan.rules import lint
from fleetscan.rules.cases import run_cases
from fleetscan.rules.load import load_packs

PROJECT = Path(__file__).resolve().parents[2]


def test_the_example_of_a_pack_has_nothing_that_lint_warns_about() -> None:
    [pack] = load_packs([str(PROJECT / "examples" / "site-pack")])
    outcomes = run_cases([pack])
    states = {state for outcome in outcomes for state in outcome.states}

    assert [outcome for outcome in outcomes if outcome.problem] == []
    assert list(lint.missing(pack, outcomes)) == []
    assert states == {"pass", "fail", "unknown", "notapplicable"}
