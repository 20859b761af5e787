from __future__ import annotations

import gc
import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner.store import layout, parts
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.views import connect, query, require_select, stream
from fleetscan.scanner.tables import load_tables
from tests.scanner.store.making import add_machine, finished_run

FLEET = {"a": ["sudo", "adm"], "b": [], "c": ["video"]}


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return tmp_path / "fact's [of] *one fleet"


@pytest.fixture
def run(facts: Path, monkeypatch: pytest.MonkeyPatch) -> RunInfo:
    """A run of two batches, whose parts are left as they are."""
    monkeypatch.setattr(parts, "SMALL_PART", 0)
    return finished_run(facts, FLEET)


def rows(facts: Path, sql: str, run_id: str | None = None, **options: bool) -> list[object]:
    with connect(facts, run_id, **options) as connection:  # type: ignore[arg-type] # history only
        return [tuple(row.values()) for row in query(connection, sql).to_pylist()]


# -- what the views show -------------------------------------------------------------------------


@pytest.mark.parametrize("table", load_tables().values(), ids=lambda table: table.name)
def test_every_table_is_a_view_with_the_columns_of_its_spec(
    facts: Path, run: RunInfo, table: object
) -> None:
    name = table.name  # type: ignore[attr-defined] # parametrize has no types
    with connect(facts) as connection:
        found = query(connection, f"SELECT * FROM {name}").schema  # noqa: S608 - names of specs
    assert found.names == ["run_id", *(c.name for c in all_columns(load_tables()[name]))]


def test_views_show_the_newest_run_unless_told(facts: Path, run: RunInfo) -> None:
    newer = finished_run(facts, {"a": ["new"]})
    sql = "SELECT DISTINCT run_id, name FROM groups WHERE machine_id = 'a' ORDER BY name"
    if newer.run_id < run.run_id:  # begun in the same second: the random tail decides
        newer, run = run, newer
    assert {row[0] for row in rows(facts, sql)} == {newer.run_id}  # type: ignore[index]
    assert {row[0] for row in rows(facts, sql, run.run_id)} == {run.run_id}  # type: ignore[index]


def test_rows_keep_their_types_and_times_are_utc(facts: Path, run: RunInfo) -> None:
    with connect(facts) as connection:
        found = query(connection, "SELECT m.started, g.gid, g.members FROM machines m, groups g")
        # Rules run on cursors of one connection.
        zone = query(connection.cursor(), "SELECT current_setting('TimeZone') AS zone")
    assert found.schema.field("started").type == pa.timestamp("us", tz="UTC")
    assert found.schema.field("gid").type == pa.uint32()
    assert found.schema.field("members").type.value_type == pa.string()
    assert zone.to_pylist() == [{"zone": "UTC"}]


def test_an_unfinished_run_is_not_seen(facts: Path, run: RunInfo) -> None:
    going_on = Store(facts).begin(["z"], settings={})
    add_machine(going_on, "z")
    going_on.compact(["z"])
    assert rows(facts, "SELECT machine_id FROM machines ORDER BY 1") == [("a",), ("b",), ("c",)]
    assert rows(facts, "SELECT count(*) FROM history.machines", history=True) == [(3,)]


def night(facts: Path, number: int, machines: dict[str, tuple[list[str], str | None]]) -> str:
    run_id = f"2026010{number}T000000Z-00000{number}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "new_run_id", lambda _: run_id)
        run = Store(facts).begin(machines, settings={}, batch_size=1)
    for machine_id, (groups, facts_run) in machines.items():
        add_machine(run, machine_id, groups, facts_run=facts_run)
    return run.finish().run_id


def test_unchanged_machines_show_the_rows_of_the_run_that_holds_them(facts: Path) -> None:
    first = night(facts, 1, {"a": (["a1"], None), "b": (["b1"], None), "c": (["c1"], None)})
    second = night(facts, 2, {"a": ([], first), "b": (["b2"], None), "c": (["c2"], None)})
    third = night(facts, 3, {"a": ([], first), "b": ([], second), "d": (["d3"], None)})
    sql = "SELECT run_id, machine_id, name FROM groups ORDER BY machine_id, name"
    assert rows(facts, sql) == [(third, "a", "a1"), (third, "b", "b2"), (third, "d", "d3")]
    assert rows(facts, sql, second) == [
        (second, "a", "a1"),
        (second, "b", "b2"),
        (second, "c", "c2"),
    ]
    assert rows(facts, sql, first) == [(first, m, f"{m}1") for m in "abc"]
    assert rows(facts, "SELECT machine_id FROM machines ORDER BY 1") == [("a",), ("b",), ("d",)]


