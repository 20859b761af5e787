"""Where checked rows go: one machine's directory until its batch is complete, or memory.

A machine's rows are in ``<staging>/machines/<name>/``, one Arrow IPC stream a table, beside
``summary.json``. The directory has another name until it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.appliance.host import writing
from fleetscan.scanner.store import files
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.tables import load_tables

_SUMMARY = "summary.json"
_TAIL = 40  # characters of a machine_id kept readable; file names end at 255 bytes

# LZ4 costs next to no time, and a listing of files shrinks to a quarter.
_IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class RowSink(Protocol):
    """Takes the checked rows of one machine."""

    def write(self, table_name: str, rows: pa.Table) -> None:
        """Take rows of one table, with the schema of `arrow.arrow_schema`."""


class MemorySink:
    """Keeps a machine's rows in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pa.Table]] = {}

    def write(self, table_name: str, rows: pa.Table) -> None:
        """Take rows of one table."""
        self._parts.setdefault(table_name, []).append(rows)

    def table(self, table_name: str) -> pa.Table:
        """All rows of a table, in the order they came; empty when there were none."""
        parts = self._parts.get(table_name, [])
        return pa.concat_tables([arrow_schema(load_tables()[table_name]).empty_table(), *parts])

    def tables(self) -> dict[str, pa.Table]:
        """Every table that got rows, in alphabetical order."""
        return {name: self.table(name) for name in sorted(self._parts)}


class MachineWriter:
    """Writes one machine's rows; a context manager that leaves all of them or nothing.

    Args:
        machines: the directory that holds a run's finished machines.
        machine_id: the machine.

    Memory stays flat: rows go to disk as they come. A machine that is written again replaces its
    earlier self when it is committed, and not before.

    Nothing is forced to disk here. After a power failure, a machine whose files are not as long
    as its summary says counts as not finished, and is scanned again; that costs a few machines
    of one night, where forcing would cost every machine of every night.
    """

    def __init__(self, machines: Path, machine_id: str) -> None:
        self.machine_id = machine_id
        self._target = machines / directory_name(machine_id)
        self._directory = writing.temporary_beside(self._target)
        self._files = contextlib.ExitStack()
        self._streams: dict[str, pa.RecordBatchStreamWriter] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> MachineWriter:
        with files.store_errors(f"creating {self._directory}"):
            writing.make_directory(self._directory)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, pa.ArrowException):  # what is removed may be torn
            self._close()
        files.remove_tree(self._directory)

    def write(self, table_name: str, rows: pa.Table) -> None:
        """Append rows to one table.

        Raises:
            StoreError: the rows are not the table's, or the disk is full.
        """
        schema = arrow_schema(load_tables()[table_name])
        if not rows.schema.equals(schema):
            raise StoreError(f"rows for {table_name} do not have that table's schema")
        with files.store_errors(f"writing {table_name} of {self.machine_id}"):
            if table_name not in self._streams:
                path = _stream_path(self._directory, table_name)
                file = self._files.enter_context(writing.new_file(path))
                self._streams[table_name] = pa.ipc.new_stream(file, schema, options=_IPC_OPTIONS)
            self._streams[table_name].write_table(rows)
        self._rows[table_name] = self._rows.get(table_name, 0) + rows.num_rows

    def commit(self, summary: Mapping[str, object]) -> None:
        """Make the machine finished, with exactly one row written to ``machines``.

        Args:
            summary: what the caller wants to know of it later, JSON values only.

        Raises:
            StoreError: its row in ``machines`` is missing, or the disk is full.
        """
        if self._rows.get("machines") != 1:
            raise StoreError(f"{self.machine_id}: a machine has exactly one row in machines")
        with files.store_errors(f"finishing {self.machine_id}"):
            self._close()
            content = {
                "machine_id": self.machine_id,
                "commit": secrets.token_hex(8),  # distinguishes a machine from its earlier scan
                "rows": self._rows,
                "bytes": {name: self._size(name) for name in self._rows},
                "summary": dict(summary),
            }
            with writing.new_file(self._directory / _SUMMARY) as stream:
                stream.write(json.dumps(content).encode())
            files.replace_tree(self._directory, self._target)

    def _close(self) -> None:
        with self._files:
            while self._streams:
                self._streams.popitem()[1].close()

    def _size(self, table_name: str) -> int:
        return _stream_path(self._directory, table_name).stat().st_size


def directory_name(machine_id: str) -> str:
    """The name of a machine's directory: unique by a hash, and readable.

    >>> directory_name("web/debian12.qcow2")
    '9a1da62273b97299-web_debian12.qcow2'
    """
    digest = hashlib.sha256(machine_id.encode()).hexdigest()[:16]
    return f"{digest}-{re.sub('[^A-Za-z0-9._-]', '_', machine_id)[-_TAIL:]}"


@dataclass(frozen=True)
class StagedMachine:
    """A finished machine's rows on disk.

    Attributes:
        directory: where they are.
        machine_id: the machine.
        commit: differs whenever the machine was written again.
        rows: number of rows by table, for tables that have any.
        bytes: length of each table's file.
        summary: what :meth:`MachineWriter.commit` was given.
    """

    directory: Path
    machine_id: str
    commit: str
    rows: dict[str, int]
    bytes: dict[str, int]
    summary: dict[str, Any]  # JSON values of the caller's

    def is_whole(self) -> bool:
        """Whether its files are as long as they were when it was finished."""
        return all(
            path.is_file() and path.stat().st_size == size
            for name, size in self.bytes.items()
            for path in [_stream_path(self.directory, name)]
        )

    def batches(self, table_name: str) -> Iterator[pa.RecordBatch]:
        """Its rows of one table, as they came.

        Raises:
            StoreError: the file is damaged, or was written by another version of fleetscan.
        """
        if table_name not in self.rows:
            return
        path = _stream_path(self.directory, table_name)
        hint = f"remove {self.directory} and resume the run: the machine is scanned again"
        with files.store_errors(f"reading {path}", hint=hint), pa.OSFile(str(path), "r") as source:
            reader = pa.ipc.open_stream(source)
            if not reader.schema.equals(arrow_schema(load_tables()[table_name])):
                raise StoreError(f"{path} was written by another version of fleetscan", hint=hint)
            yield from reader


def staged_machine(machines: Path, machine_id: str) -> StagedMachine | None:
    """A finished machine, or None when it is not finished or was torn by a power failure.

    Raises:
        StoreError: the run cannot be read.
    """
    directory = machines / directory_name(machine_id)
    with files.store_errors(f"reading {directory}"):
        try:
            content = json.loads((directory / _SUMMARY).read_text())
            staged = StagedMachine(directory=directory, **content)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return staged if staged.is_whole() else None


def _stream_path(directory: Path, table_name: str) -> Path:
    return directory / f"{table_name}.arrows"
