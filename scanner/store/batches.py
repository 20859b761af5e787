"""Batches: some machines' rows as parts, which wait in staging until their run is published.

A batch is named after its machines and their versions, so that it is written once by whoever
comes first, and one that holds what has been scanned again since is known by its name.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.appliance.ground.schema import Table
from fleetscan.appliance.host import writing
from fleetscan.scanner.store import files, parts
from fleetscan.scanner.store.arrow import all_columns, arrow_schema
from fleetscan.scanner.store.run_file import PartFile
from fleetscan.scanner.store.staging import StagedMachine
from fleetscan.scanner.tables import load_tables

log = logging.getLogger(__name__)

_CONTENT = "batch.json"


@dataclass(frozen=True)
class Batch:
    """What a batch holds.

    Attributes:
        directory: where its parts are, a directory a table.
        machines: the version of each of its machines, by id; in order.
        tables: its parts, by table; tables without rows are left out.
        outcomes: number of its machines by outcome.
        facts_runs: number of its machines by the run that holds their facts.
    """

    directory: Path
    machines: dict[str, str]
    tables: dict[str, tuple[PartFile, ...]]
    outcomes: dict[str, int]
    facts_runs: dict[str, int]

    def parts(self, table_name: str) -> Iterator[tuple[Path, PartFile]]:
        """Its parts of a table."""
        for file in self.tables.get(table_name, ()):
            yield self.directory / table_name / file.name, file

    def is_whole(self) -> bool:
        """Whether all of its parts are there, as long as they were."""
        return all(
            path.is_file() and path.stat().st_size == file.bytes
            for name in self.tables
            for path, file in self.parts(name)
        )


def compact(directory: Path, machines: Sequence[StagedMachine]) -> Batch:
    """Make some finished machines a batch, unless they are one already.

    Args:
        directory: holds a run's batches.
        machines: sorted by id.

    Raises:
        StoreError: a machine's file is damaged, or a part could not be written.
    """
    commits = {machine.machine_id: machine.commit for machine in machines}

    def rows(table_name: str) -> Iterator[pa.RecordBatch]:
        for machine in machines:
            yield from machine.batches(table_name)

    return _load(directory / _name(commits)) or write_batch(directory, commits, rows)


def write_batch(
    directory: Path,
    commits: dict[str, str],
    rows: Callable[[str], Iterable[pa.RecordBatch]],
) -> Batch:
    """Write a batch, whole or not at all.

    Args:
        directory: holds a run's batches.
        commits: the version of each of its machines, by id; sorted.
        rows: gives the rows of a table, sorted by machine.

    Raises:
        StoreError: something could not be read or written.
    """
    target = directory / _name(commits)
    scratch = writing.temporary_beside(target)
    batch = _write(scratch, commits, rows)
    content = asdict(batch)
    del content["directory"]
    files.write_json(scratch / _CONTENT, content)
    with files.store_errors(f"writing {target}"):
        files.replace_tree(scratch, target)
    return replace(batch, directory=target)


def _write(
    scratch: Path, commits: dict[str, str], rows: Callable[[str], Iterable[pa.RecordBatch]]
) -> Batch:
    tables = {}
    for name, table in load_tables().items():
        written = parts.write_parts(parts.numbered(scratch / name), arrow_schema(table), rows(name))
        if written:
            tables[name] = tuple(written)
    paths = [scratch / "machines" / file.name for file in tables["machines"]]
    outcomes, facts_runs = (
        dict(sum((Counter(parts.count_values(path, column)) for path in paths), Counter()))
        for column in ("outcome", "facts_run")
    )
    return Batch(scratch, commits, tables, outcomes, facts_runs)


def ready(directory: Path, commits: Mapping[str, str] | None) -> list[Batch]:
    """The batches that serve: whole, of machines that are what they were, and none twice.

    Args:
        directory: holds a run's batches.
        commits: the version of each finished machine; None for whatever the batches have.

    Raises:
        StoreError: they cannot be read.
    """
    chosen: list[Batch] = []
    covered: set[str] = set()
    with files.store_errors(f"reading {directory}"):
        found = sorted(directory.iterdir()) if directory.exists() else []
        for batch in filter(None, map(_load, found)):
            current = commits is None or batch.machines.items() <= commits.items()
            if current and covered.isdisjoint(batch.machines):
                chosen.append(batch)
                covered |= batch.machines.keys()
    return chosen


def _load(directory: Path) -> Batch | None:
    """A batch that is whole and of this version's tables; None where there is none."""
    if not (directory / _CONTENT).exists():
        return None
    try:
        batch = _from_json(directory, files.read_json(directory / _CONTENT))
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is not a batch, its machines are compacted again: %r", directory, error)
        return None
    return batch if batch.is_whole() and directory.name == _name(batch.machines) else None


def _from_json(directory: Path, content: dict[str, Any]) -> Batch:
    tables = {
        name: tuple(PartFile(**file) for file in listed)
        for name, listed in content["tables"].items()
    }
    return Batch(directory, **content | {"tables": tables})


def _name(commits: Mapping[str, str]) -> str:
    """Differs when a machine is added or written again, or the tables are others."""
    columns = [[name, *column_names(table)] for name, table in load_tables().items()]
    content = json.dumps([columns, sorted(commits.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def column_names(table: Table) -> tuple[str, ...]:
    """Names of a table's columns as they are stored."""
    return tuple(column.name for column in all_columns(table))
