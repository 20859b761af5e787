"""SQL over the facts: one DuckDB view a fact table, closed to everything else.

`connect` gives an in-memory database whose views read the Parquet parts of one run and which can
reach no other file. `query` runs SQL that a person or a rule pack wrote: one SELECT.
"""

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
from fleetscan.appliance.host.printable import printable
from fleetscan.appliance.host.scratch import Scratch
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.derived_sql import derived_views, results_paths
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.view_sql import history_views, path_list, run_views

Parameters: TypeAlias = Sequence[object] | Mapping[str, object]

# What a SELECT is made of in DuckDB's syntax tree. DuckDB 2 also takes COPY, INSERT, UPDATE and
# DELETE as the body of a WITH clause, and still calls the whole a SELECT statement.
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_BATCH_ROWS = 1 << 11
"""Rows of a result at a time: as many as DuckDB computes at a time, since texts may be long."""

_PART_IN_MESSAGE = re.compile(r"[^\"']*/run=[^/]+/part-\d+\.parquet")


def connect(
    facts_dir: Path,
    run_id: str | None = None,
    *,
    history: bool = False,
    past: bool = True,
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
        history: also make the same views over every visible run, in the schema ``history``,
            and the derived tables.
        past: whether ``history`` shows all runs, or this one alone, where others are not at hand.
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
    runs = store.runs() if history and past else [run]
    needed = {one.run_id: one for one in [*runs, run, *earlier]}
    paths = [path for one in needed.values() for path in _all_parts(store.path, one)]
    statements = list(run_views(store.path, run, earlier))
    if history:
        statements += history_views(store.path, runs)
        statements += derived_views(store.path, run, runs)
        paths += results_paths(store.path, runs)
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
    for name, table in run.tables.items():
        there = layout.part_names(facts, name, run.run_id) if table.files else ()
        for file in table.files:
            path = layout.part_file(facts, name, run.run_id, file.name)
            if file.name not in there:
                raise StoreError(
                    f"run {run.run_id} lacks its part {path}",
                    hint="restore the file, or delete the run and scan again",
                )
            yield path


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
        # After two seconds it would go to standard output, among the rows.
        connection.execute("SET enable_progress_bar = false")
        for statement in statements:
            connection.execute(statement)
        # Paths, not directories: a directory would let COPY and ATTACH make new files there.
        connection.execute(f"SET allowed_paths = {path_list(paths)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        spill.close()
        raise _translated("the views cannot be made", error) from error
    return connection


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
        raise UsageError(
            f"the SQL is not valid: {printable(tree['error_message'])}",
            hint="give one SELECT statement; `fleetscan tables` lists the tables and their columns",
        )
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
