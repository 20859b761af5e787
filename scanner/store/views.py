"""SQL over the facts: one DuckDB view a fact table, closed to everything else.

`connect` gives an in-memory database whose views read the Parquet parts of one run and which can
reach no other file. `query` runs SQL that a person or a rule pack wrote: one SELECT.
"""

# ruff: noqa: S608 - the views' SQL is made of names from the specs, and of quoted ids and paths
from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from fleetscan.appliance.ground.errors import FleetscanError, StoreError, UsageError
from fleetscan.appliance.ground.schema import Column, Kind, Origin, Table
from fleetscan.appliance.host.printable import printable
from fleetscan.appliance.host.scratch import Scratch
from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables

Parameters: TypeAlias = Sequence[object] | Mapping[str, object]

_SQL_TYPES = {
    Kind.STRING: "VARCHAR",
    Kind.BOOL: "BOOLEAN",
    Kind.UINT8: "UTINYINT",
    Kind.UINT16: "USMALLINT",
    Kind.UINT32: "UINTEGER",
    Kind.UINT64: "UBIGINT",
    Kind.INT64: "BIGINT",
    Kind.FLOAT64: "DOUBLE",
    Kind.TIMESTAMP: "TIMESTAMPTZ",
    Kind.ENUM: "VARCHAR",
    Kind.STRING_LIST: "VARCHAR[]",
}

# What a SELECT is made of in DuckDB's syntax tree. DuckDB 2 also takes COPY, INSERT, UPDATE and
# DELETE as the body of a WITH clause, and still calls the whole a SELECT statement.
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_BATCH_ROWS = 1 << 11
"""Rows of a result at a time: as many as DuckDB computes at a time, since texts may be long."""

_PART_IN_MESSAGE = re.compile(r"[^\"']*/run=[^/]+/part-\d+\.parquet")


def sql_type(column: Column) -> str:
    """A column's type in DuckDB."""
    return _SQL_TYPES[column.kind]


