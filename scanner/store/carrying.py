"""Facts of runs that are deleted: the newest remaining run that needs them takes them over.

A machine that does not change is scanned once, and the run that scanned it would have to stay for
ever. So before it is deleted, its rows are copied into the newest run that points at them, and
every run that pointed at them then points there. With N runs kept, rows are copied once in N
nights.

Each run is changed by replacing its run file, newest first: parts that are new are in no run file
until then, and a run that others point at has the rows before they do. What a crash leaves is
readable at each step; parts that no run file lists are swept up later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from fleetscan.appliance.ground.schema import Origin
from fleetscan.scanner.store import files, layout, parts
from fleetscan.scanner.store.run_file import PartFile, RunInfo, TableInfo
from fleetscan.scanner.tables import load_tables

log = logging.getLogger(__name__)

_Compute = Any  # no stubs know which kernel fits which array
pc: _Compute = pyarrow.compute

_Takers = Mapping[tuple[str, str], str]
"""Which run takes the facts of a machine that another run holds, by machine and holder."""

_NOTHING = TableInfo(0, ())


def carry(facts: Path, runs: Sequence[RunInfo], leaving: Collection[str]) -> None:
    """Make sure that no run that stays needs one that leaves.

    Args:
        facts: the store's directory; nobody else changes its visible runs meanwhile.
        runs: all visible runs.
        leaving: ids of those that leave.

    Raises:
        StoreError: a part is damaged or missing, or something could not be written.
    """
    there = {run.run_id: run for run in runs}
    needing = sorted(
        (
            run
            for run in runs
            if run.run_id not in leaving and not run.facts_runs.keys().isdisjoint(leaving)
        ),
        key=lambda run: run.run_id,
        reverse=True,
    )
    takers: dict[tuple[str, str], str] = {}
    for run in needing:
        for pointer in _pointers(facts, run):
            if pointer[1] in leaving:
                takers.setdefault(pointer, run.run_id)
    for run in needing:
        _change(facts, run, there, takers)


def _pointers(facts: Path, run: RunInfo) -> Iterator[tuple[str, str]]:
    """Each machine of a run, and the run that holds its facts."""
    for path in _paths(facts, run, "machines"):
        for batch in parts.read_batches(path, ("machine_id", "facts_run")):
            for row in batch.to_pylist():
                yield row["machine_id"], row["facts_run"]


def _paths(facts: Path, run: RunInfo, table_name: str) -> list[Path]:
    listed = run.tables.get(table_name, _NOTHING).files
    return [layout.part_file(facts, table_name, run.run_id, file.name) for file in listed]


def _change(facts: Path, run: RunInfo, there: Mapping[str, RunInfo], takers: _Takers) -> None:
    """Let a run take what it is to take, and point where the rest is taken."""
    taken: dict[str, list[str]] = {}
    for (machine_id, holder), taker in takers.items():
        if taker == run.run_id:
            taken.setdefault(holder, []).append(machine_id)
    tables = dict(run.tables)
    names = {name for holder in taken for name in there[holder].tables if _is_held(name)}
    for name in sorted(names):
        added = _copied(facts, run, name, [(there[one], ids) for one, ids in taken.items()])
        if added:
            tables[name] = _with(tables.get(name), added)
    old = _paths(facts, run, "machines")
    tables["machines"], facts_runs = _repointed(facts, run, takers)
    changed = replace(run, tables=tables, facts_runs=facts_runs)
    files.write_json(layout.run_file(facts, run.run_id), changed.to_json())
    for path in old:
        with files.store_errors(f"removing {path}"):
            path.unlink(missing_ok=True)
    log.info("run %s took facts of %s", run.run_id, ", ".join(taken) or "no run")


def _is_held(table_name: str) -> bool:
    """Whether the run that holds a machine's facts holds its rows of a table."""
    table = load_tables().get(table_name)
    return table is None or table.origin is not Origin.RUN


