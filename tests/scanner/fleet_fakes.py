"""Stand-ins for ``inspect_machine`` that need no VM; in a module of their own for the workers.

What a fake does is said by its machine's id: ``die``, ``die-once``, ``greedy``, ``bug``, ``hang``,
``slow``, ``partial`` or anything else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import RowSink


def inspect(
    machine: Machine, options: ScanOptions, sink: RowSink, *, attempt: int, run_id: str
) -> MachineSummary:
    """Do as the machine's id says, then write the rows of a machine that cannot be read."""
    kind = machine.machine_id.split("/", maxsplit=1)[0]
    if kind == "die" or (kind == "die-once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "greedy":
        _take_memory()
    if kind == "bug":
        raise ZeroDivisionError("a bug\x1b[31m")
    if kind == "hang":
        child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "1000"])
        Path(machine.disks[0].path).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(1000)
    if kind == "slow":
        time.sleep(0.3)
    unreadable = Machine(machine.machine_id, (), machine.source, "made up")
    return inspect_machine(unreadable, options, sink, attempt=attempt, run_id=run_id)


def _take_memory() -> None:
    """Take more and more, up to what the tests' host can bear."""
    taken = []
    for _ in range(3 << 30 >> 24):
        taken.append(b"x" * (1 << 24))
        time.sleep(0.01)
