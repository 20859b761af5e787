"""Inspects an image as an ordinary user and prints the rows: ``UID CACHE IMAGE``.

Started by root it becomes that user once everything is imported, as the interpreter itself may
lie where an ordinary user cannot go.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground.schema import Origin
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_directory, inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import MemorySink
from fleetscan.scanner.tables import load_tables

Tables = dict[str, list[dict[str, Any]]]  # Any: JSON

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_OWN = ("seconds",)  # how long a table took is no fact about the machine


def facts(image: Path, options: ScanOptions) -> Tables:
    """The image's rows by table, in an order that does not depend on how they were found."""
    sink = MemorySink()
    machine = Machine("machine", (Disk(str(image), "raw"),), "test")
    summary = inspect_machine(machine, options, sink)
    if summary.outcome != "ok":
        raise AssertionError(summary.error)
    return tables_of(sink)


def tables_of(sink: MemorySink) -> Tables:
    """The rows that a sink has, by table, in an order that does not depend on their finding."""
    guest = [name for name, table in load_tables().items() if table.origin is Origin.GUEST]
    return {name: _sorted(sink.table(name).to_pylist()) for name in [*guest, "disks", "coverage"]}


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    plain = [{name: str(value) for name, value in row.items() if name not in _OWN} for row in rows]
    return sorted(plain, key=json.dumps)


def become(user: int) -> None:
    """Go on as another user, if we are root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        # A process that changed its user may not look at itself in /proc until it says so.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Inspect as the user that the arguments name."""
    user, cache, image = arguments
    os.environ["FLEETSCAN_CACHE"] = cache
    with tempfile.TemporaryDirectory() as empty:
        inspect_directory(Path(empty), ScanOptions(), MemorySink())  # imports what is left
    become(int(user))
    json.dump({"uid": os.geteuid(), "tables": facts(Path(image), ScanOptions())}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
