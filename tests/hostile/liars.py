"""Machines whose agents say anything that the wire lets pass, beside honest ones."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetscan.appliance.ground.schema import (
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    Column,
    Kind,
    Scope,
    Table,
)
from fleetscan.rules import case_facts
from fleetscan.rules.cases import Case, case_path
from fleetscan.rules.load import load_packs
from fleetscan.rules.source import read
from fleetscan.scanner.store.arrow import decode_rows, rows_to_arrow
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from tests.bench import invented
from tests.scanner.store.making import machine_rows

RUN = "20260131T000000Z-000000"
ROOT = "/dev/sda1"
HONEST = ("h-linux", "h-linux-too", "h-windows", "h-windows-too")

_HOST_ONLY = {"machines", "coverage"}
_ROWS = 5  # of a table, of an honest machine
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Rows = dict[str, list[dict[str, Any]]]
"""Rows by table, as they stand on the wire."""

TEXTS: tuple[str, ...] = (
    "",
    "\0",
    "9" * 400,
    "-1e999",
    "18446744073709551616",
    "9999-99-99",
    "-290308-12-21 (BC)",
    "\\x80\\xff \ud7ff\ue000\uffff\U0010ffff",
    "\u202e\u2066\x1b[2J\x1b]0;x\x07\r\n",
    "'; DROP TABLE users; --\"]]></script>{{7*7}}",
    "=cmd|' /C calc'!A0",
    "[*?](((a+)+)+$|\\",
    '{"a": NaN}',
    "/" * 4096,
)

NUMBERS = {Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64, Kind.INT64, Kind.TIMESTAMP}

_UNSIGNED = {Kind.UINT8: 8, Kind.UINT16: 16, Kind.UINT32: 32, Kind.UINT64: 64}


def extremes(column: Column, length: int) -> list[Any]:
    """What a column may hold at worst; None stands for leaving it out."""
    nothing = [None] if column.nullable else []
    if column.kind in _UNSIGNED:
        return [(1 << _UNSIGNED[column.kind]) - 1, 0, 1, *nothing]
    found: dict[Kind, list[Any]] = {
        Kind.INT64: [2**63 - 1, -(2**63), -1, 0],
        Kind.TIMESTAMP: [TIMESTAMP_MAX, TIMESTAMP_MIN, 0],
        Kind.FLOAT64: [1.7e308, -1.7e308, 5e-324, 0],
        Kind.BOOL: [True, False],
        Kind.ENUM: list(column.values),
        Kind.STRING: ["x" * length, *TEXTS],
        Kind.STRING_LIST: [list(TEXTS), [], ["x" * length], [""] * (length // 8)],
    }
    return found[column.kind] + nothing


def honest_rows() -> Rows:
    """Rows of every table, those that the packs' own cases care about first."""
    gathered: Rows = {name: [] for name in load_tables()}
    for pack in load_packs():
        for rule in pack.rules:
            path = case_path(pack, rule)
            for case in read(path).parse(list[Case])[:1]:
                for name, rows in case_facts.complete(case.facts).items():
                    gathered[name] += [_wire(load_tables()[name], row) for row in rows]
    for name in gathered:
        invented_row = case_facts.complete({name: [{}]})[name][0]
        spread = gathered[name][:: -(-len(gathered[name]) // _ROWS) or 1]
        if name == "operating_systems":
            spread = list({row["family"]: row for row in gathered[name]}.values())
        gathered[name] = spread or [_wire(load_tables()[name], invented_row)]
    return gathered


def _wire(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    own = {column.name: row[column.name] for column in table.columns}
    return {name: _plain(value) for name, value in own.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return (value - _EPOCH) // dt.timedelta(microseconds=1)
    return value


def liars(base: Rows) -> Iterator[Rows]:
    """Rows of hostile machines: each column alone at its extremes, all together, and mixed."""
    turn = itertools.count()
    tables = [table for name, table in load_tables().items() if name not in _HOST_ONLY]
    for table in tables:
        for column in table.columns:
            first, *others = extremes(column, 1 << 16)
            other = others[next(turn) % len(others)]
            for value in (first, other) if column.kind in NUMBERS else (other,):
                yield {table.name: [_changed(row, column, value) for row in base[table.name][:2]]}
    for number in range(len(TEXTS)):
        yield {
            table.name: [_worst(table, functools.partial(_same, number))] * 2 for table in tables
        }
    for seed in range(20):
        chance = random.Random(seed)  # noqa: S311 - the same machines every time
        yield {table.name: [_worst(table, chance.randrange) for _ in range(3)] for table in tables}


def _same(number: int, many: int) -> int:
    return number % many


def _changed(row: dict[str, Any], column: Column, value: Any) -> dict[str, Any]:
    changed = {**row, column.name: value}
    return {name: value for name, value in changed.items() if value is not None}


def _worst(table: Table, choose: Callable[[int], int]) -> dict[str, Any]:
    row = {}
    for column in table.columns:
        values = extremes(column, 1 << 12)
        row[column.name] = values[choose(len(values))]
    return {name: value for name, value in row.items() if value is not None}


def write(folder: Path, base: Rows, hostile: Sequence[Rows]) -> int:
    """A run of the honest machines, and of hostile ones before, between and behind them."""
    machines: dict[str, Rows] = dict.fromkeys(HONEST, base)
    for number, rows in enumerate(hostile):
        machines["ahiz"[number % 4] + f"-liar-{number:04}"] = rows
    written = {}
    for name, table in load_tables().items():
        batches = _batches(table, base, dict(sorted(machines.items())))
        written[name] = invented.write(folder, RUN, table, batches)
    invented.publish(folder, RUN, len(machines), written)
    return len(machines)


def _batches(table: Table, base: Rows, machines: dict[str, Rows]) -> Iterator[pa.RecordBatch]:
    common = _decoded(table, base[table.name], "m")
    for number, (machine_id, rows) in enumerate(machines.items()):
        if table.name == "machines":
            found = machine_rows(machine_id, RUN)
        elif table.name == "coverage":
            found = _coverage(machine_id)
        elif table.name in rows and rows is not base:
            found = _decoded(table, rows[table.name], machine_id)
        else:
            ids = pa.repeat(machine_id, len(common))
            found = common.set_column(0, common.schema.field(0), ids)
        if table.name == "operating_systems" and (rows is base or table.name not in rows):
            is_windows = "windows" in machine_id or (rows is not base and number % 2)
            wanted = "windows" if is_windows else "linux"
            families = found.column("family").to_pylist()
            found = found.take([families.index(wanted)])
        yield from found.combine_chunks().to_batches()


def _decoded(table: Table, rows: Sequence[dict[str, Any]], machine_id: str) -> pa.Table:
    payload = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    root = ROOT if table.scope is Scope.ROOT else None
    return decode_rows(table, payload, machine_id=machine_id, root=root)


def _coverage(machine_id: str) -> pa.Table:
    rows = [
        Coverage(
            root=ROOT if table.scope is Scope.ROOT else None,
            table_name=name,
            status=CoverageStatus.OK,
            rows=1,
            seconds=0.1,
            error=None,
            unread=None,
        )
        for name, table in load_tables().items()
        if name not in _HOST_ONLY
    ]
    return rows_to_arrow(load_tables()["coverage"], rows, machine_id=machine_id)