def test_history_shows_every_visible_run_as_each_would_show_itself(facts: Path) -> None:
    first = night(facts, 1, {"a": (["a1"], None), "b": (["b1"], None)})
    second = night(facts, 2, {"a": ([], first), "b": (["b2"], None)})
    sql = "SELECT run_id, machine_id, name FROM history.groups ORDER BY ALL"
    assert rows(facts, sql, history=True) == [
        (first, "a", "a1"),
        (first, "b", "b1"),
        (second, "a", "a1"),
        (second, "b", "b2"),
    ]
    counted = rows(facts, "SELECT count(*) FROM history.machines", first, history=True)
    assert counted == [(4,)]


def test_runs_of_versions_without_a_column_or_table_show_null_or_nothing(facts: Path) -> None:
    old = night(facts, 1, {"a": (["a1"], None)})
    night(facts, 2, {"a": (["a2"], None), "b": ([], None)})
    path = layout.part(facts, "groups", old, 0)
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["members"]), path)
    run_file = layout.run_file(facts, old)
    text = run_file.read_text().replace('    "members",\n', "")
    run_file.write_text(text.replace('"users"', '"former_users"'))
    assert rows(facts, "SELECT name, members FROM groups", old) == [("a1", None)]
    assert rows(facts, "SELECT * FROM users", old) == []
    sql = "SELECT name, members FROM history.groups ORDER BY name"
    assert rows(facts, sql, history=True) == [("a1", None), ("a2", ["ann"])]
    assert rows(facts, "SELECT * FROM history.users", history=True) == []


def test_a_table_that_is_no_more_stays_readable_by_other_tools_alone(facts: Path) -> None:
    old = night(facts, 1, {"a": (["a1"], None)})
    path = layout.run_file(facts, old)
    path.write_text(path.read_text().replace('"groups": {', '"former_groups": {'))
    (facts / "groups").rename(facts / "former_groups")
    assert rows(facts, "SELECT * FROM groups") == []


def test_many_nights_are_one_scan_and_what_all_need_is_not_joined(facts: Path) -> None:
    first = night(facts, 1, {"a": (["a1"], None), "b": (["b1"], None)})
    second = night(facts, 2, {"a": ([], first), "b": ([], first), "c": (["c2"], None)})
    with connect(facts, second) as connection:
        plan = str(connection.execute("EXPLAIN SELECT * FROM groups").fetchall())
    assert "JOIN" not in plan
    third = night(facts, 3, {"a": (["a3"], None), "b": ([], first), "c": ([], second)})
    fourth = night(facts, 4, {"a": ([], third), "b": ([], first), "c": (["c4"], None)})
    with connect(facts, fourth) as connection:
        plan = str(connection.execute("EXPLAIN SELECT * FROM groups").fetchall())
        found = query(connection, "SELECT name FROM groups ORDER BY name").to_pylist()
    assert plan.count("READ_PARQUET") == 2
    assert [row["name"] for row in found] == ["a3", "b1", "c4"]


def test_a_store_below_a_directory_named_like_a_partition_is_read(tmp_path: Path) -> None:
    facts = tmp_path / "run=20990101T000000Z-ffffff" / "facts"
    first = night(facts, 1, {"a": (["a1"], None), "b": (["b1"], None)})
    night(facts, 2, {"a": ([], first), "b": (["b2"], None)})
    found = rows(facts, "SELECT name FROM groups ORDER BY name")
    assert found == [("a1",), ("b2",)]
    found = rows(facts, "SELECT name FROM history.groups ORDER BY name", history=True)
    assert found == [("a1",), ("a1",), ("b1",), ("b2",)]


# -- what they do not let through ----------------------------------------------------------------

