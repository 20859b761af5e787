from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner import facts as facts_package
from fleetscan.scanner.fact_access import Facts, open_facts
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_all_tables
from tests.scanner.store.making import add_machine, finished_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs; machine b has not changed since the first, so that its facts stand there."""
    first = finished_run(tmp_path, {"a": ["old"], "b": ["kept", "too"]}).run_id
    run = Store(tmp_path).begin(["a", "b"], settings={})
    add_machine(run, "a", ["new"])
    add_machine(run, "b", [], facts_run=first)
    run.finish()
    return tmp_path


NEWEST = {("a", "new"), ("b", "kept"), ("b", "too")}


def names(rows: list[dict[str, object]]) -> set[tuple[object, object]]:
    return {(row["machine_id"], row["name"]) for row in rows}


def test_every_form_has_the_rows_that_a_query_has(folder: Path) -> None:
    with open_facts(folder) as facts:
        groups = facts["groups"]
        assert names(groups.arrow().to_pylist()) == NEWEST
        assert names(groups.batches().read_all().to_pylist()) == NEWEST
        assert names(groups.dataset().to_table().to_pylist()) == NEWEST
        assert names(groups.duckdb().to_arrow_table().to_pylist()) == NEWEST
        assert names(groups.pandas().to_dict("records")) == NEWEST  # type: ignore[arg-type] # of pandas' own key type
        sql = "SELECT machine_id, name FROM groups WHERE name = $name"
        assert facts.sql(sql, {"name": "new"}).num_rows == 1


def test_dask_reads_each_machine_in_one_partition_when_it_is_computed(folder: Path) -> None:
    with open_facts(folder) as facts:
        frame: Any = facts["groups"].dask(partitions=3)  # Dask's methods have no types
        ends: Any = facts["end_of_life"].dask(partitions=2)
        known = facts["end_of_life"].arrow().num_rows
    assert frame.npartitions == 3
    parts = [frame.get_partition(number).compute() for number in range(3)]
    found = [names(part.to_dict("records")) for part in parts]
    assert set.union(*found) == NEWEST
    assert sum(map(len, parts)) == len(NEWEST)
    assert sum("b" in {machine for machine, _ in part} for part in found) == 1
    assert len(ends.compute()) == known


def test_history_has_all_runs(folder: Path) -> None:
    with open_facts(folder) as facts:
        assert facts.history["groups"].arrow().num_rows == 6
        assert facts.history["runs"].arrow().num_rows == 2


def test_a_run_can_be_asked_for(folder: Path) -> None:
    first = Store(folder).runs()[0].run_id
    with open_facts(str(folder), run=first) as facts:
        assert facts.run_id == first
        assert ("a", "old") in names(facts["groups"].arrow().to_pylist())


def test_every_table_can_be_had(folder: Path) -> None:
    with open_facts(folder) as facts:
        assert {*facts, *facts.history} == set(load_all_tables())
        for shown in (facts, facts.history):
            _assert_columns(shown)
        with pytest.raises(KeyError):
            facts["no-such-table"]


def _assert_columns(facts: Facts) -> None:
    for table in facts.values():
        found = table.arrow().schema.names
        assert [name for name in found if name != "run_id"] == [
            column.name for column in table.columns if column.name != "run_id"
        ], table.name
        assert table.description


def test_only_selects_are_run(folder: Path) -> None:
    with open_facts(folder) as facts, pytest.raises(UsageError, match="SELECT"):
        facts.sql("DELETE FROM groups")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        open_facts(tmp_path / "none")


def test_the_package_has_the_name_that_is_documented(folder: Path) -> None:
    public = importlib.import_module("fleetscan.facts")
    assert public.open is facts_package.open is open_facts
    assert public.Facts is Facts
