"""The SQL that makes a fact table's view out of the parts of runs."""

# ruff: noqa: S608 - the SQL is made of names from the specs, and of quoted ids and paths
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fleetscan.appliance.ground.schema import Column, Kind, Origin, Table
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.quoting import identifier, literal
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.tables import load_tables

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
    Kind.DATE: "DATE",
    Kind.ENUM: "VARCHAR",
    Kind.STRING_LIST: "VARCHAR[]",
}

# Not DuckDB's own: of a path with two directories named "run=..." that takes the first.
_RUN = "regexp_extract(_part, '/run=([^/]+)/[^/]+$', 1)"


def sql_type(column: Column) -> str:
    """A column's type in DuckDB."""
    return _SQL_TYPES[column.kind]


def run_views(facts: Path, run: RunInfo, earlier: Sequence[RunInfo]) -> Iterator[str]:
    """Statements that make a view a table over one run.

    What other runs hold is found with one scan of all their parts, joined with a small table that
    says which run holds a machine's facts. A branch a run would take time by the length of the
    history, and there is no join where all that a run holds is wanted, so that it costs nothing
    as long as nothing changes.

    Args:
        facts: the store's directory.
        run: the run.
        earlier: the runs that hold facts for it.
    """
    whole = [run, *(one for one in earlier if run.facts_runs[one.run_id] == one.held)]
    partly = [one for one in earlier if run.facts_runs[one.run_id] != one.held]
    if partly:
        machines = " UNION ALL ".join(_scans(facts, [run], load_tables()["machines"], "''"))
        yield "CREATE SCHEMA store"
        wanted = path_list(one.run_id for one in partly)
        yield (
            "CREATE TABLE store.holders AS SELECT machine_id, facts_run "
            f"FROM ({machines}) WHERE list_contains({wanted}, facts_run)"
        )
    run_column = literal(run.run_id)
    for table in load_tables().values():
        if table.origin is Origin.RUN:
            selects = list(_scans(facts, [run], table, run_column))
        else:
            selects = [
                *_scans(facts, whole, table, run_column),
                *map(_held, _scans(facts, partly, table, run_column)),
            ]
        yield _view("main", table, selects)


def _held(scan: str) -> str:
    return (
        f"SELECT f.* FROM ({scan}) AS f SEMI JOIN store.holders AS h "
        "ON f.machine_id = h.machine_id AND f.run = h.facts_run"
    )


def history_views(facts: Path, runs: Sequence[RunInfo]) -> Iterator[str]:
    """Statements that make a view a table over all runs, in the schema ``history``."""
    yield "CREATE SCHEMA history"
    tables = load_tables()
    for name in sorted(tables, key=lambda name: name != "machines"):
        table = tables[name]
        scans = _scans(facts, runs, table, "run" if table.origin is Origin.RUN else "''")
        selects = scans if table.origin is Origin.RUN else map(_shown, scans)
        yield _view("history", table, list(selects))


def _shown(scan: str) -> str:
    """A scan's rows once for each run that they are facts of."""
    return (
        "SELECT m.run_id, f.* EXCLUDE (run_id) FROM history.machines AS m "
        f"JOIN ({scan}) AS f ON f.machine_id = m.machine_id AND f.run = m.facts_run"
    )


def _view(schema: str, table: Table, selects: Sequence[str]) -> str:
    """The view over what some scans give, without the column of the run that holds it."""
    columns = ", ".join(["run_id", *(identifier(column.name) for column in all_columns(table))])
    sql = " UNION ALL ".join(f"SELECT {columns} FROM ({select})" for select in selects)
    if not selects:  # no run has any rows
        nothing = f"SELECT '' AS run_id, {_columns(table, ())} WHERE false"
        sql = f"SELECT * FROM ({nothing}) AS nothing"
    return f"CREATE VIEW {schema}.{identifier(table.name)} AS {sql}"


def _scans(facts: Path, runs: Sequence[RunInfo], table: Table, run_column: str) -> Iterator[str]:
    """A SELECT for each set of columns that the runs' parts have, of all the parts that have it.

    It gives the column ``run_id`` as said, ``run`` for the run that holds the part, and the
    table's columns.
    """
    alike: dict[tuple[str, ...], list[Path]] = {}
    for run in runs:
        info = run.tables.get(table.name)
        if info is None:
            continue  # the table is younger than the run
        for file in info.files:
            path = layout.part_file(facts, table.name, run.run_id, file.name)
            alike.setdefault(file.columns or info.columns, []).append(path)
    for columns, paths in alike.items():
        yield (
            f"SELECT {run_column} AS run_id, run, {_columns(table, columns)} "
            f"FROM (SELECT *, {_RUN} AS run FROM read_parquet({path_list(paths)}, "
            "hive_partitioning = false, filename = '_part'))"
        )


def _columns(table: Table, present: Sequence[str]) -> str:
    """A table's columns as a select list; null for those that the run's version did not have."""
    return ", ".join(
        identifier(column.name)
        if column.name in present
        else f"CAST(NULL AS {sql_type(column)}) AS {identifier(column.name)}"
        for column in all_columns(table)
    )


def path_list(values: Iterable[Path | str]) -> str:
    """Paths or other texts as an SQL list."""
    return f"[{', '.join(literal(str(value)) for value in values)}]"