def connect(
    facts_dir: Path,
    run_id: str | None = None,
    *,
    history: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open one run for SQL.

    Every fact table is a view with the columns ``run_id``, ``machine_id``, ``root`` (where it
    has one) and its own. Machines that did not change since an earlier run show the rows which
    that run holds, under the run asked for.

    Args:
        facts_dir: the store's directory.
        run_id: the run; None for the newest visible one.
        history: make the same views over every visible run as well, in the schema ``history``.
        memory_limit: the most memory DuckDB uses before it spills to temporary files, such as
            ``2GB``; None for DuckDB's own limit, 80 % of the machine's memory.
        threads: number of threads; None for one a core.

    Returns:
        A connection that can read the run's parts and a private temporary directory, and no
        other file, network or extension; its settings are locked. Times are in UTC. Run SQL of
        other people's only through :func:`query` or :func:`stream`: on the connection itself
        COPY could still overwrite a part. The temporary directory goes when the connection is
        garbage, so keep it as long as cursors made from it.

    Raises:
        UsageError: ``run_id`` has not the form of one, or a limit is none that DuckDB knows.
        StoreError: there is no such store, run or earlier run that it needs; or a part is missing.
    """
    store = Store(facts_dir.absolute())
    run = store.run(run_id) if run_id is not None else store.latest()
    earlier = [_earlier(store, run, earlier_id) for earlier_id in sorted(run.facts_runs)]
    runs = store.runs() if history else [run]
    needed = {one.run_id: one for one in [*runs, run, *earlier]}
    paths = [path for one in needed.values() for path in _all_parts(store.path, one)]
    statements = list(_run_views(store.path, run, earlier))
    if history:
        statements += _history_views(store.path, runs)
    return _open(statements, paths, memory_limit, threads)


def _earlier(store: Store, run: RunInfo, run_id: str) -> RunInfo:
    try:
        return store.run(run_id)
    except StoreError as error:
        raise StoreError(
            f"run {run.run_id} needs facts of run {run_id}: {error}",
            hint="scan again with --rescan: the new run then holds all its facts",
        ) from error


def _all_parts(facts: Path, run: RunInfo) -> Iterator[Path]:
    """All parts of a run.

    Raises:
        StoreError: one of them is missing.
    """
    for name in run.tables:
        with files.store_errors(f"reading {layout.part(facts, name, run.run_id, 0).parent}"):
            there = set(layout.part(facts, name, run.run_id, 0).parent.iterdir())
        for path in _parts(facts, run, name):
            if path not in there:
                raise StoreError(
                    f"run {run.run_id} lacks its part {path}",
                    hint="restore the file, or delete the run and scan again",
                )
            yield path


def _parts(facts: Path, run: RunInfo, table_name: str) -> list[Path]:
    return [layout.part(facts, table_name, run.run_id, number) for number in range(run.parts)]


def _open(
    statements: list[str], paths: list[Path], memory_limit: str | None, threads: int | None
) -> duckdb.DuckDBPyConnection:
    spill = Scratch("sql")
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,  # no views over variables of the calling code
        "temp_directory": str(spill.path),
    }
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    if threads is not None:
        config["threads"] = threads
    try:
        connection = duckdb.connect(":memory:", config=config)
        weakref.finalize(connection, spill.close)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        for statement in statements:
            connection.execute(statement)
        # Paths, not directories: a directory would let COPY and ATTACH make new files there.
        connection.execute(f"SET allowed_paths = {_path_list(paths)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        spill.close()
        raise _translated("the views cannot be made", error) from error
    return connection


def _run_views(facts: Path, run: RunInfo, earlier: list[RunInfo]) -> Iterator[str]:
    tables = load_tables()
    # The others look up in machines which run holds a machine's facts.
    for name in sorted(tables, key=lambda name: name != "machines"):
        of_run = tables[name].origin is Origin.RUN
        holders = [run] if of_run else [run, *earlier]
        selects = [_select(facts, holder, tables[name], _text(run.run_id)) for holder in holders]
        if len(holders) > 1:
            selects = [
                f"{select} WHERE machine_id IN "
                f"(SELECT machine_id FROM main.machines WHERE facts_run = {_text(holder.run_id)})"
                for holder, select in zip(holders, selects, strict=True)
            ]
        yield f"CREATE VIEW main.{_name(name)} AS {' UNION ALL '.join(selects)}"


def _history_views(facts: Path, runs: list[RunInfo]) -> Iterator[str]:
    yield "CREATE SCHEMA history"
    tables = load_tables()
    for name in sorted(tables, key=lambda name: name != "machines"):
        # One scan for all runs with the same columns: a scan each would make the plan as long
        # as the history.
        alike: dict[tuple[str, ...], list[RunInfo]] = {}
        for run in runs:
            alike.setdefault(run.tables[name].columns if name in run.tables else (), []).append(run)
        selects = [_history_select(facts, same, tables[name]) for same in alike.values()]
        yield f"CREATE VIEW history.{_name(name)} AS {' UNION ALL '.join(selects)}"


def _select(facts: Path, run: RunInfo, table: Table, run_column: str) -> str:
    if table.name not in run.tables:  # the table is younger than the run
        nothing = f"SELECT {run_column} AS run_id, {_columns(table, ())} WHERE false"
        return f"SELECT * FROM ({nothing}) AS nothing"
    columns = _columns(table, run.tables[table.name].columns)
    paths = _path_list(_parts(facts, run, table.name))
    return (
        f"SELECT {run_column} AS run_id, {columns} "
        f"FROM read_parquet({paths}, hive_partitioning = false)"
    )


def _history_select(facts: Path, runs: list[RunInfo], table: Table) -> str:
    if table.name not in runs[0].tables:
        return _select(facts, runs[0], table, "''")
    paths = [path for run in runs for path in _parts(facts, run, table.name)]
    columns = _columns(table, runs[0].tables[table.name].columns)
    scan = (
        f"read_parquet({_path_list(paths)}, hive_partitioning = true, hive_types_autocast = false)"
    )
    if table.origin is Origin.RUN:
        return f"SELECT run AS run_id, {columns} FROM {scan}"
    return (
        f"SELECT m.run_id, f.* EXCLUDE (run) FROM history.machines AS m "
        f"JOIN (SELECT run, {columns} FROM {scan}) AS f "
        f"ON f.machine_id = m.machine_id AND f.run = m.facts_run"
    )


def _columns(table: Table, present: Sequence[str]) -> str:
    """A table's columns as a select list; null for those that the run's version did not have."""
    return ", ".join(
        _name(column.name)
        if column.name in present
        else f"CAST(NULL AS {sql_type(column)}) AS {_name(column.name)}"
        for column in all_columns(table)
    )


def _name(name: str) -> str:
    return f'"{name}"'  # names of tables and columns are Python identifiers


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _path_list(paths: Sequence[Path]) -> str:
    return f"[{', '.join(_text(str(path)) for path in paths)}]"


def query(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()) -> pa.Table:
    """Run one SELECT and return all its rows.

    Args:
        connection: from :func:`connect`.
        sql: the statement, with ``?`` or ``$name`` for parameters.
        parameters: their values, never part of the text.

    Raises:
        UsageError: it is not one SELECT, or it failed, with DuckDB's message and hint.
        StoreError: a part that it reads is missing or damaged.
        duckdb.InterruptException: the caller interrupted the connection.
    """
    return stream(connection, sql, parameters).read_all()


def stream(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()
) -> pa.RecordBatchReader:
    """As :func:`query`, for results larger than memory; its batches raise the same errors."""
    require_select(connection, sql)
    try:
        relation = connection.sql(sql, params=parameters or None)
        reader = relation.to_arrow_reader(_BATCH_ROWS)
    except duckdb.Error as error:
        raise _translated("the SQL failed", error) from error
    return pa.RecordBatchReader.from_batches(reader.schema, _translating(reader))


def _translating(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise _translated("the SQL failed", error) from error


def require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Make sure that a text is one statement that reads, before it becomes part of another.

    Raises:
        UsageError: it is not.
    """
    kinds: set[str] = set()

    def note_kind(node: dict[str, Any]) -> dict[str, Any]:  # Any: a piece of DuckDB's syntax tree
        if str(node.get("type")).endswith("_NODE"):
            kinds.add(node["type"])
        return node

    try:
        row = connection.cursor().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
        tree = json.loads(row[0] if row else "{}", object_hook=note_kind)
    except (duckdb.Error, RecursionError, UnicodeEncodeError) as error:
        raise UsageError(f"the SQL cannot be read: {printable(str(error))}") from error
    if tree.get("error_type") == "parser":
        raise UsageError(f"the SQL is not valid: {printable(tree['error_message'])}")
    if len(tree.get("statements", [])) != 1 or kinds - _READING_NODES:
        raise UsageError(
            "the SQL is not one SELECT statement",
            hint="give a single SELECT; it may begin with WITH if all its parts are SELECTs too",
        )


def _translated(doing: str, error: Exception) -> Exception:
    """The error that the user sees: about a part of the store, or about the SQL."""
    if isinstance(error, duckdb.InterruptException | FleetscanError):
        return error
    # Arrow hands DuckDB's errors on as its own; some repeat the query and mark a place in it.
    lines = [line.strip() for line in str(error).split("\nLINE ")[0].splitlines() if line.strip()]
    message, hint = printable(lines[0]), printable(" ".join(lines[1:]))
    if _PART_IN_MESSAGE.search(message):
        return StoreError(
            f"a part of the store cannot be read: {message}",
            hint="restore the file, or delete the run and scan again",
        )
    return UsageError(f"{doing}: {message}", hint=hint)
