"""Fact tables in memory, from rows that people write: for the cases of rules, and for tests.

The tables have the names, columns and types of the views over a fact store.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from fleetscan.appliance.ground.schema import Column, Kind, Scope, Table
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.quoting import identifier
from fleetscan.scanner.store.view_sql import sql_type
from fleetscan.scanner.tables import load_tables

Row = Mapping[str, Any]
"""Some columns of a row as YAML has them; ``Any`` because the spec, not the type, checks them."""

RUN_ID = "20260101T000000Z-case"
MACHINE = "m"
DEVICE = "/dev/sda1"

_PYTHON: dict[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.BOOL: (bool,),
    Kind.FLOAT64: (int, float),
    Kind.TIMESTAMP: (dt.date,),
    Kind.ENUM: (str,),
    Kind.STRING_LIST: (list,),
}

# What a column that must not be null holds when a row leaves it out.
_NEUTRAL: dict[Kind, Any] = {
    Kind.STRING: "",
    Kind.BOOL: False,
    Kind.TIMESTAMP: dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    Kind.STRING_LIST: [],
}


class FactError(ValueError):
    """A row that its table cannot hold.

    Args:
        table: name of the table.
        index: position of the row among those given, or None for the table itself.
        message: what is wrong.
    """

    def __init__(self, table: str, index: int | None, message: str) -> None:
        super().__init__(message)
        self.table = table
        self.index = index


def connect(
    facts: Mapping[str, Sequence[Row]], coverage: Sequence[Row] = ()
) -> duckdb.DuckDBPyConnection:
    """A connection with every fact table, holding some rows as :func:`complete` completes them.

    Raises:
        FactError: a row does not fit its table.
    """
    return load(complete(facts, coverage))


def load(rows: Mapping[str, Sequence[Row]]) -> duckdb.DuckDBPyConnection:
    """A connection with every fact table, holding complete rows."""
    connection = duckdb.connect(config={"threads": 1})  # a handful of rows
    for name, table in load_tables().items():
        types = ", ".join(
            f"{identifier(column.name)} {sql_type(column)}" for column in all_columns(table)
        )
        connection.execute(f'CREATE TABLE "{name}"(run_id VARCHAR, {types})')
        if rows.get(name):
            _insert(connection, table, rows[name])
    return connection


def complete(
    facts: Mapping[str, Sequence[Row]], coverage: Sequence[Row] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Rows of all tables, with the rows and columns that were left out.

    Rows name only the columns they care about: ``machine_id`` is ``m`` and ``root``
    ``/dev/sda1`` unless given; other columns are null, or a neutral value where null is not
    allowed (an enum's first value). A ``machines`` row is added for each machine named anywhere,
    an ``operating_systems`` row for each root, and for every table that no ``coverage`` row
    speaks of: ``ok`` where there are rows, else ``empty``. A coverage row with the status
    ``missing`` means that there is no row.

    Raises:
        FactError: a row does not fit its table.
    """
    tables = load_tables()
    if unknown := sorted(set(facts) - set(tables)):
        raise FactError(unknown[0], None, f"there is no fact table {unknown[0]}")
    done = {
        name: [_fill(table, index, row) for index, row in enumerate(facts.get(name, ()))]
        for name, table in tables.items()
    }
    said = [_fill(tables["coverage"], index, row) for index, row in enumerate(coverage)]
    _add_subjects(done, said)
    done["coverage"] += said
    _add_coverage(done)
    done["coverage"] = [row for row in done["coverage"] if row["status"] != "missing"]
    return done


def _fill(table: Table, index: int, row: Row) -> dict[str, Any]:
    columns = {column.name: column for column in all_columns(table)}
    if unknown := sorted(set(row) - set(columns)):
        raise FactError(table.name, index, f"{table.name} has no column {', '.join(unknown)}")
    filled: dict[str, Any] = {"run_id": RUN_ID}
    for name, column in columns.items():
        filled[name] = _value(table, index, column, row) if name in row else _default(table, column)
    return filled


def _default(table: Table, column: Column) -> Any:
    if column.name == "machine_id":
        return MACHINE
    if column.name == "root" and (table.scope is Scope.ROOT):
        return DEVICE
    if column.nullable:
        return None
    return column.values[0] if column.values else _NEUTRAL.get(column.kind, 0)


def _value(table: Table, index: int, column: Column, row: Row) -> Any:
    value = row[column.name]
    if value is None and column.nullable:
        return None
    wanted = _PYTHON.get(column.kind, (int,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise FactError(table.name, index, f"{column.name}: {value!r} is no {column.kind.value}")
    missing = table.name == "coverage" and column.name == "status" and value == "missing"
    if column.values and value not in column.values and not missing:
        allowed = ", ".join(column.values)
        raise FactError(table.name, index, f"{column.name}: {value!r} is not one of {allowed}")
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    return value


def _add_subjects(done: dict[str, list[dict[str, Any]]], said: Iterable[Row]) -> None:
    tables = load_tables()
    rows = [row for name in sorted(done) for row in done[name]] + list(said)
    known = {row["machine_id"] for row in done["machines"]}
    # A case that lists its machines, or systems, itself says which have a root.
    if not done["operating_systems"]:
        roots = {(row["machine_id"], row["root"]) for row in rows if row.get("root")}
        if not roots and not done["machines"]:
            roots = {(MACHINE, DEVICE)}
        done["operating_systems"] = [
            _fill(tables["operating_systems"], 0, {"machine_id": machine, "root": root})
            for machine, root in sorted(roots)
        ]
    named = {row["machine_id"] for row in [*rows, *done["operating_systems"]]}
    done["machines"] += [
        _fill(tables["machines"], 0, {"machine_id": machine}) for machine in sorted(named - known)
    ]


def _add_coverage(done: dict[str, list[dict[str, Any]]]) -> None:
    tables = load_tables()
    coverage = done["coverage"]
    said = {(row["machine_id"], row["root"], row["table_name"]) for row in coverage}
    subjects = {(row["machine_id"], row["root"]) for row in done["operating_systems"]}
    subjects |= {(row["machine_id"], None) for row in done["machines"]}
    for machine, root in sorted(subjects, key=str):
        for name, table in tables.items():
            if (table.scope is Scope.ROOT) != (root is not None) or (machine, root, name) in said:
                continue
            count = sum(
                row["machine_id"] == machine and row.get("root") == root for row in done[name]
            )
            row = {
                "machine_id": machine,
                "root": root,
                "table_name": name,
                "status": "ok" if count else "empty",
                "rows": count,
            }
            coverage.append(_fill(tables["coverage"], 0, row))


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> None:
    names = ("run_id", *(column.name for column in all_columns(table)))
    places = ", ".join([f"({', '.join('?' * len(names))})"] * len(rows))
    values = [row[name] for row in rows for name in names]
    connection.execute(f'INSERT INTO "{table.name}" VALUES {places}', values)  # noqa: S608 - spec's names, bound values
