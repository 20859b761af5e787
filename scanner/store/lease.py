"""Who works on a run: one process at a time, on whatever host.

An owner's claim is a file in the run's staging directory, ``owner-00001.json``; of several, the one
with the highest number counts. Whoever wants the run makes a file that must not exist yet, with the
number after the highest: of any number of processes that find a claim without its owner, one gets
the run. The owner touches its file as long as it lives.

On the owner's own host, the number and start time of its process show whether it is alive. Other
hosts give its claim up when it was not touched for a while; both times are those of the filesystem
that holds the file, so that hosts' clocks do not matter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.appliance.host import writing
from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.store import files

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 180.0
"""Age of a claim that nobody believes any more; NFS clients may hold times back for a minute
(acregmax of nfs(5))."""

_CLAIM = re.compile(r"owner-([0-9]{5})\.json")
_LONGEST = 4096  # bytes of a claim
_PIDS = 1 << 31
_ENDED = ("Z", "X", "x")  # states of a process that runs no more, proc_pid_stat(5)


@dataclass(frozen=True)
class Owner:
    """A process that works on a run.

    Attributes:
        host: its host's name.
        pid: its number there.
        since: when it took the run, UTC, as ISO 8601.
        kernel: which kernel, since which boot, and which of its PID namespaces numbers it.
        started: its start time, in that kernel's ticks since its boot.
    """

    host: str
    pid: int
    since: str
    kernel: str
    started: str

    def __str__(self) -> str:
        return f"on {printable(self.host, 100)} since {printable(self.since, 40)}"


@dataclass(frozen=True)
class Claim:
    """What a process left to say that the run is its own."""

    path: Path
    number: int
    owner: Owner | None  # None while it is written, or when a crash left it half written

    def is_held(self) -> bool:
        """Whether its owner is alive, as far as this host can see."""
        alive = _is_alive(self.owner) if self.owner else None
        return _is_fresh(self.path) if alive is None else alive


class Lease:
    """A claim of ours. It is lost if somebody took this process for dead."""

    def __init__(self, staging: Path, path: Path) -> None:
        self._staging = staging
        self._path = path
        self._end = threading.Event()
        self._lost = threading.Event()
        self._beat = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether somebody else has taken the run, as seen at the last heartbeat."""
        return self._lost.is_set()

    def check(self) -> None:
        """Make sure that the run is still ours.

        Raises:
            StoreError: it is not.
        """
        newest = _newest(self._staging)
        if newest is None or newest.path != self._path:
            self._lost.set()
            who = f": it runs {newest.owner}" if newest and newest.owner else ""
            raise StoreError(
                f"run {self._staging.name} was taken over by another process{who}",
                hint="this process was silent for too long; the other one completes the run",
            )

    def start(self) -> None:
        """Begin to touch the claim."""
        self._beat.start()

    def release(self) -> None:
        """Give the run back."""
        self._end.set()
        if self._beat.is_alive():
            self._beat.join()
        with contextlib.suppress(OSError):  # it went with its directory
            self._path.unlink()

    def _beat_on(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._path)
                self.check()
            except StoreError:
                return
            except OSError as error:  # the filesystem is away for now, or the run was deleted
                log.debug("%s: %s", self._path, error)


@contextlib.contextmanager
def held(staging: Path) -> Iterator[Lease]:
    """Be the one owner of a run while the block lasts.

    Args:
        staging: the run's staging directory.

    Raises:
        StoreError: somebody else is, or the directory cannot be written.
    """
    lease = _claimed(staging)
    try:
        lease.start()
        yield lease
    finally:
        lease.release()


def _claimed(staging: Path) -> Lease:
    # Looked at once: the number is taken from the claim that was found to be without its owner.
    newest = refuse_held(staging)
    path = staging / f"owner-{newest.number + 1 if newest else 1:05d}.json"
    with files.store_errors(f"taking run {staging.name}"):
        try:
            stream = writing.new_file(path)
        except FileExistsError:
            raise _held_error(staging, _newest(staging)) from None
        with stream:
            stream.write(json.dumps(asdict(_myself())).encode())
    lease = Lease(staging, path)
    try:
        # Its number may have been used, given up and be older than another's by now.
        lease.check()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return lease


def owner(staging: Path) -> Owner | None:
    """Who works on a run; None when nobody does.

    Raises:
        StoreError: the directory cannot be read.
    """
    newest = _newest(staging)
    return newest.owner or _UNKNOWN if newest and newest.is_held() else None


_UNKNOWN = Owner("an unknown host", 0, "just now", "", "")


def refuse_held(staging: Path) -> Claim | None:
    """Make sure that nobody works on a run; return the newest claim, if any.

    Raises:
        StoreError: somebody does, or the claim cannot be read.
    """
    newest = _newest(staging)
    if newest is not None and newest.is_held():
        raise _held_error(staging, newest)
    return newest


def _held_error(staging: Path, claim: Claim | None) -> StoreError:
    holder = claim.owner if claim and claim.owner else _UNKNOWN
    here = holder.kernel == _kernel()
    otherwise = "" if here else f"; if that host is gone, try again in {STALE_SECONDS:.0f} seconds"
    return StoreError(
        f"run {staging.name} is running {holder}, as process {holder.pid}",
        hint=f"wait until it ends, or stop that process{otherwise}",
    )


def _newest(staging: Path) -> Claim | None:
    with files.store_errors(f"reading {staging}"):
        try:
            names = os.listdir(staging)  # noqa: PTH208 - only names are needed
        except FileNotFoundError:
            return None
    found = [(int(match[1]), match[0]) for match in map(_CLAIM.fullmatch, names) if match]
    if not found:
        return None
    number, name = max(found)
    return Claim(staging / name, number, _read(staging / name))


def _read(path: Path) -> Owner | None:
    try:
        with path.open("rb") as stream:
            content = Owner(**json.loads(stream.read(_LONGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (content.host, content.since, content.kernel, content.started)
    valid = type(content.pid) is int and 0 < content.pid < _PIDS
    return content if valid and all(isinstance(text, str) for text in texts) else None


def _is_fresh(path: Path) -> bool:
    """Whether a claim was touched lately, by the clock of its filesystem."""
    try:
        return _now_at(path.parent) - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _now_at(directory: Path) -> float:
    """The time by the clock of a directory's filesystem; by ours when nothing is written there."""
    trial = writing.temporary_beside(directory / "clock")
    try:
        with writing.new_file(trial) as stream:
            now = os.fstat(stream.fileno()).st_mtime
        trial.unlink()
    except OSError:
        return time.time()
    return now


def _myself() -> Owner:
    pid = os.getpid()
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    _, started = _state(pid)
    return Owner(socket.gethostname(), pid, now, _kernel(), started)


def _kernel() -> str:
    """What the processes that this one can see have in common, and no others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _state(pid: int) -> tuple[str, str]:
    """State and start time of a process, as proc_pid_stat(5) has them."""
    # The command's name, in brackets, may hold anything.
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return values[0], values[19]


def _is_alive(holder: Owner) -> bool | None:
    """Whether an owner's process runs; None when this host cannot see it."""
    if holder.kernel != _kernel():
        return None
    try:
        state, started = _state(holder.pid)
    except (FileNotFoundError, ProcessLookupError):
        return None if _is_hidden(holder.pid) else False
    except OSError:
        return None
    return state not in _ENDED and started == holder.started


def _is_hidden(pid: int) -> bool:
    """Whether a process of another user runs that /proc does not show (hidepid of proc(5))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
