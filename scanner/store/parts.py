"""Parquet parts: one batch of machines, one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from fleetscan.appliance.ground.schema import Table
from fleetscan.scanner.store import files
from fleetscan.scanner.store.arrow import arrow_schema

ROW_GROUP_ROWS = 122_880
"""Rows after which a row group ends: what DuckDB reads with one thread at a time (its own row
groups have this size), and a few machines' files, so that a filter on one machine skips most."""

ROW_GROUP_BYTES = 64 << 20
"""Bytes in memory after which it ends as well, whatever the rows; one payload may come on top."""

_ZSTD_LEVEL = 3  # zstd's own default; higher levels gain little on columns of text

# Any: the stubs of pyarrow.parquet differ from version to version.
_writer: Any = pyarrow.parquet.ParquetWriter
_read_table: Any = pyarrow.parquet.read_table


def write_part(path: Path, table: Table, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a part atomically, in memory bounded by one row group.

    The same batches give the same bytes.

    Args:
        path: where; an earlier part there is replaced.
        table: whose schema the batches have.
        batches: its rows, in the order they shall have; none give a file with the schema alone.

    Returns:
        The number of rows.

    Raises:
        StoreError: it could not be written.
    """
    rows = 0
    with (
        files.store_errors(f"writing {path}"),
        files.replacing(path) as stream,
        _writer(
            stream,
            arrow_schema(table),
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
        ) as writer,
    ):
        for group in _row_groups(batches):
            writer.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(pending)
            pending, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(pending)


def count_values(path: Path, column: str) -> dict[str, int]:
    """How often each value stands in a text column of a part.

    Raises:
        StoreError: the part is missing or damaged.
    """
    with files.store_errors(f"reading {path}"):
        # Not partitioning: the directory's "run=" is no column of the file.
        values = _read_table(str(path), columns=[column], partitioning=None).column(column)
        return {pair["values"]: pair["counts"] for pair in values.value_counts().to_pylist()}
