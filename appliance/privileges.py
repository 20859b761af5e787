"""What a helper process may do: less than we may, whatever that is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance.ground.errors import ApplianceError

CONSOLE_BYTES = 4 << 20
"""How long the console log may become, in bytes; QEMU dies of SIGXFSZ beyond."""

KVM = "/dev/kvm"
_KILL_SECONDS = 10
_MARK = "FLEETSCAN_MARK"
_BLOCK = 512  # what ulimit -f counts in (POSIX, "ulimit")

# setpriv asks for the signal that ends it with us, but we may have gone before it did: then the
# shell has another parent.
_WITH_PARENT = 'test "$PPID" = "$0" || exit 1; '


@dataclass(frozen=True)
class ProcessLimits:
    """What a process may use.

    Attributes:
        writes: how long the files that it writes may become, in bytes.
        memory_bytes: address space; None for any.
        cpu_seconds: time on the processor; None for any.
        open_files: how many files at a time.
    """

    writes: int = CONSOLE_BYTES
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int = 1024


def limited(
    argv: list[str],
    limits: ProcessLimits,
    become: tuple[int, int, tuple[int, ...]] | None = None,
    *,
    keep: bool = False,
) -> list[str]:
    """The command wrapped so that it runs unprivileged, limited and no longer than we do.

    It cannot gain privileges, writes no long files, dumps no core, and is killed when our thread
    ends.

    Args:
        argv: the command.
        limits: what it may use.
        become: user, group and further groups that it changes to; None to stay.
        keep: it keeps the capabilities that root has, to make namespaces with.

    Raises:
        ApplianceError: setpriv is missing.
    """
    most = {"-c": 0, "-n": limits.open_files, "-f": limits.writes // _BLOCK}
    if limits.memory_bytes is not None:
        most["-v"] = limits.memory_bytes // 1024
    if limits.cpu_seconds is not None:
        most["-t"] = limits.cpu_seconds
    # One that fails would have raised a limit: ours are lower already.
    script = "".join(f"ulimit {kind} {value} 2>/dev/null || :; " for kind, value in most.items())
    # Capabilities that let a service read images are only for the scanner.
    return _wrapped(argv, script, ["--inh-caps=-all", *([] if keep else _identity(become))])


def bound_to_us(argv: list[str]) -> list[str]:
    """The command wrapped so that it is killed when our thread ends, and gains no privileges.

    Raises:
        ApplianceError: setpriv is missing.
    """
    return _wrapped(argv, "", [])


def environment() -> dict[str, str]:
    """What a confined process learns of our environment, which may hold the users' secrets.

    That is PATH, and FLEETSCAN_MARK: a word of the user's by which one finds a run's processes.
    """
    ours = {name: os.environ[name] for name in (_MARK,) if name in os.environ}
    return {
        **ours,
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # threads share one heap, which keeps the address space small
    }


def _wrapped(argv: list[str], limits: str, identity: list[str]) -> list[str]:
    if not shutil.which("setpriv"):
        raise ApplianceError("setpriv is missing", hint="install util-linux")
    bound = ["setpriv", "--pdeathsig", "SIGKILL", "--no-new-privs", *identity]
    script = f'set -e; {_WITH_PARENT}{limits}exec "$@"'
    return [*bound, "sh", "-c", script, str(os.getpid()), *argv]


def _identity(become: tuple[int, int, tuple[int, ...]] | None) -> list[str]:
    if become is None:
        return []
    user, group, further = become
    groups = ["--groups", ",".join(map(str, further))] if further else ["--clear-groups"]
    return [f"--reuid={user}", f"--regid={group}", *groups, "--bounding-set=-all"]


def kvm_group() -> int | None:
    """The group that may use /dev/kvm; None where there is no such group but root's."""
    try:
        info = Path(KVM).stat()
    except OSError:
        return None
    return info.st_gid if info.st_mode & stat.S_IRGRP and info.st_gid != 0 else None


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    descriptors: Sequence[int],
    messages: int,
    *,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; when the block ends it is dead and reaped.

    Raises:
        ApplianceError: it cannot be started; at the end: the kernel does not let go of it.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=tuple(descriptors),
            start_new_session=True,
            cwd=cwd,
        )
    except OSError as error:
        raise ApplianceError(
            f"cannot start {argv[0]}: {error}", hint="run fleetscan doctor"
        ) from error
    try:
        yield process
    finally:
        # The group, should the process have children; it is ours alone, as is its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(timeout=_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise ApplianceError(
                f"{argv[0]} (process {process.pid}) was killed but does not end",
                hint="check whether the storage that holds the images responds",
            ) from None
