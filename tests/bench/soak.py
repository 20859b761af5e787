"""Clones and machines in a row; what is left behind afterwards, and fails if there is anything."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import MemorySink
from tests.vm.machines import Host, checksum, image_of, prepared, qemus, small_system

CLONES = 1000
MACHINES = 200
WARM = 5  # rounds before the first look: libraries, caches and heaps come to their size
GROWTH_KIB = 20 << 10  # of our own memory; a leak of a kibibyte a round does not pass


@dataclass(frozen=True)
class Traces:
    """What rounds could leave behind.

    Attributes:
        processes: QEMUs of ours.
        descriptors: what is open in this process.
        files: what lies in its directory for temporary files.
        template: checksums of the template's files, and of the memory that clones map.
    """

    processes: frozenset[int]
    descriptors: tuple[str, ...]
    files: tuple[str, ...]
    template: tuple[str, ...]


def traces(host: Host) -> Traces:
    """What there is now."""
    mapped = f"/proc/self/fd/{host.template.memory}"
    files = (host.place / "memory", host.place / "state", mapped)
    return Traces(
        frozenset(qemus()),
        tuple(sorted(_descriptors())),
        tuple(str(path) for path in Path(tempfile.gettempdir()).iterdir()),
        tuple(checksum(path) for path in files),
    )


def _descriptors() -> Iterator[str]:
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            yield f"{path.name} {path.readlink()}"


def resident_kib() -> int:
    """Memory of this process."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


def soak(host: Host, name: str, rounds: int, once: Callable[[], None]) -> None:
    """Go many rounds and compare what there is before and after.

    Raises:
        AssertionError: something is left.
    """
    for _ in range(WARM):
        once()
    before, memory = traces(host), resident_kib()
    seconds = []
    for _ in range(rounds):
        begun = time.monotonic()
        once()
        seconds.append(time.monotonic() - begun)
    after, grown = traces(host), resident_kib() - memory
    print(
        f"{name}: {rounds} in {sum(seconds):.1f} s, median {statistics.median(seconds):.3f} s, "
        f"longest {max(seconds):.3f} s, our memory {grown:+d} KiB",
        flush=True,
    )
    if after != before or grown > GROWTH_KIB:
        raise AssertionError(f"left behind: {after} instead of {before}, {grown} KiB")


def main(arguments: list[str]) -> None:
    """Soak clones, then machines."""
    clones, machines = ([int(word) for word in arguments] + [CLONES, MACHINES][len(arguments) :])[
        :2
    ]
    host = prepared()

    def clone() -> None:
        with host.clone():
            pass

    with tempfile.TemporaryDirectory() as folder:
        tree = small_system(Path(folder) / "tree")
        machine = Machine(
            "m", (Disk(str(image_of(tree, Path(folder) / "disk.raw")), "raw"),), "soak"
        )

        def inspect() -> None:
            summary = inspect_machine(machine, ScanOptions(), MemorySink())
            if summary.outcome != "ok":
                raise AssertionError(summary.error)

        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        soak(host, "clones", clones, clone)
        soak(host, "machines", machines, inspect)
    print("nothing is left behind")


if __name__ == "__main__":
    main(sys.argv[1:])
