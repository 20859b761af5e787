from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.judge import RuleLimits, seal
from tests.rules.rule_builder import (
    NAMED_BAD,
    NOW,
    ROOT_ACCOUNT,
    make_pack,
    make_rule,
    only,
    run,
)

# -- Rules that cannot be evaluated ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT machine_id, nothing FROM users", "nothing"),
        ("SELECT machine_id FROM no_such_table", "there is no fact table no_such_table"),
        ("SELECT machine_id FROM duckdb_settings", "there is no fact table duckdb_settings"),
        ("SELECT root FROM users", "must return machine_id"),
        ("SELECT machine_id, root, CAST(name AS INTEGER) AS n FROM users", "Could not convert"),
        ("SELECT machine_id, root, error('no') AS n FROM users", "no"),
    ],
)
def test_one_rule_that_cannot_run_leaves_the_others_alone(sql: str, message: str) -> None:
    rules = [make_rule("a-rule", violations=sql), make_rule("b-rule", violations=NAMED_BAD)]

    broken, fine = run(*rules)

    assert broken["state"] == "error"
    assert message in broken["message"]
    assert "\n" not in broken["message"]
    assert fine["state"] == "pass"


def test_a_rule_that_takes_too_long_is_stopped() -> None:
    sql = """
        SELECT machine_id, root FROM users, range(1000000000) a, range(1000000) b
        WHERE a.range + b.range = -1
    """
    rules = [make_rule("a-rule", violations=sql), make_rule("b-rule", violations=NAMED_BAD)]

    slow, fine = run(*rules, limits=RuleLimits(seconds=0.2))

    assert slow["state"] == "error"
    assert "took longer than 0.2 seconds" in slow["message"]
    assert fine["state"] == "pass"


def test_a_rule_that_wants_too_much_memory_is_stopped() -> None:
    sql = "SELECT machine_id, root, list(range) AS l FROM users, range(100000000) GROUP BY ALL"

    row = only(run(make_rule(violations=sql), limits=RuleLimits(memory="64MiB")))

    assert row["state"] == "error"
    assert "memory" in row["message"].lower()


def test_evaluation_leaves_nothing_behind_and_can_be_repeated() -> None:
    with case_facts.connect(ROOT_ACCOUNT) as connection:
        first = evaluate(connection, [make_pack(make_rule())], now=NOW)
        left = connection.execute("SELECT table_name FROM duckdb_tables() WHERE temporary")
        assert left.fetchall() == []
        again = evaluate(connection, [make_pack(make_rule())], now=NOW)

    assert again.table.equals(first.table)


# -- The sealed connection ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd.csv'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.db' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 1",
        "PRAGMA enable_profiling",
    ],
)
def test_a_sealed_connection_refuses_by_itself(sql: str, tmp_path: Path) -> None:
    with case_facts.connect(ROOT_ACCOUNT) as connection:
        seal(connection, RuleLimits().memory)
        with pytest.raises(duckdb.Error):
            connection.execute(sql.format(folder=tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_a_sealed_connection_does_not_see_python_variables() -> None:
    secret = duckdb.connect().sql("SELECT 1 AS x").to_arrow_table()

    with case_facts.connect(ROOT_ACCOUNT) as connection:
        seal(connection, RuleLimits().memory)
        with pytest.raises(duckdb.CatalogException):
            connection.execute("SELECT * FROM secret")

    assert secret.num_rows == 1


def test_views_over_allowed_parquet_files_still_work(tmp_path: Path) -> None:
    with case_facts.connect({"users": [{"name": "bad"}]}) as stored:
        connection = duckdb.connect()
        for (name,) in stored.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            path = tmp_path / f"{name}.parquet"
            stored.execute(f"COPY {name} TO '{path}'")
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{path}')")
    connection.execute(f"SET allowed_directories = ['{tmp_path}']")

    with connection:
        results = evaluate(connection, [make_pack(make_rule(violations=NAMED_BAD))], now=NOW)

    assert results.table["state"].to_pylist() == ["fail"]


def test_a_connection_that_was_locked_open_is_not_used() -> None:
    with case_facts.connect(ROOT_ACCOUNT) as connection:
        connection.execute("SET lock_configuration = true")
        with pytest.raises(FleetscanError, match="file access"):
            evaluate(connection, [make_pack(make_rule())], now=NOW)
