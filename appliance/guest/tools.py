"""Running the appliance's own programs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from appliance.guest import resident

_OUTPUT_LIMIT = 8 << 20
_ERROR_TEXT = 300
_BLOCK = 1 << 16


class ToolError(OSError):
    """A program of the appliance failed; its message is the last of what it printed."""


def run(command: Sequence[str], *, accept: Sequence[int] = (0,)) -> str:
    """Run a program and return what it printed, undecodable bytes as surrogates.

    There is no time limit here: the host has one for all that the agent does.

    Args:
        command: the program and its arguments.
        accept: exit statuses that are not failures.

    Raises:
        ToolError: it is not there, failed, or printed more than 8 MiB.
    """
    # posix_spawn instead of subprocess, whose code costs under emulation as much to translate as
    # most of these programs take to run.
    errors = os.memfd_create("stderr")
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    output, to_output = os.pipe()
    try:
        process = spawn(command, (nothing, to_output, errors))
        os.close(to_output)
        to_output = -1
        printed = _read_all(output)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status not in accept:
            raise ToolError(_explain(command[0], status, _tail(errors) or printed))
    finally:
        for descriptor in (errors, nothing, output, to_output):
            if descriptor >= 0:
                os.close(descriptor)
    if len(printed) > _OUTPUT_LIMIT:
        raise ToolError(f"{command[0]} printed more than {_OUTPUT_LIMIT} bytes")
    return printed.decode("utf-8", "surrogateescape")


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
        raise ToolError(f"{command[0]} cannot be started: {error.strerror}") from error


def _read_all(descriptor: int) -> bytes:
    """What comes down a pipe until its end; of too much, the end is read and dropped."""
    blocks = []
    size = 0
    while block := os.read(descriptor, _BLOCK):
        size += len(block)
        if size <= _OUTPUT_LIMIT + _BLOCK:
            blocks.append(block)
    return b"".join(blocks)


def _tail(descriptor: int) -> bytes:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return os.pread(descriptor, _ERROR_TEXT * 4, max(0, size - _ERROR_TEXT * 4))


def _explain(program: str, status: int, printed: bytes) -> str:
    words = " ".join(printed.decode("utf-8", "surrogateescape").split())[-_ERROR_TEXT:]
    return f"{program} ended with status {status}: {words}"
