"""Tables of a facts directory as Python objects; the package ``fleetscan.facts`` shows them.

They are the views that ``fleetscan query`` shows: of one run, with the facts of machines that have
not changed since an earlier run, or of all runs; facts and derived tables alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.ground.schema import Column, Table
from fleetscan.scanner.store import mirror
from fleetscan.scanner.store.arrow import all_columns
from fleetscan.scanner.store.remote import local_copy
from fleetscan.scanner.store.remote_url import is_url
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_all_tables

if TYPE_CHECKING:
    import dask.dataframe
    import duckdb
    import pandas as pd

_ONLY_IN_HISTORY, _ONLY_IN_A_RUN = frozenset({"failures"}), frozenset({"end_of_life"})


class Facts(Mapping[str, "FactTable"]):
    """The tables of one run, by name, until it is closed; made by :func:`open_facts`.

    Args:
        path: the facts directory.
        run_id: the run.
        connection: where the tables are views.
        schema: ``main`` for the run, ``history`` for all runs.
    """

    def __init__(
        self, path: Path, run_id: str, connection: duckdb.DuckDBPyConnection, schema: str = "main"
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.connection = connection
        self.schema = schema

    def __enter__(self) -> Facts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; relations and lazy frames made from it end with it."""
        self.connection.close()

    @property
    def history(self) -> Facts:
        """The same tables over all runs, and ``failures``; ``run_id`` says whose a row is."""
        return Facts(self.path, self.run_id, self.connection, "history")

    def __getitem__(self, name: str) -> FactTable:
        if name not in set(self):
            raise KeyError(name)
        return FactTable(self, load_all_tables()[name])

    def __iter__(self) -> Iterator[str]:
        missing = _ONLY_IN_A_RUN if self.schema == "history" else _ONLY_IN_HISTORY
        return (name for name in load_all_tables() if name not in missing)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def sql(self, query: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """The rows of one SELECT over the views; ``history.NAME`` are those of all runs.

        Args:
            query: the statement, with ``$name`` for parameters.
            parameters: their values, never part of the text.

        Raises:
            UsageError: it is not one SELECT, or it failed.
        """
        from fleetscan.scanner.store import views

        return views.query(self.connection, query, parameters or {})


class FactTable:
    """One table: what its columns mean, and its rows in the form that one works with.

    Args:
        facts: what it is a table of.
        table: its definition.
    """

    def __init__(self, facts: Facts, table: Table) -> None:
        self._facts = facts
        self._table = table

    @property
    def name(self) -> str:
        """The table's name."""
        return self._table.name

    @property
    def description(self) -> str:
        """What its rows are."""
        return f"{self._table.summary}\n\n{self._table.description}".strip()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of its spec: names, types, units, what they say."""
        return all_columns(self._table)

    @property
    def _view(self) -> str:
        return f'{self._facts.schema}."{self.name}"'

    def arrow(self) -> pa.Table:
        """All rows."""
        return self._facts.sql(f"SELECT * FROM {self._view}")  # noqa: S608 - our own names

    def batches(self) -> pa.RecordBatchReader:
        """All rows, some at a time, for tables that are larger than memory."""
        from fleetscan.scanner.store import views

        sql = f"SELECT * FROM {self._view}"  # noqa: S608 - our own names
        return views.stream(self._facts.connection, sql)

    def dataset(self) -> pa.dataset.Dataset:
        """All rows as an Arrow dataset, in memory."""
        return pa.dataset.dataset(self.arrow())

    def pandas(self) -> pd.DataFrame:
        """All rows; needs pandas."""
        return self.arrow().to_pandas()

    def duckdb(self) -> duckdb.DuckDBPyRelation:
        """The view, for more work in DuckDB; nothing is read before its result is asked for."""
        return self._facts.connection.sql(f"FROM {self._view}")

    def dask(self, partitions: int | None = None) -> dask.dataframe.DataFrame:
        """The rows as a Dask DataFrame; needs ``dask[dataframe]``.

        All rows of a machine are in one partition. A partition is read when it is computed, by
        whichever worker does, which must see the facts directory at the same path.

        Args:
            partitions: how many; as many as there are processors here if None.
        """
        import dask.dataframe

        count = partitions or os.cpu_count() or 1
        facts = self._facts
        read = _Part(str(facts.path), facts.run_id, facts.schema, self.name, count)
        from_map: Any = dask.dataframe.from_map  # without types
        frame: dask.dataframe.DataFrame = from_map(read, range(count), meta=read(None))
        return frame


class _Part:
    """Reads a partition of a table; small to send to workers."""

    def __init__(self, path: str, run_id: str, schema: str, name: str, count: int) -> None:
        self._opened = path, run_id
        self._place = schema, name
        self._count = count

    def __call__(self, number: int | None) -> Any:  # Any: a DataFrame, as Dask takes it
        schema, name = self._place
        named = any(column.name == "machine_id" for column in all_columns(load_all_tables()[name]))
        key = f"hash(machine_id) % {self._count}" if named else "0"
        sql = f'SELECT * FROM {schema}."{name}" WHERE {key} = $number'  # noqa: S608 - our own names
        with open_facts(self._opened[0], run=self._opened[1]) as facts:
            # No partition has this number: of it Dask learns the columns and their types.
            return facts.sql(sql, {"number": -1 if number is None else number}).to_pandas()


def open_facts(facts: str | os.PathLike[str], *, run: str | None = None) -> Facts:
    """Open a facts directory.

    Args:
        facts: the directory, or the URL of one in an object store.
        run: the run; None for the newest visible one.

    Raises:
        UsageError: ``run`` has not the form of a run id, or DuckDB is not installed.
        StoreError: there is no such directory or run, or a part of it is missing.
    """
    try:
        from fleetscan.scanner.store import views
    except ModuleNotFoundError as error:
        from fleetscan.scanner import extras

        raise UsageError(
            f"{error.name} is not installed", hint=extras.advice(error) or ""
        ) from error
    path = local_copy(facts) if isinstance(facts, str) and is_url(facts) else Path(facts).absolute()
    mirror.fetch(path, run, past=True)
    store = Store(path)
    run_id = (store.run(run) if run else store.latest()).run_id
    return Facts(path, run_id, views.connect(path, run_id, history=True))
