"""Severities, states, outcomes and statuses are defined once, and everything else follows them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fleetscan.appliance.ground.schema import Choice
from fleetscan.reports import html, states
from fleetscan.rules.results import AS_TEXT, SCHEMA, UNWAIVED
from fleetscan.scanner.tables import load_all_tables, load_tables
from fleetscan.scanner.tables.coverage.spec import CoverageStatus
from fleetscan.scanner.tables.machines.spec import Outcome, Stage
from fleetscan.scanner.tables.results.spec import DECIDED, UNDECIDED, ResultState, Severity

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("scanner", "appliance", "rules", "reports")
VOCABULARIES: tuple[type[Choice], ...] = (Severity, ResultState, Outcome, Stage, CoverageStatus)
COLUMNS = (
    ("results", "severity", Severity),
    ("results", "state", ResultState),
    ("machines", "outcome", Outcome),
    ("machines", "stage", Stage),
    ("coverage", "status", CoverageStatus),
)

every_vocabulary = pytest.mark.parametrize("words", VOCABULARIES, ids=lambda one: one.__name__)


def _modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if "cases" not in path.parts:
                yield path


def _lists(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """The texts that stand side by side: in lists, keys, ``Literal[...]`` and bodies of enums."""
    for node in ast.walk(tree):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            found = [*node.elts]
        elif isinstance(node, ast.Dict):
            found = node.keys
        elif isinstance(node, ast.ClassDef):
            found = [item.value for item in node.body if isinstance(item, ast.Assign)]
        texts = {one.value for one in found if isinstance(one, ast.Constant)}
        yield getattr(node, "lineno", 0), {text for text in texts if isinstance(text, str)}


@every_vocabulary
def test_words_are_listed_in_one_place(words: type[Choice]) -> None:
    places = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in _modules()
        for line, texts in _lists(ast.parse(path.read_text()))
        if len(texts & set(words)) > 2
    ]
    assert [place.rpartition(":")[0] for place in places] == [
        f"scanner/tables/{table}/spec.py" for table, _, kind in COLUMNS if kind is words
    ], places


@pytest.mark.parametrize(("table", "column", "words"), COLUMNS)
def test_columns_have_the_words_as_their_values(
    table: str, column: str, words: type[Choice]
) -> None:
    columns = {one.name: one for one in load_all_tables()[table].columns}
    assert columns[column].values == tuple(words)


def test_ranks_follow_the_order() -> None:
    assert [severity.rank for severity in Severity] == [0, 1, 2, 3, 4]
    assert Severity.CRITICAL.rank < Severity.INFO.rank
    assert Outcome.OK.rank < Outcome.FAILED.rank


def test_a_state_is_decided_or_undecided_or_was_not_due() -> None:
    assert not set(DECIDED) & set(UNDECIDED)
    rest = set(ResultState) - {*DECIDED, *UNDECIDED}
    assert rest == {"informational", "notapplicable", "notselected"}


def test_results_have_one_schema_in_all_their_forms() -> None:
    columns = load_all_tables()["results"].columns
    assert SCHEMA.names == ["run_id", "machine_id", *(column.name for column in columns)]
    assert AS_TEXT.names == SCHEMA.names
    assert UNWAIVED.names == [name for name in SCHEMA.names if not name.startswith("waiver_")]
    assert not any(pa.types.is_dictionary(field.type) for field in AS_TEXT)


def test_results_are_no_facts_of_a_scan() -> None:
    assert "results" not in load_tables()


def test_reports_have_a_word_for_each_state_and_outcome() -> None:
    assert list(states.WORDS) == list(ResultState)
    assert list(html.OUTCOME_WORDS) == list(Outcome)


def test_the_page_has_a_colour_for_each_severity() -> None:
    css = (REPOSITORY / "reports/templates/report.css").read_text()
    for severity in Severity:
        assert len(re.findall(rf"--{severity}: #", css)) == 2, severity  # light and dark


def test_the_documentation_of_rules_and_reports_knows_every_word() -> None:
    rules = (REPOSITORY / "rules/README.md").read_text()
    reports = (REPOSITORY / "reports/README.md").read_text()
    assert f"{', '.join(list(Severity)[:-1])} or {list(Severity)[-1]}" in rules
    assert [state for state in ResultState if f"`{state}`" not in rules] == []
    assert [state for state in ResultState if f"`{state}`" not in reports] == []
    assert " + ".join(f"`{state}`" for state in UNDECIDED) in reports
