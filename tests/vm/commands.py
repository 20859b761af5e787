"""Running the command line as users do, and looking for what it left behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "fleetscan.scanner.cli")
_MARK = "FLEETSCAN_MARK"
_CHUNK = 1 << 20
_VM_SECONDS = 240

Tables = dict[str, list[dict[str, Any]]]  # Any: JSON values


@dataclass(frozen=True)
class Inspected:
    """An image's inspection: what was printed, and the disks' checksums around it."""

    status: int
    tables: Tables
    errors: str
    before: dict[str, str]
    after: dict[str, str]
    leftovers: list[str]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The table's rows."""
        return self.tables[table]

    @property
    def machine(self) -> dict[str, Any]:
        """The only row of ``machines``."""
        (row,) = self.tables["machines"]
        return row


@functools.cache
def inspect(*disks: Path) -> Inspected:
    """Inspect the machine of these disks once a test session."""
    options = [word for disk in disks for word in ("-a", str(disk))]
    before = checksums(*disks)
    with Workplace() as place:
        done = place.run("inspect", *options, "--output", "json")
        leftovers = place.leftovers()
    tables = json.loads(done.stdout) if done.stdout else {}
    return Inspected(done.returncode, tables, done.stderr, before, checksums(*disks), leftovers)


class Workplace:
    """A temporary directory of a command's own and a mark that its processes inherit."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fleetscan-test-")
        self.path = Path(self._directory.name)
        self.temporary = self.path / "tmp"
        self.temporary.mkdir()
        self._environment = {
            **os.environ,
            _MARK: self.path.name,
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.temporary),
        }

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def run(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a fleetscan command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def start(self, *arguments: str, command: tuple[str, ...] = COMMAND) -> subprocess.Popen[str]:
        """Start a fleetscan command in a process group of its own, as a shell would."""
        return subprocess.Popen(
            [*command, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def processes(self, program: str = "") -> list[int]:
        """Running processes that descend from this place's commands.

        Args:
            program: only those whose program's name begins so.
        """
        mark = f"{_MARK}={self.path.name}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name = (folder / "comm").read_text()
                if mark in (folder / "environ").read_bytes() and name.startswith(program):
                    found.append(int(folder.name))
        return found

    def wait_for_vm(self) -> list[int]:
        """QEMU processes of a command that was started, once there is one."""
        end = time.monotonic() + _VM_SECONDS
        while not (found := self.processes("qemu-system")):
            assert time.monotonic() < end, "no VM was started"
            time.sleep(0.02)
        return found

    def leftovers(self) -> list[str]:
        """What should be gone: processes and temporary files, sockets among them."""
        processes = [f"process {pid}" for pid in self.processes()]
        return processes + sorted(str(path) for path in self.temporary.rglob("*"))


def checksums(*disks: Path) -> dict[str, str]:
    """A checksum of each disk file, and of the files beside it that may be its backing files."""
    paths = {
        path
        for disk in disks
        for path in disk.parent.iterdir()
        if path == disk or path.name == f"{disk.stem}-base{disk.suffix}"
    }
    return {path.name: _sha256(path) for path in sorted(paths)}


def _sha256(path: Path) -> str:
    """A checksum of what is not zero, and of the length: sparse files are mostly holes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for number in _chunks(stream.fileno()):
            stream.seek(number * _CHUNK)
            content = stream.read(_CHUNK)
            if content.strip(b"\0"):
                digest.update(b"%d:" % number)
                digest.update(content)
    digest.update(b"%d" % path.stat().st_size)
    return digest.hexdigest()


def _chunks(descriptor: int) -> list[int]:
    """Numbers of the chunks that hold data; a file's holes come and go as it is written back."""
    numbers: dict[int, None] = {}
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: no data after this offset
        while True:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            numbers.update(dict.fromkeys(range(start // _CHUNK, (end - 1) // _CHUNK + 1)))
    return list(numbers)