OUTSIDE = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_parquet('https://192.0.2.1/x.parquet')",
    "SELECT * FROM facts",  # a variable of this module's tests
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := '/tmp/log')",
    "SELECT * FROM enable_profiling(save_location := '/tmp/profile')",
    "SELECT * FROM query('ATTACH ''/tmp/x.db''')",
]
NOT_ONE_SELECT = [
    "",
    ";",
    "-- nothing",
    "SELECT 1; SELECT 2",
    "COPY groups TO '/tmp/out.csv'",
    "ATTACH '/tmp/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW groups",
    "PREPARE p AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPORT DATABASE '/tmp/out'",
    "WITH x AS (COPY groups TO '/tmp/out.csv') SELECT 1",
    "WITH x AS (SELECT 1), y AS (COPY groups TO '/tmp/out.csv') SELECT * FROM x",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY groups TO '/tmp/out.csv') SELECT 1)",
]


@pytest.mark.parametrize("sql", OUTSIDE)
def test_nothing_outside_the_run_can_be_reached(facts: Path, run: RunInfo, sql: str) -> None:
    with connect(facts) as connection, pytest.raises(UsageError):
        query(connection, sql)


@pytest.mark.parametrize("sql", NOT_ONE_SELECT)
def test_anything_but_one_select_is_refused(facts: Path, run: RunInfo, sql: str) -> None:
    with connect(facts) as connection, pytest.raises(UsageError, match="one SELECT statement"):
        query(connection, sql)


def test_a_part_cannot_be_overwritten_from_inside_a_select(facts: Path, run: RunInfo) -> None:
    path = layout.part(facts, "groups", run.run_id, 0)
    before = path.read_bytes()
    target = str(path).replace("'", "''")
    sql = f"WITH x AS (COPY groups TO '{target}' (FORMAT csv, USE_TMP_FILE false)) SELECT 1"
    with connect(facts) as connection, pytest.raises(UsageError, match="one SELECT statement"):
        query(connection, sql)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "COPY groups TO '{}/new.parquet'",
        "COPY groups TO '{}/runs/x.json' (FORMAT json)",
        "ATTACH '{}/new.db'",
        "SELECT * FROM read_text('{}/runs/*')",
        "COPY groups TO '/tmp/fleetscan-test-out.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '1TB'",
    ],
)
def test_the_connection_itself_cannot_write_or_read_beside_the_parts(
    facts: Path, run: RunInfo, sql: str
) -> None:
    before = sorted(facts.rglob("*"))
    with connect(facts) as connection, pytest.raises(duckdb.Error, match=r"disabled|locked"):
        connection.execute(sql.format(str(facts).replace("'", "''"))).fetchall()
    assert sorted(facts.rglob("*")) == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM groups",
        "SELECT 1;",
        "VALUES (1)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "(SELECT 1) UNION SELECT 2 ORDER BY 1",
        "DESCRIBE groups",
        "SHOW TABLES",
        "SELECT name FROM groups WHERE name IN (WITH x AS (SELECT 'sudo') FROM x)",
    ],
)
def test_everything_that_reads_is_allowed(facts: Path, run: RunInfo, sql: str) -> None:
    with connect(facts) as connection:
        assert query(connection, sql).num_rows > 0


def test_parameters_are_bound(facts: Path, run: RunInfo) -> None:
    with connect(facts) as connection:
        found = query(connection, "SELECT name FROM groups WHERE name = ?", ["sudo"])
        assert found.to_pylist() == [{"name": "sudo"}]
        sql = "SELECT count(*) AS n FROM groups WHERE name = $name"
        assert query(connection, sql, {"name": "' OR 1=1 --"}).to_pylist() == [{"n": 0}]


def test_sql_nested_beyond_reason_is_refused(facts: Path, run: RunInfo) -> None:
    with connect(facts) as connection:
        for sql in (
            "SELECT " + "(" * 50_000 + "1" + ")" * 50_000,
            "(FROM " * 5000 + "t" + ")" * 5000,
        ):
            with pytest.raises(UsageError):
                require_select(connection, sql)


