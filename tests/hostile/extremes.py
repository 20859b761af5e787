"""An agent that says of its machine whatever a column can hold, and how a fleet of such is scanned.

As a LocalAppliance's process it takes the name of its directory for what to say. As the scan of a
fleet (:func:`inspect`) it has directories read the way they are, those named after a behaviour by
that agent: the real way from frames to facts, without a VM.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.schema import TIMESTAMP_MAX, TIMESTAMP_MIN, Column, Kind, Table
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.appliance.vm import LocalAppliance
from fleetscan.scanner import inspect as inspection
from fleetscan.scanner.inspect import inspect_directory
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from tests.appliance.hostile import HostileAgent, found
from tests.reports.report_fleet import NASTY

_TEXTS = ("", "\x00", "9" * 400, "1e999", "-0", "NaN", "\\", "'; --", "%s{0}${x}", *NASTY)

# Any: what a column's values are depends on its kind.
_EXTREMES: Mapping[Kind, tuple[Any, ...]] = {
    Kind.STRING: (*_TEXTS, "x" * 60_000, "\U0010ffff" * 10_000),
    Kind.BOOL: (True, False),
    Kind.UINT8: (0, 2**8 - 1),
    Kind.UINT16: (0, 2**16 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.UINT64: (0, 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1),
    Kind.INT64: (-(2**63), -1, 0, 2**63 - 1),
    Kind.FLOAT64: (-1.7976931348623157e308, -0.0, 5e-324, 1.7976931348623157e308),
    Kind.TIMESTAMP: (TIMESTAMP_MIN, -1, 0, TIMESTAMP_MAX),
    Kind.STRING_LIST: ([], [""], list(_TEXTS), ["x" * 1000] * 60, [str(n) for n in range(900)]),
}

Rows = Callable[[Table], Iterator[dict[str, Any]]]


def _extremes(column: Column) -> tuple[Any, ...]:
    return column.values or _EXTREMES[column.kind]


def alone(table: Table) -> Iterator[dict[str, Any]]:
    """Each column at each of its extremes, all others as small as can be."""
    plain = {column.name: _extremes(column)[0] for column in table.columns}
    for column in table.columns:
        for value in _extremes(column):
            yield {**plain, column.name: value}


def together(table: Table) -> Iterator[dict[str, Any]]:
    """All columns at their largest, at their smallest, and mixed."""
    for number in range(30):
        yield {
            column.name: _extremes(column)[-1 - (number * place) % len(_extremes(column))]
            for place, column in enumerate(table.columns)
        }


def distinct(table: Table) -> Iterator[dict[str, Any]]:
    """Twenty thousand rows whose texts are long, and none like another."""
    plain = {column.name: _extremes(column)[0] for column in table.columns}
    texts = [column.name for column in table.columns if column.kind is Kind.STRING]
    many = table.name in ("files", "packages", "users", "config")
    for number in range(20_000 if many else 50):
        yield {**plain, **{name: f"{number:06}".ljust(400, name[0]) for name in texts}}


BEHAVIOURS: dict[str, Rows] = {"alone": alone, "together": together, "distinct": distinct}


class ExtremeAgent(HostileAgent):
    """Finds one root, and says of each table what its behaviour makes up."""

    def _answer(self, payload: bytes) -> None:
        request = json.loads(payload)
        if request["op"] == "hello":
            super()._answer(payload)
        elif request["op"] == "discover":
            self.reply(found(roots=[NASTY[0]], warnings=list(NASTY)))
        else:
            self._say(load_tables()[request["args"]["table"]])
            self.reply({})

    def _say(self, table: Table) -> None:
        lines: list[bytes] = []
        for row in BEHAVIOURS[self.behaviour](table):
            lines.append(json.dumps(row).encode() + b"\n")
            if sum(map(len, lines[-200:])) > wire.ROWS_TARGET or len(lines) >= 200:
                self.say(wire.encode_rows(table.name, b"".join(lines)))
                lines = []
        if lines:
            self.say(wire.encode_rows(table.name, b"".join(lines)))


class ExtremeAppliance(LocalAppliance):
    """The agent above in place of ours."""

    agent = (sys.executable, "-m", "tests.hostile.extremes")


def inspect(
    machine: Machine, options: ScanOptions, sink: RowSink, *, attempt: int, run_id: str
) -> MachineSummary:
    """Read the directory that is a machine's id."""
    directory = Path(machine.machine_id)
    taken_over = directory.name in BEHAVIOURS
    with _appliance(ExtremeAppliance if taken_over else LocalAppliance):
        return inspect_directory(directory, options, sink, run_id=run_id)


@contextlib.contextmanager
def _appliance(kind: type[LocalAppliance]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "LocalAppliance", kind)
        yield


def main(arguments: list[str]) -> None:
    """Be a LocalAppliance's process: ``DIRECTORY SOCKET-DESCRIPTOR``."""
    directory, descriptor = arguments
    with socket.socket(fileno=int(descriptor)) as stream:
        machine = DirectoryMachine(os.devnull)
        ExtremeAgent(stream, machine, Path(directory).name).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
