"""Running the appliance's own programs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest import resident

WORK = "/tmp/work"  # noqa: S108 - the appliance's own memory; nobody else is in there
"""Where overlays and copies are kept: memory, as everything writable in the appliance."""

_OUTPUT_LIMIT = 8 << 20
_ERROR_TEXT = 300
_BLOCK = 1 << 16


class ToolError(OSError):
    """A program of the appliance failed; its message is the last of what it printed.

    Attributes:
        status: its exit status; None when it did not end with one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def run(command: Sequence[str], *, accept: Sequence[int] = (0,), stdin: bytes = b"") -> str:
    """Run a program and return what it printed, undecodable bytes as surrogates.

    There is no time limit here: the host has one for all that the agent does.

    Args:
        command: the program and its arguments.
        accept: exit statuses that are not failures.
        stdin: what it reads from standard input.

    Raises:
        ToolError: it is not there, failed, or printed more than 8 MiB.
    """
    # posix_spawn instead of subprocess, whose code costs under emulation as much to translate as
    # most of these programs take to run.
    errors = os.memfd_create("stderr")
    given = _input(stdin)
    output, to_output = os.pipe()
    try:
        process = spawn(command, (given, to_output, errors))
        os.close(to_output)
        to_output = -1
        printed = _read_within(output)
        if len(printed) > _OUTPUT_LIMIT:
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if len(printed) > _OUTPUT_LIMIT:
            raise ToolError(f"{command[0]} printed more than {_OUTPUT_LIMIT} bytes")
        if status not in accept:
            raise ToolError(_explain(command[0], status, _tail(errors) or printed), status)
    finally:
        for descriptor in (errors, given, output, to_output):
            if descriptor >= 0:
                os.close(descriptor)
    return printed.decode("utf-8", "surrogateescape")


def _input(data: bytes) -> int:
    """A descriptor that reads as the data."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("stdin")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def spawn(command: Sequence[str], descriptors: Sequence[int]) -> int:
    """Start a program and return its process id; a library takes its place where there is one.

    Args:
        command: the program and its arguments.
        descriptors: what standard input, output and error are to be.

    Raises:
        ToolError: it cannot be started.
    """
    if program := resident.find(command[0]):
        return resident.fork(lambda: program(command[1:]), descriptors)
    actions = [(os.POSIX_SPAWN_DUP2, have, want) for want, have in enumerate(descriptors)]
    try:
        return os.posix_spawnp(command[0], list(command), os.environ, file_actions=actions)
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be started: {reason(error)}") from error


def _read_within(descriptor: int) -> bytes:
    """What comes down a pipe until its end, or until it is more than the limit."""
    blocks = []
    size = 0
    while size <= _OUTPUT_LIMIT and (block := os.read(descriptor, _BLOCK)):
        size += len(block)
        blocks.append(block)
    return b"".join(blocks)


def _tail(descriptor: int) -> bytes:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return os.pread(descriptor, _ERROR_TEXT * 4, max(0, size - _ERROR_TEXT * 4))


def _explain(program: str, status: int, printed: bytes) -> str:
    words = " ".join(printed.decode("utf-8", "surrogateescape").split())[-_ERROR_TEXT:]
    return f"{program} ended with status {status}: {words}"