def test_bad_sql_comes_with_duckdbs_message_and_hint(facts: Path, run: RunInfo) -> None:
    with connect(facts) as connection:
        with pytest.raises(UsageError, match='syntax error at or near "SELEC"'):
            query(connection, "SELEC 1")
        with pytest.raises(UsageError, match="Table with name grops does not exist") as caught:
            query(connection, "SELECT * FROM grops")
        assert "groups" in caught.value.hint
        with pytest.raises(UsageError, match="Conversion Error") as caught:
            query(connection, "SELECT CAST(name || chr(27) AS INT) FROM groups")
        assert str(caught.value).isprintable()


def test_errors_met_on_the_way_through_a_stream_are_the_same(facts: Path, run: RunInfo) -> None:
    sql = "SELECT CAST(if(i = 199999, 'x', '1') AS INT) AS v FROM range(200000) t(i)"
    with connect(facts) as connection:
        reader = stream(connection, sql)
        assert reader.schema.names == ["v"]
        with pytest.raises(UsageError, match="Conversion Error"):
            reader.read_all()
        assert stream(connection, "SELECT 1 AS one WHERE false").read_all().num_rows == 0


# -- damaged stores, limits, leftovers -----------------------------------------------------------


def test_a_store_without_runs_or_with_odd_run_ids_is_refused(facts: Path) -> None:
    with pytest.raises(StoreError, match="no facts directory"):
        connect(facts)
    finished_run(facts, FLEET)
    for run_id in ("x' OR 1=1 --", "../../etc", ""):
        with pytest.raises(UsageError, match="is not a run id"):
            connect(facts, run_id)


def test_a_missing_part_is_named(facts: Path, run: RunInfo) -> None:
    path = layout.part(facts, "groups", run.run_id, 1)
    path.unlink()
    with pytest.raises(StoreError, match=r"groups/run=.*/part-00001\.parquet") as caught:
        connect(facts)
    assert caught.value.hint


@pytest.mark.parametrize("batch", [0, 1])
def test_a_damaged_part_is_named(facts: Path, run: RunInfo, batch: int) -> None:
    path = layout.part(facts, "groups", run.run_id, batch)
    os.truncate(path, 20)
    with pytest.raises(StoreError, match=rf"groups/run=.*/part-0000{batch}\.parquet"):
        rows(facts, "SELECT * FROM groups")


def test_a_part_that_goes_while_connected_is_named(facts: Path, run: RunInfo) -> None:
    with connect(facts) as connection:
        layout.part(facts, "groups", run.run_id, 1).unlink()
        with pytest.raises(StoreError, match=r"part-00001\.parquet"):
            query(connection, "SELECT * FROM groups")


def test_an_earlier_run_that_is_gone_is_named(facts: Path) -> None:
    first = night(facts, 1, {"a": (["a1"], None)})
    night(facts, 2, {"a": ([], first)})
    layout.run_file(facts, first).unlink()
    with pytest.raises(StoreError, match=f"needs facts of run {first}"):
        connect(facts)


def test_limits_are_set_and_bad_ones_refused(facts: Path, run: RunInfo) -> None:
    with connect(facts, memory_limit="64MB", threads=1) as connection:
        found = query(connection, "SELECT current_setting('threads') AS threads")
        assert found.to_pylist() == [{"threads": 1}]
        with pytest.raises(UsageError, match="Out of Memory"):
            query(connection, "SELECT list(i) FROM range(100000000) t(i)")
    with pytest.raises(UsageError, match="Memory must have a number"):
        connect(facts, memory_limit="much")


def test_large_results_spill_and_nothing_stays_behind(
    facts: Path, run: RunInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    connection = connect(facts, memory_limit="40MB", threads=1)
    sql = (
        "SELECT max(x) AS x FROM (SELECT md5(i::VARCHAR) AS x FROM range(1500000) t(i) ORDER BY x)"
    )
    sql = "SELECT count(*) AS n FROM (SELECT DISTINCT md5(i::VARCHAR) FROM range(1500000) t(i))"
    assert query(connection, sql).to_pylist() == [{"n": 1_500_000}]
    assert len(list(spill.iterdir())) == 1
    connection.close()
    del connection
    gc.collect()
    assert list(spill.iterdir()) == []
