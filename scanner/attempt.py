"""One attempt at a machine: what is given, what it may still use, and what is known so far."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.session import SessionLimits
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary, ScanState
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.sources.volume_keys import KeyUnavailableError, read_keys
from fleetscan.scanner.store.arrow import host_rows
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage
from fleetscan.scanner.tables.disk_snapshots.spec import DiskSnapshot
from fleetscan.scanner.tables.disks.spec import DiskRow
from fleetscan.scanner.tables.left_out.spec import LeftOutRow
from fleetscan.scanner.tables.machines.spec import MachineRow


class Attempt:
    """A machine's inspection, from its beginning on.

    Args:
        machine: the machine and its disks.
        options: how it is inspected.
        sink: takes the rows.
        number: how often this run has tried the machine, this time included.
        run_id: the run that the facts are written to; empty outside of a run.
    """

    def __init__(
        self,
        machine: Machine,
        options: ScanOptions,
        sink: RowSink,
        number: int = 1,
        run_id: str = "",
    ) -> None:
        self.machine = machine
        self.options = options
        self.sink = sink
        self.found = ScanState(machine)
        self.limits = SessionLimits()
        self.key_sources = (*machine.keys, *options.secrets.keys)
        self._number, self._run_id = number, run_id
        self._started, self._begun = time.time(), time.monotonic()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Give the machine all of its time from now on."""
        self.deadline = Deadline(self.options.limits.deadline, "the machine's scan")

    @functools.cached_property
    def keys(self) -> list[tuple[str, bytes]]:
        """Selector and key, of each key that can be read; what cannot be is a warning."""
        keys: list[tuple[str, bytes]] = []
        for source in self.key_sources:
            try:
                keys += read_keys([source])
            except KeyUnavailableError as error:
                self.found.warnings.append(str(error))
        return keys

    def finish(self) -> MachineSummary:
        """Write the rows about the scan itself."""
        self.found.cover_unreached()
        row = self.found.machine_row(
            started=self._started,
            seconds=time.monotonic() - self._begun,
            attempt=self._number,
            run_id=self._run_id,
        )
        self._write("machines", [row])
        self._write("coverage", self.found.coverage)
        self._write("disks", self.found.disks)
        self._write("disk_snapshots", self.found.snapshots)
        self._write("left_out", self.found.left_out_rows())
        return MachineSummary(
            self.machine.machine_id, row.outcome, row.error, row.roots, row.seconds
        )

    def _write(
        self,
        name: str,
        rows: Sequence[MachineRow | Coverage | DiskRow | DiskSnapshot | LeftOutRow],
    ) -> None:
        for some in host_rows(load_tables()[name], rows, machine_id=self.machine.machine_id):
            self.sink.write(name, some)
