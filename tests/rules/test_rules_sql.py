from __future__ import annotations

import pytest

from fleetscan.rules.sql import SqlError, parse_predicate, parse_select

REFUSED = {
    "files": "SELECT * FROM read_csv('/etc/passwd')",
    "text": "SELECT * FROM read_text('/etc/passwd')",
    "glob": "SELECT * FROM glob('/etc/*')",
    "file as a table": "SELECT * FROM '/etc/passwd.csv'",
    "parquet as a table": 'SELECT * FROM "/tmp/x.parquet"',
    "file in a subquery": "SELECT 1 FROM users WHERE name IN (SELECT x FROM read_csv('/x') t(x))",
    "file in a common table": "WITH p AS (SELECT * FROM read_csv('/x')) SELECT * FROM p",
    "query of a string": "SELECT * FROM query('SELECT 1')",
    "table by name": "SELECT * FROM query_table('users')",
    "copy": "COPY users TO '/tmp/x'",
    "attach": "ATTACH '/tmp/x.db' AS x",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "pragma": "PRAGMA enable_profiling",
    "set": "SET threads = 1",
    "call": "CALL pragma_version()",
    "explain": "EXPLAIN SELECT 1",
    "describe": "DESCRIBE users",
    "show": "SHOW TABLES",
    "summarize": "SUMMARIZE users",
    "insert": "INSERT INTO users VALUES (1)",
    "create": "CREATE TABLE x AS SELECT 1",
    "drop": "DROP VIEW users",
    "two statements": "SELECT 1; SELECT 2",
    "no statement": "-- nothing",
    "no SQL": "SELEC 1",
    "another schema": "SELECT * FROM information_schema.tables",
    "another catalogue": "SELECT * FROM temp.main.users",
    "the engine's own tables": "SELECT * FROM _subjects",
    "positional parameters": "SELECT * FROM users WHERE uid = ?",
    "more after a comment": "SELECT * FROM users; -- one\n",
    "an open parenthesis": "SELECT * FROM users) UNION (SELECT 1",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(sql: str) -> None:
    with pytest.raises(SqlError):
        parse_select(sql)


def test_refuses_writing_inside_with() -> None:
    sql = "WITH gone AS (DELETE FROM users RETURNING *) SELECT * FROM gone"

    with pytest.raises(SqlError):
        parse_select(sql)


def test_refuses_deep_nesting_without_falling_over() -> None:
    sql = "SELECT " + "(" * 5000 + "1" + ")" * 5000

    with pytest.raises(SqlError):
        parse_select(sql)


def test_names_every_table_that_is_read() -> None:
    select = parse_select(
        """
        WITH p AS (SELECT * FROM packages)
        SELECT (SELECT max(gid) FROM groups), * FROM p
        JOIN Users u USING (machine_id)
        WHERE EXISTS (FROM files) AND u.uid IN (SELECT * FROM unnest([1]))
        """
    )

    assert select.tables == {"packages", "groups", "users", "files"}


def test_a_common_table_named_like_a_fact_table_still_counts_as_reading_it() -> None:
    select = parse_select("WITH files AS (SELECT 1 AS x) SELECT * FROM files")

    assert select.tables == {"files"}


def test_names_the_parameters() -> None:
    select = parse_select("SELECT * FROM users WHERE uid > $limit AND name = $name")

    assert select.parameters == {"limit", "name"}


def test_keeps_a_trailing_comment_from_swallowing_what_follows() -> None:
    select = parse_select("SELECT 1 AS x -- why;")

    assert select.sql == "SELECT 1 AS x -- why"
    assert parse_select(f"FROM (\n{select.sql}\n)").tables == frozenset()


def test_drops_one_semicolon() -> None:
    assert parse_select("SELECT 1;\n").sql == "SELECT 1"


def test_a_predicate_selects_machine_and_root() -> None:
    select = parse_predicate("distro = $distro", "operating_systems")

    assert select.tables == {"operating_systems"}
    assert select.parameters == {"distro"}


@pytest.mark.parametrize(
    "predicate",
    [
        "true) UNION (SELECT machine_id, root FROM users",
        "true) GROUP BY (machine_id",
        "true) ORDER BY (machine_id",
        "true; DROP TABLE users",
    ],
)
def test_a_predicate_is_no_more_than_one(predicate: str) -> None:
    with pytest.raises(SqlError):
        parse_predicate(predicate, "operating_systems")
