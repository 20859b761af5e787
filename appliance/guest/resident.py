"""Programs of the appliance that exist as libraries: loaded once, then run in a forked copy.

Starting a program is slow under emulation: the dynamic linker, the libraries' start and the
program's own run again each time. A library that the agent has loaded and started, in a template
above all, avoids that. It runs in a copy of the agent, so that a crash over a hostile image leaves
the agent itself as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import traceback
from collections.abc import Callable, Sequence

Program = Callable[[Sequence[str]], int]
"""Takes a program's arguments, its name left out, and gives its exit status."""

_FAILED = 70  # sysexits.h, EX_SOFTWARE
_LVM_SUCCEEDED = 1  # lvm2cmd.h, LVM2_COMMAND_SUCCEEDED

_libc = ctypes.CDLL(None)
_programs: dict[str, Program] = {}


def load() -> None:
    """Load what there is, before a template is saved."""
    with contextlib.suppress(OSError):
        _programs["lvm"] = _lvm()


def find(name: str) -> Program | None:
    """The program of this name, where it has been loaded."""
    return _programs.get(name)


def fork(work: Callable[[], int], descriptors: Sequence[int]) -> int:
    """Do some work in a copy of this process and return the copy's process id.

    Args:
        work: what to do; its result is the exit status.
        descriptors: what standard input, output and error are to be.
    """
    process = os.fork()
    if process:
        return process
    status = _FAILED
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        status = work()
        _libc.fflush(None)
    except BaseException:  # none of the agent's own code may run on in the copy
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _lvm() -> Program:
    """The commands of lvm, by liblvm2cmd.

    Raises:
        OSError: there is no such library.
    """
    library = ctypes.CDLL("liblvm2cmd.so.2.03")
    library.lvm2_init.restype = ctypes.c_void_p
    library.lvm2_run.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    mask = os.umask(0o022)  # which lvm changes
    handle = library.lvm2_init()
    os.umask(mask)
    if not handle:
        raise OSError("lvm cannot be initialised")

    def run(arguments: Sequence[str]) -> int:
        # lvm splits the line itself and knows quotes around a word, but none inside.
        line = " ".join(f"'{argument}'" for argument in arguments)
        status: int = library.lvm2_run(handle, os.fsencode(line))
        return 0 if status == _LVM_SUCCEEDED else status

    return run
