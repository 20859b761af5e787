"""What SQL a rule may contain: one SELECT over fact tables, and nothing else.

DuckDB's own parser reads the statement; this module only looks at the tree it returns. The
connection that runs it is sealed as well (see rules.evaluate): neither of the two is relied on
alone.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

# Everything else that is allowed in FROM reads files, settings or other databases.
TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})

# Query nodes that only read; DuckDB also has INSERT, UPDATE and DELETE nodes inside WITH.
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})

_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*")


class SqlError(ValueError):
    """SQL that a rule must not contain."""


@dataclass(frozen=True)
class Select:
    """A statement that was found harmless.

    Attributes:
        sql: its text, which can be put between parentheses on lines of its own.
        tables: the tables it reads, in any subquery.
        parameters: names of the parameters it binds.
    """

    sql: str
    tables: frozenset[str]
    parameters: frozenset[str]


@functools.lru_cache(maxsize=4096)
def parse_select(sql: str) -> Select:
    """Check one SELECT.

    Raises:
        SqlError: it is no SQL, more than one statement, no SELECT, or reads what is no table.
    """
    body = sql.strip().removesuffix(";").rstrip()
    statement = _only_statement(body)
    _only_statement(_wrap(body))  # a trailing comment must not swallow what is put around it
    names = statement.named_parameters
    if any(name.isdigit() for name in names):
        raise SqlError("parameters need names, such as $limit")
    return Select(body, _tables(body), frozenset(names))


@functools.lru_cache(maxsize=4096)
def parse_predicate(predicate: str, table: str) -> Select:
    """A predicate over a table's columns as the SELECT of the rows that it holds for.

    Raises:
        SqlError: as parse_select; or it is more than a predicate.
    """
    select = parse_select(
        f"SELECT machine_id, root FROM {table} WHERE (\n{predicate}\n)"  # noqa: S608 - checked next
    )
    node = _tree(select.sql)["node"]
    extra = ("group_expressions", "having", "qualify", "modifiers")
    if node["type"] != "SELECT_NODE" or any(node.get(name) for name in extra):
        raise SqlError("a predicate is one expression, as in a WHERE clause")
    return select


def _wrap(body: str) -> str:
    return f"SELECT * FROM (\n{body}\n)"  # noqa: S608 - only parsed


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _only_statement(sql: str) -> duckdb.Statement:
    try:
        statements = _parser().cursor().extract_statements(sql)
    except duckdb.Error as error:
        raise SqlError(_first_lines(error)) from error
    if len(statements) != 1:
        raise SqlError(f"exactly one SELECT is allowed, not {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise SqlError(f"only SELECT is allowed, not {statements[0].type.name}")
    return statements[0]


def _first_lines(error: duckdb.Error) -> str:
    return " ".join(str(error).split("\n\n")[0].split())


def _tree(sql: str) -> dict[str, Any]:
    """DuckDB's parse tree of a SELECT; ``Any`` because its shape is DuckDB's own."""
    row = _parser().cursor().execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql})
    (text,) = row.fetchone() or ("",)
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise SqlError("the SQL is nested too deeply") from error
    if tree.get("error"):
        raise SqlError(tree.get("error_message", "not a plain SELECT"))
    statement: dict[str, Any] = tree["statements"][0]
    return statement


def _tables(sql: str) -> frozenset[str]:
    read: set[str] = set()
    defined: set[str] = set()
    for node in _nodes(_tree(sql)):
        kind = node.get("type")
        if not isinstance(kind, str):
            kind = ""
        if kind.endswith("_NODE") and kind not in _READING_NODES:
            raise SqlError("rules may only read: INSERT, UPDATE and DELETE are refused")
        if kind == "SHOW_REF":
            raise SqlError("DESCRIBE, SHOW and SUMMARIZE are refused")
        if kind == "TABLE_FUNCTION":
            _check_table_function(node["function"].get("function_name", ""))
        if kind == "BASE_TABLE":
            read.add(_base_table(node))
        defined.update(_common_tables(node))
    # A name that WITH defines somewhere counts as read only when it is also a fact table's,
    # which evaluation decides; there it errs on the side of reading.
    return frozenset(read - (defined - _fact_tables()))


@functools.cache
def _fact_tables() -> frozenset[str]:
    from fleetscan.scanner.tables import load_tables

    return frozenset(load_tables())


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_table_function(name: str) -> None:
    if name.lower() not in TABLE_FUNCTIONS:
        raise SqlError(f"{name}() is refused: a rule reads fact tables only")


def _base_table(node: dict[str, Any]) -> str:
    name = str(node["table_name"]).lower()
    if node.get("schema_name") or node.get("catalog_name") or not _PLAIN_NAME.fullmatch(name):
        raise SqlError(f"{node['table_name']!r} is not a fact table")
    return name


def _common_tables(node: dict[str, Any]) -> Iterator[str]:
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield str(entry["key"]).lower()
