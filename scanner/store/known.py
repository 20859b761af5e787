"""What the runs of a store say of machines: rows of ``machines``, with those of ``disks``.

Read newest run first, some thousand machines at a time, and of each run only what none after it
settled: so memory does not grow with machines or runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from fleetscan.scanner.store import layout, parts
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.tables import load_tables

DISK_COLUMNS = ("disk", "path", "format", "member", "backing_chain", "extents")

_Compute = Any  # no stubs know which kernel fits which array
pc: _Compute = pyarrow.compute


@dataclass(frozen=True)
class KnownMachines:
    """Some machines as one run has them.

    Attributes:
        rows: of ``machines``, with the schema that the table has now.
        disks: by machine, its rows of ``disks`` as :data:`DISK_COLUMNS`, in order.
    """

    rows: pa.RecordBatch
    disks: Mapping[str, Sequence[Mapping[str, Any]]]


def known_machines(
    facts: Path, runs: Mapping[str, RunInfo], run_id: str, wanted: Collection[str]
) -> Iterator[KnownMachines]:
    """What a run says of some machines, except those whose facts are in a run that is missing.

    Args:
        facts: the store's directory.
        runs: the visible runs, by id.
        run_id: the run.
        wanted: the machines. Those that a caller settles while it iterates may be taken out.

    Raises:
        StoreError: a part is missing or damaged.
    """
    there = pa.array(list(runs), pa.string())
    for batch in _batches(facts, runs[run_id], "machines", None):
        rows = _aligned(batch, run_id)
        if rows is None:
            return  # of a version whose scans record too little
        chosen = pc.and_(
            pc.is_in(rows.column("machine_id"), value_set=pa.array(list(wanted), pa.string())),
            pc.is_in(rows.column("facts_run"), value_set=there),
        )
        rows = rows.filter(chosen)
        if rows.num_rows:
            yield KnownMachines(rows, _disks(facts, runs, rows))


def _aligned(batch: pa.RecordBatch, run_id: str) -> pa.RecordBatch | None:
    """Rows with the columns of now, those that are new without value; None where they need one."""
    if "gathered" not in batch.schema.names:  # what a run holds itself it gathered itself
        own = pc.equal(batch.column("facts_run"), run_id)
        gathered = pc.if_else(own, batch.column("started"), None)
        batch = batch.append_column("gathered", gathered)
    schema = arrow_schema(load_tables()["machines"])
    arrays: list[_Compute] = []
    for field in schema:
        if field.name in batch.schema.names:
            arrays.append(batch.column(field.name).cast(field.type))
        elif field.nullable:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            return None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _disks(
    facts: Path, runs: Mapping[str, RunInfo], rows: pa.RecordBatch
) -> dict[str, list[dict[str, Any]]]:
    """The disks of some machines, by machine, from the runs that hold their facts."""
    machines: dict[str, list[str]] = {}
    for row in rows.select(["machine_id", "facts_run"]).to_pylist():
        machines.setdefault(row["facts_run"], []).append(row["machine_id"])
    disks: dict[str, list[dict[str, Any]]] = {}
    for holder, names in machines.items():
        value_set = pa.array(names, pa.string())
        for batch in _batches(facts, runs[holder], "disks", ("machine_id", *DISK_COLUMNS)):
            chosen = batch.filter(pc.is_in(batch.column("machine_id"), value_set=value_set))
            for row in chosen.to_pylist():
                disks.setdefault(row["machine_id"], []).append(row)
    for found in disks.values():
        found.sort(key=lambda row: int(row["disk"]))
    return disks


def _batches(
    facts: Path, run: RunInfo, table_name: str, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    table = run.tables.get(table_name)
    for file in table.files if table else ():
        path = layout.part_file(facts, table_name, run.run_id, file.name)
        yield from parts.read_batches(path, columns)
