from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.model import Config, Rule
from fleetscan.rules.query import rule_query
from fleetscan.rules.results import SCHEMA, Results, read_results, results_path, write_results
from fleetscan.scanner.tables.results.spec import Severity
from tests.rules.rule_builder import NOW, make_pack, make_rule

PACK = "some-pack"


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
        return evaluate(connection, [make_pack(*rules)], now=NOW)


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
    write_results(results, tmp_path, "some-run")

    path = results_path(tmp_path, "some-run", PACK)
    assert read_results(tmp_path, "some-run").equals(results.table)
    own = results_path(tmp_path, "some-run", "fleetscan")
    assert sorted(path.parent.iterdir()) == sorted([path, own])


def test_other_tools_read_them_without_us(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path, "some-run")

    path = results_path(tmp_path, "some-run", PACK)
    assert pq.ParquetFile(path).schema_arrow.names == SCHEMA.names


def test_writing_again_replaces(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path, "some-run")
    write_results(Results(results.table.slice(0, 1)), tmp_path, "some-run")

    assert read_results(tmp_path, "some-run").num_rows == 1


def test_results_of_other_packs_stay(results: Results, tmp_path: Path) -> None:
    other = pa.array(["other pack"] * len(results.table))
    at = results.table.schema.get_field_index("pack")
    write_results(results, tmp_path, "some-run")
    write_results(Results(results.table.set_column(at, "pack", other)), tmp_path, "some-run")

    both = read_results(tmp_path, "some-run")
    assert both.num_rows == 2 * len(results.table)
    keys = [(row["machine_id"], row["root"], row["pack"]) for row in both.to_pylist()]
    assert keys == sorted(keys)
    write_results(results, tmp_path, "some-run")
    assert read_results(tmp_path, "some-run").equals(both)


def test_a_pack_that_finds_nothing_any_more_leaves_nothing(
    results: Results, tmp_path: Path
) -> None:
    write_results(results, tmp_path, "some-run")
    write_results(Results(SCHEMA.empty_table(), packs=(PACK,)), tmp_path, "some-run")

    assert read_results(tmp_path, "some-run").num_rows == 0


@pytest.mark.parametrize("pack", ["../../etc", "a/b", ".", "", "päck", "x" * 300, "a b"])
def test_no_name_of_a_pack_leads_out_of_the_folder(pack: str, tmp_path: Path) -> None:
    path = results_path(tmp_path, "some-run", pack)
    assert path.parent == results_path(tmp_path, "some-run", PACK).parent
    assert path != results_path(tmp_path, "some-run", pack + "_")
    assert len(path.name) < 200


def test_results_say_when_and_by_what_they_were_judged(results: Results) -> None:
    rows = results.table.to_pylist()
    assert {row["checked"] for row in rows} == {NOW}
    digests = {row["rule_id"]: row["rule_digest"] for row in rows}
    assert len(set(digests.values())) == 3  # rules


def test_a_rules_digest_tells_of_its_text_and_of_the_sites_parameters() -> None:
    sql = "SELECT machine_id, root FROM users WHERE uid = $uid"
    digests = {
        _digest(rule, uid)
        for rule in (
            make_rule("a", violations=sql, parameters={"uid": 0}),
            make_rule("a", violations=sql + " AND true", parameters={"uid": 0}),
        )
        for uid in (0, 1)
    }
    assert len(digests) == 4


def _digest(rule: Rule, uid: int) -> str:
    config = Config(parameters={rule.id: {"uid": uid}})
    later = NOW + dt.timedelta(days=1)
    pack = make_pack(rule)
    (one, other) = (rule_query(pack, rule, config, now).labels["_digest"] for now in (NOW, later))
    assert one == other
    return str(one)


def test_a_run_that_was_not_checked_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no results") as caught:
        read_results(tmp_path, "some-run")

    assert "fleetscan check" in caught.value.hint
