"""From row dataclasses to Arrow: schemas, and the check of every row that enters the store.

This is a border: the bytes that `decode_rows` reads were written by a guest that may be hostile.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute
import pyarrow.json

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.errors import RowError
from fleetscan.appliance.ground.schema import Column, Kind, Scope, Table
from fleetscan.appliance.host.printable import printable

MAX_PAYLOAD = 64 << 20
"""Longest payload that is decoded, in bytes: far above a frame of the wire, and below the 2 GiB
where Arrow's 32-bit offsets and block sizes end."""

_HOST_ROWS = 1000
"""Rows of ours that are decoded at once: with two paths of PATH_MAX each, all of it escaped, they
take half of MAX_PAYLOAD."""

MAX_STRING = 1 << 20
"""Longest string, in bytes of UTF-8. Paths end at 4 KiB; some configuration values are long."""

MAX_ITEMS = 1 << 16
"""Most items of a list; local groups have had some ten thousand members."""

MAX_IDENTITY = 4096
"""Longest machine_id or root, in bytes of UTF-8: PATH_MAX of Linux."""

_TYPES: dict[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.BOOL: pa.bool_(),
    Kind.UINT8: pa.uint8(),
    Kind.UINT16: pa.uint16(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.INT64: pa.int64(),
    Kind.FLOAT64: pa.float64(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.DATE: pa.date32(),
    Kind.ENUM: pa.dictionary(pa.int32(), pa.string()),
    # "element" is what Parquet's specification calls a list's items, so the schema survives it.
    Kind.STRING_LIST: pa.list_(pa.field("element", pa.string(), nullable=False)),
}
_WIRE_TYPES = _TYPES | {
    Kind.TIMESTAMP: pa.int64(),
    Kind.ENUM: pa.string(),
    Kind.STRING_LIST: pa.list_(pa.string()),
}
# Any: no stubs know which kernel fits which array, or that kernels take plain numbers.
_Values: TypeAlias = Any
pc: Any = pyarrow.compute
read_json: Any = pyarrow.json.read_json

_INTEGERS = {
    Kind.UINT8,
    Kind.UINT16,
    Kind.UINT32,
    Kind.UINT64,
    Kind.INT64,
    Kind.TIMESTAMP,
}

# One flat JSON object that ends where its line ends. Possessive, so it cannot backtrack.
_ONE_OBJECT = re.compile(rb'\{(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+\}')


def all_columns(table: Table) -> tuple[Column, ...]:
    """A table's columns as they are stored: ``machine_id``, ``root`` if it has one, its own."""
    head = (schema.MACHINE_ID, schema.ROOT)
    heads = {Scope.ROOT: head, Scope.MACHINE: head[:1], Scope.FLEET: ()}
    return heads[table.scope] + table.columns


@functools.cache
def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table, with descriptions and units as its fields' metadata."""
    fields = [
        pa.field(
            column.name,
            _TYPES[column.kind],
            nullable=column.nullable,
            metadata={"description": column.description, "unit": column.unit},
        )
        for column in all_columns(table)
    ]
    return pa.schema(fields, metadata={"table": table.name})


def rows_to_arrow(
    table: Table, rows: Iterable[object], *, machine_id: str, root: str | None = None
) -> pa.Table:
    """Rows that the host itself made, checked like those of a guest.

    Args:
        table: the table they belong to.
        rows: instances of its row class; none give an empty table.
        machine_id: the machine that they are about.
        root: the root that they are about; None for tables of machine scope.

    Raises:
        RowError: a value does not fit its column.
    """
    try:
        payload = b"".join(encode_rows(rows))
    except (UnicodeEncodeError, TypeError) as error:
        raise RowError(f"{table.name}: {printable(str(error))}") from error
    if not payload:
        return arrow_schema(table).empty_table()
    return decode_rows(table, payload, machine_id=machine_id, root=root)


def host_rows(table: Table, rows: Sequence[object], *, machine_id: str) -> Iterator[pa.Table]:
    """The same for any number of rows of machine scope, some at a time.

    Raises:
        RowError: a value does not fit its column.
    """
    for start in range(0, len(rows), _HOST_ROWS):
        yield rows_to_arrow(table, rows[start : start + _HOST_ROWS], machine_id=machine_id)


def decode_rows(table: Table, payload: bytes, *, machine_id: str, root: str | None) -> pa.Table:
    """Check one payload of guest rows and turn it into Arrow.

    Args:
        table: the table they belong to.
        payload: newline-ended JSON objects, one a line, as ``ground.encoding.encode_rows`` writes
            them: timestamps as whole microseconds, null columns left out.
        machine_id: the machine that they came from.
        root: the root that they came from; None for tables of machine scope.

    Returns:
        At least one row, with the schema of :func:`arrow_schema`; all strings are UTF-8.

    Raises:
        RowError: anything else. Its text is short, printable, and names table and column.
    """
    lines = _split(table, payload)
    identity = _identity(table, machine_id, root)
    wire = _parse(table, payload)
    if len(wire) != len(lines):
        raise RowError(f"{table.name}: {len(lines)} lines hold {len(wire)} rows")
    arrays = [
        _checked(table, column, wire.column(index)) for index, column in enumerate(table.columns)
    ]
    heads = [pa.repeat(value, len(wire)) for value in identity]
    return pa.Table.from_arrays([*heads, *arrays], schema=arrow_schema(table))


def _identity(table: Table, machine_id: str, root: str | None) -> list[str]:
    if (root is not None) != (table.scope is Scope.ROOT):
        wanted = "needs a root" if root is None else "knows no roots"
        raise RowError(f"{table.name}: the table {wanted}")
    values = [machine_id] if root is None else [machine_id, root]
    for name, value in zip(("machine_id", "root"), values, strict=False):
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise RowError(f"{table.name}: {name} is not valid Unicode") from error
        if not 0 < size <= MAX_IDENTITY:
            raise RowError(f"{table.name}: {name} has {size} bytes, not 1 to {MAX_IDENTITY}")
    return values


def _split(table: Table, payload: bytes) -> list[bytes]:
    """The payload's lines, each of which holds one JSON object at most, and nothing beside it.

    Arrow's parser takes any JSON value where a row may begin, and a bare ``null`` there makes it
    follow a null pointer (apache/arrow#47409). So it only ever sees lines that begin with a brace
    and whose first closing brace outside strings ends them. That it is the first of all closing
    braces settles most lines without looking for strings.
    """
    if not 0 < len(payload) <= MAX_PAYLOAD:
        raise RowError(f"{table.name}: a payload of {len(payload)} bytes, not 1 to {MAX_PAYLOAD}")
    lines = payload.split(b"\n")
    if lines.pop():
        raise RowError(f"{table.name}: row {len(lines) + 1} does not end with a newline")
    for number, line in enumerate(lines, 1):
        plain = line.startswith(b"{") and line.find(b"}") == len(line) - 1
        if not plain and not _ONE_OBJECT.fullmatch(line):
            raise RowError(f"{table.name}: row {number} is not one flat JSON object")
    return lines


def _parse(table: Table, payload: bytes) -> pa.RecordBatch:
    try:
        wire = _read_json(payload, _wire_schema(table))
        # The parser copies strings as they come, whatever bytes they hold.
        wire.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise RowError(_explain(table, payload, str(error))) from None
    return wire


def _read_json(payload: bytes, wire_schema: pa.Schema) -> pa.RecordBatch:
    wire: pa.Table = read_json(
        pa.BufferReader(payload),
        # One block holds it all, so that no row straddles two.
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(payload) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=wire_schema, unexpected_field_behavior="error"
        ),
    )
    return wire.combine_chunks().to_batches()[0]


@functools.cache
def _wire_schema(table: Table, exact: str | None = None) -> pa.Schema:
    """What the parser should expect; all nullable, since it does not name what is missing.

    Args:
        table: the table.
        exact: the only integer column to be held to its type; None for all of them.
    """

    def wire_type(column: Column) -> pa.DataType:
        loose = exact is not None and column.name != exact and column.kind in _INTEGERS
        return pa.float64() if loose else _WIRE_TYPES[column.kind]

    return pa.schema([(column.name, wire_type(column)) for column in table.columns])


def _explain(table: Table, payload: bytes, reason: str) -> str:
    """Say what Arrow found, as far as possible in terms of rows and columns."""
    # A number that could not be converted is the guest's text: it ends the reason, and goes.
    reason = printable(reason.partition(", couldn't parse:")[0], 120)
    reason = reason.removeprefix("JSON parse error: ")
    place = table.name
    if row := re.search(r" in row (\d+)$", reason):
        place += f": row {int(row[1]) + 1}"
        reason = reason[: row.start()]
    if named := re.match(r"Column\(/(\w+)\S* ", reason):
        column: str | None = named[1]
        reason = reason[named.end() :]
    elif numbered := re.match(r"In column (\d+): ", reason):
        column = table.columns[int(numbered[1])].name
        reason = reason[numbered.end() :]
    else:
        column = _misfit(table, payload)
    return f"{place}: column {column}: {reason}" if column else f"{place}: {reason}"


def _misfit(table: Table, payload: bytes) -> str | None:
    """The first integer column that does not fit its type; the parser does not say which."""
    integers = [column.name for column in table.columns if column.kind in _INTEGERS]
    for name in ("", *integers):
        try:
            _read_json(payload, _wire_schema(table, name))
        except (pa.ArrowException, ValueError):
            return name  # empty: it fails for another reason than an integer
    return None


def _checked(table: Table, column: Column, array: _Values) -> _Values:
    if not column.nullable and array.null_count:
        _refuse(table, column, array.is_null(), "is missing")
    if column.kind is Kind.STRING:
        _check_strings(table, column, array)
    elif column.kind is Kind.STRING_LIST:
        _check_lists(table, column, array)
    elif column.kind is Kind.FLOAT64:
        _refuse(table, column, pc.invert(pc.is_finite(array)), "is not a finite number")
    elif column.kind is Kind.TIMESTAMP:
        outside = pc.or_(
            pc.less(array, schema.TIMESTAMP_MIN), pc.greater(array, schema.TIMESTAMP_MAX)
        )
        _refuse(table, column, outside, "lies outside the years 1 to 9999")
    elif column.kind is Kind.ENUM:
        return _enum(table, column, array)
    return array.cast(_TYPES[column.kind])


def _check_strings(table: Table, column: Column, array: _Values) -> None:
    too_long = pc.greater(pc.binary_length(array), MAX_STRING)
    _refuse(table, column, too_long, f"is longer than {MAX_STRING} bytes")


def _check_lists(table: Table, column: Column, array: _Values) -> None:
    too_many = pc.greater(pc.list_value_length(array), MAX_ITEMS)
    _refuse(table, column, too_many, f"has more than {MAX_ITEMS} items")
    items = array.flatten()
    if items.null_count or (pc.max(pc.binary_length(items)).as_py() or 0) > MAX_STRING:
        message = f"has an item that is null or longer than {MAX_STRING} bytes"
        raise RowError(f"{table.name}: column {column.name} {message}")


def _enum(table: Table, column: Column, array: _Values) -> _Values:
    values = pa.array(column.values, pa.string())
    indices = pc.index_in(array, value_set=values)
    if indices.null_count != array.null_count:
        stray = pc.and_(indices.is_null(), array.is_valid())
        _refuse(table, column, stray, "is not one of the values that it may have")
    return pa.DictionaryArray.from_arrays(indices, values)


def _refuse(table: Table, column: Column, bad: _Values, why: str) -> None:
    row = bad.index(True).as_py()
    if row >= 0:
        raise RowError(f"{table.name}: row {row + 1}: column {column.name} {why}")