def _with(table: TableInfo | None, added: Sequence[PartFile]) -> TableInfo:
    """A table with more files."""
    table = table or TableInfo(0, added[0].columns or ())
    told = [
        replace(file, columns=None) if file.columns == table.columns else file for file in added
    ]
    rows = table.rows + sum(file.rows or 0 for file in added)
    return TableInfo(rows, table.columns, (*table.files, *told))


@dataclass(frozen=True)
class _Source:
    """Rows of some machines in a part."""

    path: Path
    schema: pa.Schema
    machine_ids: _Compute

    @property
    def shape(self) -> tuple[tuple[str, str, bool], ...]:
        """Differs for parts that cannot become one."""
        return tuple((field.name, str(field.type), field.nullable) for field in self.schema)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows, with the schema of another source of this shape."""
        for batch in parts.read_batches(self.path):
            chosen = pc.is_in(batch.column("machine_id"), value_set=self.machine_ids)
            rows = batch.filter(chosen)
            if rows.num_rows:
                yield pa.RecordBatch.from_arrays(rows.columns, schema=schema)


def _copied(
    facts: Path, run: RunInfo, table_name: str, taken: Iterable[tuple[RunInfo, list[str]]]
) -> list[PartFile]:
    """Write a table's rows of what a run takes as new parts of its own."""
    alike: dict[tuple[tuple[str, str, bool], ...], list[_Source]] = {}
    for holder, machine_ids in taken:
        for path in _paths(facts, holder, table_name):
            source = _Source(path, parts.read_schema(path), pa.array(machine_ids, pa.string()))
            alike.setdefault(source.shape, []).append(source)
    written: list[PartFile] = []
    for sources in alike.values():
        schema = sources[0].schema
        place = _free(facts, run, table_name, len(written))
        rows = parts.merged(source.batches(schema) for source in sources)
        added = parts.write_parts(place, schema, rows)
        written += [replace(file, columns=tuple(schema.names)) for file in added]
    return written


def _free(facts: Path, run: RunInfo, table_name: str, more: int = 0) -> Callable[[int], Path]:
    """Names of parts that the run does not list; what a crash left there is replaced."""
    listed = run.tables.get(table_name, _NOTHING).files
    first = max((layout.part_number(file.name) for file in listed), default=-1) + 1
    return parts.numbered(layout.part_file(facts, table_name, run.run_id, ""), first + more)


def _repointed(facts: Path, run: RunInfo, takers: _Takers) -> tuple[TableInfo, dict[str, int]]:
    """Rewrite a run's machines, pointing at the runs that take their facts."""
    counts: Counter[str] = Counter()
    old = run.tables["machines"]
    paths = _paths(facts, run, "machines")

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            for batch in parts.read_batches(path):
                pointers = batch.select(["machine_id", "facts_run"]).to_pylist()
                holders = [
                    takers.get((row["machine_id"], row["facts_run"]), row["facts_run"])
                    for row in pointers
                ]
                counts.update(holders)
                index = batch.schema.get_field_index("facts_run")
                field = batch.schema.field(index)
                yield batch.set_column(index, field, pa.array(holders, field.type))

    schema = parts.read_schema(paths[0])
    written = parts.write_parts(_free(facts, run, "machines"), schema, batches())
    del counts[run.run_id]
    return replace(old, files=tuple(written)), dict(counts)


def sweep_unlisted(facts: Path, runs: Iterable[RunInfo]) -> None:
    """Remove what a crash left beside the parts of visible runs.

    Args:
        facts: the store's directory; nobody else changes its visible runs meanwhile.
        runs: the visible runs.

    Raises:
        StoreError: something could not be read or removed.
    """
    for run in runs:
        for name, table in run.tables.items():
            listed = {file.name for file in table.files}
            for found in layout.part_names(facts, name, run.run_id) - listed:
                path = layout.part_file(facts, name, run.run_id, found)
                with files.store_errors(f"removing {path}"):
                    path.unlink(missing_ok=True)
