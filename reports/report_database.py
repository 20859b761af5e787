"""A run's facts and results side by side in one DuckDB connection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from fleetscan.rules.results import AS_TEXT

RESULTS = "fleetscan_report_results"
"""Name under which queries find the results while a report is made."""

_BATCH = 1000


@dataclass(frozen=True)
class ReportDatabase:
    """One run's fact views, with the results as :data:`RESULTS`."""

    connection: duckdb.DuckDBPyConnection

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, lists as tuples; ``Any`` because SQL decides their types."""
        found = self.connection.execute(sql, list(parameters)).fetchall()
        return [tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in found]

    def row(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
        """The one row of an aggregating query."""
        return self.rows(sql, parameters)[0]

    def dicts(self, sql: str) -> Iterator[dict[str, Any]]:
        """Rows of a query by column name, fetched in batches.

        No other query may run on the connection before the last row was taken.
        """
        cursor = self.connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        while batch := cursor.fetchmany(_BATCH):
            for row in batch:
                yield dict(zip(names, row, strict=True))


def sql_list(values: Sequence[str]) -> str:
    """Constants of this package, never a guest's text, as an SQL list."""
    return ", ".join(f"'{value}'" for value in values)


@contextlib.contextmanager
def attached(
    connection: duckdb.DuckDBPyConnection, results: pa.Table | None
) -> Iterator[ReportDatabase]:
    """Put results beside the fact views for as long as the block runs.

    Args:
        connection: one view for every fact table, holding the rows of one run.
        results: columns as in :data:`fleetscan.rules.results.SCHEMA`, or of types that can be
            cast to these; None when no rule was evaluated.

    Raises:
        KeyError: the results lack a column.
        pyarrow.ArrowInvalid: a column's values do not fit its type.
    """
    table = AS_TEXT.empty_table() if results is None else _normalised(results)
    connection.register(RESULTS, table)
    try:
        yield ReportDatabase(connection)
    finally:
        connection.unregister(RESULTS)


def _normalised(results: pa.Table) -> pa.Table:
    columns = [results.column(field.name).cast(field.type) for field in AS_TEXT]
    return pa.table(columns, schema=AS_TEXT)
