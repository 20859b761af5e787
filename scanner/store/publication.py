"""From a run's batches to its parts: small ones are put together, and all get their final names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fleetscan.appliance.ground.schema import Table
from fleetscan.scanner.store import files, layout, parts
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.store.batches import Batch, column_names
from fleetscan.scanner.store.run_file import PartFile, TableInfo
from fleetscan.scanner.tables import load_tables

_ROW_GROUP_BYTES = 4 << 20
"""Small row groups for small parts: the coordinator makes these, and its memory is to stay flat."""


@dataclass(frozen=True)
class _Waiting:
    path: Path
    file: PartFile
    first: str = ""  # it has no rows of machines before this one

    @property
    def size(self) -> int:
        return self.file.bytes or 0


def publish_parts(
    facts: Path, run_id: str, batches: Sequence[Batch], scratch: Path
) -> dict[str, TableInfo]:
    """Put the rows of a run's batches where its parts belong.

    The run is not visible yet. Parts that an attempt left there before are removed; the batches
    stay as they are, for one that comes after.

    Args:
        facts: the store's directory.
        run_id: the run.
        batches: each with machines of its own.
        scratch: a directory on the same filesystem that nobody else uses.

    Returns:
        What the run holds of each table.

    Raises:
        StoreError: something could not be read or written.
    """
    layout.remove_parts(facts, {run_id})
    files.remove_tree(scratch)
    return {
        name: _publish_table(facts, run_id, table, batches, scratch)
        for name, table in load_tables().items()
    }


def _publish_table(
    facts: Path, run_id: str, table: Table, batches: Sequence[Batch], scratch: Path
) -> TableInfo:
    waiting = (
        _Waiting(path, file, next(iter(batch.machines)))
        for batch in batches
        for path, file in batch.parts(table.name)
    )
    published: list[PartFile] = []
    for one in _sized(table, waiting, scratch / table.name):
        target = layout.part(facts, table.name, run_id, len(published))
        files.give_name(one.path, target)
        published.append(replace(one.file, name=target.name))
    if published:
        files.flush_directory(layout.part(facts, table.name, run_id, 0).parent)
    rows = sum(file.rows or 0 for file in published)
    return TableInfo(rows, column_names(table), tuple(published))


def _sized(table: Table, waiting: Iterable[_Waiting], scratch: Path) -> Iterator[_Waiting]:
    """The parts, of which small ones are put together."""
    written = 0
    for group in _groups(waiting):
        if len(group) == 1:
            yield group[0]
            continue
        streams = (parts.read_batches(one.path) for one in group)
        rows = parts.merged(streams, (one.first for one in group))
        merged = parts.write_parts(
            parts.numbered(scratch, written),
            arrow_schema(table),
            rows,
            row_group_bytes=_ROW_GROUP_BYTES,
        )
        written += len(merged)
        for file in merged:
            yield _Waiting(scratch / file.name, file)


def _groups(waiting: Iterable[_Waiting]) -> Iterator[list[_Waiting]]:
    """Large parts alone, and small ones in groups that make one part."""
    pending: list[_Waiting] = []
    size = 0
    for one in waiting:
        if one.size >= parts.SMALL_PART:
            yield [one]
            continue
        if size + one.size > parts.PART_BYTES:
            yield pending
            pending, size = [], 0
        pending.append(one)
        size += one.size
    if pending:
        yield pending
