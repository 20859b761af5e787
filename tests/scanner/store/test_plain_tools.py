"""The store as other tools read it, without our code."""

from __future__ import annotations

from pathlib import Path

import dask.dataframe
import duckdb
import pandas as pd
import pytest

from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from tests.scanner.store.making import add_machine, finished_run

FLEET = {"a": ["sudo", "adm"], "b": [], "c": ["video"]}


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return finished_run(tmp_path, FLEET)


def test_duckdb_reads_a_table_of_all_runs(tmp_path: Path, run: RunInfo) -> None:
    sql = "SELECT run, machine_id, name FROM read_parquet(?, hive_partitioning = true) ORDER BY ALL"
    found = duckdb.execute(sql, [f"{tmp_path}/groups/**/*.parquet"]).fetchall()
    assert found == [
        (run.run_id, "a", "adm"),
        (run.run_id, "a", "sudo"),
        (run.run_id, "c", "video"),
    ]


def test_pandas_reads_a_table_of_all_runs(tmp_path: Path, run: RunInfo) -> None:
    found = pd.read_parquet(tmp_path / "groups")
    assert list(found["name"]) == ["sudo", "adm", "video"]
    assert set(found["run"]) == {run.run_id}
    machines = pd.read_parquet(tmp_path / "machines")
    assert str(machines["started"].dtype) == "datetime64[us, UTC]"
    assert str(machines["outcome"].dtype) == "category"


def test_dask_reads_a_table_of_all_runs(tmp_path: Path, run: RunInfo) -> None:
    found = dask.dataframe.read_parquet(tmp_path / "groups")
    assert sorted(found["name"].compute()) == ["adm", "sudo", "video"]


def test_a_machine_that_did_not_change_is_joined_with_the_run_that_holds_its_rows(
    tmp_path: Path, run: RunInfo
) -> None:
    later = Store(tmp_path).begin(["a", "b"], settings={})
    add_machine(later, "a", [], facts_run=run.run_id)
    add_machine(later, "b", ["new"])
    later.finish()
    sql = """
        SELECT m.run, g.machine_id, g.name
        FROM read_parquet($machines, hive_partitioning = true) m
        JOIN read_parquet($groups, hive_partitioning = true) g
          ON g.machine_id = m.machine_id AND g.run = m.facts_run
        WHERE m.run = $run ORDER BY ALL
    """
    tables = {name: f"{tmp_path}/{name}/**/*.parquet" for name in ("machines", "groups")}
    found = duckdb.execute(sql, tables | {"run": later.run_id}).fetchall()
    assert found == [
        (later.run_id, "a", "adm"),
        (later.run_id, "a", "sudo"),
        (later.run_id, "b", "new"),
    ]


def test_what_a_killed_writer_left_is_no_data_to_anybody(tmp_path: Path, run: RunInfo) -> None:
    directory = tmp_path / "groups" / f"run={run.run_id}"
    (directory / ".part-00000.parquet.0123abcd.tmp").write_bytes(b"torn")
    assert len(pd.read_parquet(tmp_path / "groups")) == 3
    counted = duckdb.execute(f"SELECT count(*) FROM '{tmp_path}/groups/**/*.parquet'").fetchall()  # noqa: S608 - a path of this test
    assert counted == [(3,)]
