"""Parquet parts: rows of one table, some tens of megabytes a file."""

from __future__ import annotations

import bisect
import hashlib
import heapq
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.run_file import PartFile

ROW_GROUP_ROWS = 122_880
"""Rows after which a row group ends: what DuckDB reads with one thread at a time (its own row
groups have this size), and a few machines' files, so that a filter on one machine skips most."""

ROW_GROUP_BYTES = 16 << 20
"""Bytes in memory after which it ends as well, whatever the rows; one payload may come on top."""

PART_BYTES = 64 << 20
"""Length after which a part ends, with the row group that it is in: Spark's and Dask's readers like
files of some tens of megabytes and more, and whoever needs one machine opens few of them."""

SMALL_PART = PART_BYTES // 4
"""Parts shorter than this are put together, longer ones are left as they are."""

_ZSTD_LEVEL = 3  # zstd's own default; higher levels gain little on columns of text
_READ_ROWS = 1 << 11  # rows of a part that is merged with others that are in memory at a time

# Any: the stubs of pyarrow.parquet differ from version to version.
_writer: Any = pyarrow.parquet.ParquetWriter
_read_table: Any = pyarrow.parquet.read_table
_parquet_file: Any = pyarrow.parquet.ParquetFile


class _Measured(io.RawIOBase):
    """Passes on what is written, and knows its length and digest."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: whatever has a buffer
        self._digest.update(data)
        self.size += len(data)
        self._stream.write(data)
        return len(data)

    def sha256(self) -> str:
        return self._digest.hexdigest()


def numbered(directory: Path, first: int = 0) -> Callable[[int], Path]:
    """The names of parts in a directory, from a number on."""
    return lambda number: directory / layout.part_name(first + number)


def write_parts(
    place: Callable[[int], Path],
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    row_group_bytes: int | None = None,
) -> list[PartFile]:
    """Write rows as parts, each of which appears atomically, in memory bounded by one row group.

    The same batches give the same bytes.

    Args:
        place: where the first part, the second and so on go; what is there is replaced.
        schema: that of the batches.
        batches: the rows, in the order they shall have; none give no part.
        row_group_bytes: bytes in memory after which a row group ends; ROW_GROUP_BYTES when None.

    Raises:
        StoreError: one could not be written.
    """
    groups = _row_groups(batches, row_group_bytes or ROW_GROUP_BYTES)
    ahead = deque(itertools.islice(groups, 1))
    written: list[PartFile] = []
    while ahead:
        written.append(_write_part(place(len(written)), schema, _drained(ahead, groups)))
        ahead.extend(itertools.islice(groups, 1))
    return written


def _drained(ahead: deque[pa.Table], groups: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """First what was taken ahead; nothing keeps it in memory once it is written."""
    while ahead:
        yield ahead.popleft()
    yield from groups


def _write_part(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> PartFile:
    """Write row groups until the part is long enough; the others are left."""
    rows = 0
    with files.store_errors(f"writing {path}"), files.replacing(path) as stream:
        measured = _Measured(stream)
        with _writer(measured, schema, compression="zstd", compression_level=_ZSTD_LEVEL) as writer:
            for group in groups:
                writer.write_table(group, row_group_size=group.num_rows)
                rows += group.num_rows
                if measured.size >= PART_BYTES:
                    break
    return PartFile(path.name, rows, measured.size, measured.sha256())


def _row_groups(batches: Iterable[pa.RecordBatch], most_bytes: int) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= most_bytes:
            yield _group(pending)
            pending, rows, size = [], 0, 0
    if rows:
        yield _group(pending)


def _group(batches: list[pa.RecordBatch]) -> pa.Table:
    # Batches that were read from Parquet have dictionaries of their own.
    return pa.Table.from_batches(batches).unify_dictionaries()


def read_schema(path: Path) -> pa.Schema:
    """The schema of a part.

    Raises:
        StoreError: it is missing or damaged.
    """
    with files.store_errors(f"reading {path}"), _parquet_file(path) as part:
        schema: pa.Schema = part.schema_arrow
    return schema


def count_rows(path: Path) -> int:
    """The number of rows of a part, as its footer says.

    Raises:
        StoreError: it is missing or damaged.
    """
    with files.store_errors(f"reading {path}"), _parquet_file(path) as part:
        return int(part.metadata.num_rows)


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a part, some at a time.

    Args:
        path: the part.
        columns: those wanted, as far as the part has them; None for all.

    Raises:
        StoreError: it is missing or damaged.
    """
    with files.store_errors(f"reading {path}"), _parquet_file(path) as part:
        # Not in threads: those would read ahead without end.
        yield from part.iter_batches(
            batch_size=_READ_ROWS, columns=list(columns) if columns else None, use_threads=False
        )


_Head = tuple[str, int, pa.RecordBatch | None]
"""Where a stream goes on: machine, number of the stream, rows; None before it has begun."""


def merged(
    streams: Iterable[Iterable[pa.RecordBatch]], firsts: Iterable[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of several streams, each sorted by machine, as one such stream.

    The rows of one machine keep their order, those of the first stream before those of the next.
    Memory holds one batch of each stream that has begun and is not at its end.

    Args:
        streams: the streams.
        firsts: for each a machine before which it has no rows, and until which it is not begun.
    """
    sources = [(batch for batch in stream if batch.num_rows) for stream in streams]
    begins = list(firsts) if firsts is not None else [""] * len(sources)
    heap: list[_Head] = [(begin, number, None) for number, begin in enumerate(begins)]
    heapq.heapify(heap)
    while heap:
        _, number, batch = heapq.heappop(heap)
        if batch is None:
            _push(heap, number, next(sources[number], None))
            continue
        cut = _up_to(batch, heap[0][0], number < heap[0][1]) if heap else batch.num_rows
        yield batch.slice(0, cut)
        rest = batch.slice(cut) if cut < batch.num_rows else next(sources[number], None)
        _push(heap, number, rest)


def _push(heap: list[_Head], number: int, batch: pa.RecordBatch | None) -> None:
    if batch is not None:
        heapq.heappush(heap, (_machine(batch, 0), number, batch))


def _up_to(batch: pa.RecordBatch, machine_id: str, is_first: bool) -> int:
    """How many of a batch's rows come before those of a machine in another stream; at least one.

    Args:
        batch: it begins with that machine or an earlier one.
        machine_id: the machine.
        is_first: whether the batch's rows of that machine come before the others.
    """
    rows = range(batch.num_rows)
    bisected = bisect.bisect_right if is_first else bisect.bisect_left
    return max(1, bisected(rows, machine_id, key=lambda row: _machine(batch, row)))


def _machine(batch: pa.RecordBatch, row: int) -> str:
    return str(batch.column("machine_id")[row].as_py())


def count_values(path: Path, column: str) -> dict[str, int]:
    """How often each value stands in a text column of a part.

    Raises:
        StoreError: the part is missing or damaged.
    """
    with files.store_errors(f"reading {path}"):
        # Not partitioning: the directory's "run=" is not a column of the file.
        values = _read_table(str(path), columns=[column], partitioning=None).column(column)
        return {pair["values"]: pair["counts"] for pair in values.value_counts().to_pylist()}
