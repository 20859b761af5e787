"""What a helper process may do: less than we may, whatever that is."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from scanner.errors import ApplianceError

_NOBODY = 65534  # Debian's and Linux's overflow user: owns nothing
CONSOLE_BYTES = 4 << 20
"""How long the console log may become, in bytes; QEMU dies of SIGXFSZ beyond."""

_OPEN_FILES = 1024
_MARK = "FLEETSCAN_MARK"
_BLOCK = 512  # what ulimit -f counts in (POSIX, "ulimit")

# setpriv asks for the signal that ends it with us, but we may have gone before it did: then the
# shell has another parent.
_WITH_PARENT = 'test "$PPID" = "$0" || exit 1; '


def confined(
    argv: list[str], *, writes: int = CONSOLE_BYTES, memory_bytes: int | None = None
) -> list[str]:
    """The command wrapped so that it runs unprivileged, limited and no longer than we do.

    When we are root, the process becomes the user nobody with the one group that may use
    /dev/kvm; in any case it cannot gain privileges, writes no long files, dumps no core, and is
    killed when our thread ends.

    Args:
        argv: the command.
        writes: how long the files that it writes may become, in bytes.
        memory_bytes: address space it may have.

    Raises:
        ApplianceError: setpriv is missing.
    """
    limits = {"-c": 0, "-n": _OPEN_FILES, "-f": writes // _BLOCK}
    if memory_bytes is not None:
        limits["-v"] = memory_bytes // 1024
    # One that fails would have raised a limit: ours are lower already.
    script = "".join(f"ulimit {kind} {most} 2>/dev/null || :; " for kind, most in limits.items())
    return _wrapped(argv, script, _identity())


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


def _identity() -> list[str]:
    # Capabilities of a service's that it may read images with are for the scanner alone.
    if os.geteuid() != 0:
        return ["--inh-caps=-all"]
    groups = ["--groups", str(group)] if (group := _kvm_group()) else ["--clear-groups"]
    ids = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}"]
    return [*ids, *groups, "--inh-caps=-all", "--bounding-set=-all"]


def _kvm_group() -> int | None:
    try:
        info = Path("/dev/kvm").stat()
    except OSError:
        return None
    return info.st_gid if info.st_mode & stat.S_IRGRP and info.st_gid != 0 else None
