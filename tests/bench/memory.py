"""Memory of a fleet scan's processes by role, as proportional set size (PSS), sampled.

PSS counts a page that several processes map in equal parts, so that sums are true. Of a VM, what
is shared memory (Pss_Shmem) is the template it was cloned from; the rest is its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROLES = ("coordinator", "worker", "VM")
_WANTED = ("Pss", "Pss_Shmem")


@dataclass(frozen=True)
class Memory:
    """Memory of a process, in bytes: its own, and its part of shared memory files."""

    own: int = 0
    shared: int = 0


@dataclass
class Peaks:
    """The most that was seen.

    Attributes:
        processes: own memory of the largest process, by role, in bytes.
        shared: the most that one process of a role mapped of shared memory files, in bytes.
        total: all processes of the scan together, shared memory included, in bytes.
        samples: how often it was looked.
    """

    processes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    shared: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: int = 0
    samples: int = 0

    def add(self, seen: dict[int, tuple[str, Memory]]) -> None:
        """Take in one look at all processes: role and memory by process id."""
        self.samples += 1
        for role, memory in seen.values():
            self.processes[role] = max(self.processes[role], memory.own)
            self.shared[role] = max(self.shared[role], memory.shared)
        total = sum(memory.own + memory.shared for _, memory in seen.values())
        self.total = max(self.total, total)


@contextlib.contextmanager
def watched(pid: int, seconds: float = 0.1) -> Iterator[Peaks]:
    """Sample a coordinator and all its descendants while the block runs.

    Args:
        pid: the coordinator.
        seconds: from one look to the next.
    """
    peaks, stop = Peaks(), threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            peaks.add(look(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def look(pid: int) -> dict[int, tuple[str, Memory]]:
    """Role and memory of a coordinator and its descendants, those that can be read."""
    seen = {}
    for each in _tree(pid):
        with contextlib.suppress(OSError):  # gone by now, or another user's
            role = "coordinator" if each == pid else role_of(Path(f"/proc/{each}/cmdline"))
            if role:
                seen[each] = (role, parse(Path(f"/proc/{each}/smaps_rollup").read_text()))
    return seen


def role_of(command_line: Path) -> str:
    """What a descendant does; empty for a helper of no account."""
    words = command_line.read_bytes().split(b"\0")
    if words[0].endswith(b"qemu-system-x86_64"):
        return "VM"
    # Dask's workers; Python's own resource tracker is started in another way.
    return "worker" if any(b"spawn_main" in word for word in words) else ""


def parse(rollup: str) -> Memory:
    """A process' memory, from the text of its ``smaps_rollup`` (proc(5))."""
    sizes = dict.fromkeys(_WANTED, 0)
    for line in rollup.splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0]) << 10
    return Memory(own=sizes["Pss"] - sizes["Pss_Shmem"], shared=sizes["Pss_Shmem"])


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything; the parent is the second field after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        pending += children[found[-1]]
    return found
