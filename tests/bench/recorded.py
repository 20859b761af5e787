"""A stand-in for ``inspect_machine`` that gives recorded rows; in a module of its own for workers.

Everything but the VM is as in a scan: preflight of the disk, the wire's encoding and decoding of
every row, and what is written. Which facts a machine has follows from its disk's time, so that a
changed disk has changed facts.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.schema import Origin, Scope
from fleetscan.scanner import preflight
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary, ScanState
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.arrow import decode_rows, host_rows
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import CoverageStatus
from tests.bench import invented

APPLIANCE = "recorded"
ROOT = "/dev/vg0/root"
PACKAGES, FILES = "FLEETSCAN_BENCH_PACKAGES", "FLEETSCAN_BENCH_FILES"
"""Environment variables that say how many rows a machine has."""


def inspect(
    machine: Machine, options: ScanOptions, sink: RowSink, *, attempt: int, run_id: str
) -> MachineSummary:
    """Write the rows of a machine, as if a VM had given them."""
    started, begun = time.time(), time.monotonic()
    found = ScanState(machine, roots=[ROOT], ran_by="none", appliance=APPLIANCE)
    for disk in machine.disks:
        found.add_disk(disk, preflight.examine(disk, preflight.DiskPolicy()))
    variant = int(Path(machine.disks[0].path).stat().st_mtime) % 3
    for name, table in load_tables().items():
        if table.origin is Origin.GUEST:
            root = ROOT if table.scope is Scope.ROOT else None
            payload = _payload(name, variant)
            if payload:
                rows = decode_rows(table, payload, machine_id=machine.machine_id, root=root)
                sink.write(name, rows)
            found.cover(
                name,
                root,
                CoverageStatus.OK if payload else CoverageStatus.EMPTY,
                rows=payload.count(b"\n"),
            )
    row = found.machine_row(
        started=started, seconds=time.monotonic() - begun, attempt=attempt, run_id=run_id
    )
    own: dict[str, Sequence[object]] = {
        "machines": [row],
        "coverage": found.coverage,
        "disks": found.disks,
    }
    for name, written in own.items():
        for some in host_rows(load_tables()[name], written, machine_id=machine.machine_id):
            sink.write(name, some)
    return MachineSummary(machine.machine_id, row.outcome, row.error, row.roots, row.seconds)


def _payload(name: str, variant: int) -> bytes:
    """What the wire would bring of a table."""
    if name in ("packages", "files"):
        return b"".join(encode_rows(_objects(name, variant)))
    return _recorded().get(name, b"")


@functools.cache
def _recorded() -> dict[str, bytes]:
    return invented.payloads()


@functools.cache
def _objects(name: str, variant: int) -> list[object]:
    if name == "packages":
        return list(invented.packages(int(os.environ.get(PACKAGES, "100")) - variant))
    return list(invented.files_of(int(os.environ.get(FILES, "200")) - variant))
