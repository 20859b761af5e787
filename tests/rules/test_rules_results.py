from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.results import SCHEMA, Results, read_results, results_path, write_results
from fleetscan.scanner.tables.results.spec import Severity
from tests.rules.rule_builder import make_pack, make_rule


@pytest.fixture
def results() -> Results:
    bad = "SELECT machine_id, root, name FROM users WHERE name = 'bad'"
    rules = [
        make_rule("a-rule", severity="critical", violations=bad),
        make_rule("b-rule", severity="low", violations=bad),
        make_rule("c-rule", severity="critical"),
    ]
    users = [{"machine_id": "a", "name": "bad"}, {"machine_id": "b", "name": "good"}]
    with case_facts.connect({"users": users}) as connection:
        return evaluate(connection, [make_pack(*rules)])


def test_counts_by_severity_and_state(results: Results) -> None:
    assert results.counts() == {
        ("critical", "fail"): 1,
        ("critical", "pass"): 3,
        ("low", "fail"): 1,
        ("low", "pass"): 1,
    }


def test_findings_are_failures_of_a_severity_or_a_graver_one(results: Results) -> None:
    assert results.findings(Severity.INFO) == 2
    assert results.findings(Severity.LOW) == 2
    assert results.findings(Severity.MEDIUM) == 1
    assert results.findings(Severity.CRITICAL) == 1


def test_results_are_read_back_as_they_were_written(results: Results, tmp_path: Path) -> None:
    path = write_results(results, tmp_path, "some-run")

    assert path == results_path(tmp_path, "some-run")
    assert read_results(tmp_path, "some-run").equals(results.table)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_other_tools_read_them_without_us(results: Results, tmp_path: Path) -> None:
    path = write_results(results, tmp_path, "some-run")

    assert pq.ParquetFile(path).schema_arrow.names == SCHEMA.names


def test_writing_again_replaces(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path, "some-run")
    write_results(Results(results.table.slice(0, 1)), tmp_path, "some-run")

    assert read_results(tmp_path, "some-run").num_rows == 1


def test_a_run_that_was_not_checked_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no results") as caught:
        read_results(tmp_path, "some-run")

    assert "fleetscan check" in caught.value.hint
