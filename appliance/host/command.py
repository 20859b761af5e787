"""Programs of the host, run to their end: bounded in time and output, with their last words kept.

Not for what lives longer, such as QEMU and workers, which have a block of their own; nor for what
reads images, which is confined (:mod:`fleetscan.appliance.confinement.confined_process`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance.ground.errors import CommandError

OUTPUT_BYTES = 64 << 20
"""Most that a program may print, on either output."""

_POLL_SECONDS = 0.2  # how soon a request to stop is seen
_KILL_SECONDS = 10.0
_LINES, _CHARACTERS = 30, 6000  # of what it printed last, in an error
_NOT_FOUND = 127  # a shell's status for it


class OutputTooLongError(Exception):
    """A program printed more than it may."""


class StoppedError(Exception):
    """A program was to be stopped."""


@dataclass(frozen=True)
class Surroundings:
    """What a program finds when it starts.

    Attributes:
        environment: variables that it has besides ours.
        directory: where it runs; None for here.
        umask: -1 for ours.
    """

    environment: Mapping[str, str] | None = None
    directory: Path | None = None
    umask: int = -1


def run(
    doing: str,
    argv: Sequence[str],
    *,
    seconds: float,
    package: str = "",
    surroundings: Surroundings | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    grace: float = 0.0,
) -> str:
    """Run a program and return what it printed, bytes that are not UTF-8 as surrogates.

    It has no input and a process group of its own, all of which is ended with it. With an
    ``on_line`` its errors are among what it printed.

    Args:
        doing: what it is for.
        argv: its words.
        seconds: how long it may take.
        package: the Debian package to install when it is missing.
        surroundings: what it finds when it starts.
        on_line: called with each line as it comes.
        stop: when set, the program is ended.
        grace: seconds that it has to clean up, before it is killed.

    Raises:
        CommandError: it is missing, fails, takes or prints too much, or was stopped.
    """
    process = _started(doing, argv, package, surroundings or Surroundings(), on_line is not None)
    printed = Printed(OUTPUT_BYTES)
    reason = ""
    try:
        deadline = time.monotonic() + seconds
        if on_line is None:
            printed.read_all(process, deadline, stop)
        else:
            for line in printed.lines(process, deadline, stop):
                on_line(line)
        process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        reason = f"{argv[0]} does not finish within {seconds:g} s"
    except OutputTooLongError:
        reason = f"{argv[0]} prints more than {OUTPUT_BYTES} bytes"
    except StoppedError:
        reason = f"{argv[0]} was stopped"
    finally:
        _end(process, grace)
    if reason or process.returncode:
        last = (_last(printed.output), _last(printed.errors))
        raise CommandError(doing, argv, process.returncode or 0, *last, reason=reason)
    return printed.output.decode("utf-8", "surrogateescape")


class Printed:
    """What a process prints, as it comes.

    Args:
        most: bytes that each of its outputs may have.
    """

    def __init__(self, most: int) -> None:
        self.output, self.errors = bytearray(), bytearray()
        self._most = most

    def read_all(
        self, process: subprocess.Popen[bytes], deadline: float, stop: threading.Event | None = None
    ) -> None:
        """As :meth:`read`, to the end."""
        for _ in self.read(process, deadline, stop):
            pass

    def read(
        self, process: subprocess.Popen[bytes], deadline: float, stop: threading.Event | None = None
    ) -> Iterator[None]:
        """Read both outputs to their ends, a piece at a time.

        Args:
            process: its outputs are pipes, or not ours.
            deadline: ``time.monotonic()`` at which they must have ended.
            stop: when set, they are given up.

        Raises:
            TimeoutError: they have not ended in time, though the process may have.
            OutputTooLongError, StoppedError: as they say.
        """
        with selectors.DefaultSelector() as selector:
            for pipe, kept in ((process.stdout, self.output), (process.stderr, self.errors)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, kept)
            while selector.get_map():
                left = deadline - time.monotonic()
                if stop is not None and stop.is_set():
                    raise StoppedError
                ready = selector.select(
                    max(0.0, left if stop is None else min(left, _POLL_SECONDS))
                )
                if not ready and left <= 0:
                    raise TimeoutError
                for key, _ in ready:
                    if block := os.read(key.fd, 1 << 16):
                        key.data.extend(block)
                    else:
                        selector.unregister(key.fileobj)
                    if len(key.data) > self._most:
                        raise OutputTooLongError
                yield

    def lines(
        self, process: subprocess.Popen[bytes], deadline: float, stop: threading.Event | None
    ) -> Iterator[str]:
        """The lines of standard output, as :meth:`read` reads them."""
        done = 0
        for _ in self.read(process, deadline, stop):
            end = self.output.rfind(b"\n") + 1
            for line in self.output[done:end].splitlines():
                yield line.decode("utf-8", "replace")
            done = max(done, end)
        if rest := self.output[done:]:
            yield rest.decode("utf-8", "replace")


def _started(
    doing: str, argv: Sequence[str], package: str, surroundings: Surroundings, merged: bool
) -> subprocess.Popen[bytes]:
    hint = f"on Debian: apt-get install {package}" if package else "run fleetscan doctor"
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            env={**os.environ, **(surroundings.environment or {})},
            cwd=surroundings.directory,
            umask=surroundings.umask,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        reason = f"{argv[0]} is not installed"
        raise CommandError(doing, argv, _NOT_FOUND, reason=reason, hint=hint) from error
    except OSError as error:
        reason = f"{argv[0]} cannot be started: {error.strerror}"
        raise CommandError(doing, argv, _NOT_FOUND, reason=reason, hint=hint) from error


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process and its group; nothing is left of it but its status."""
    if process.returncode is None:  # nobody has waited for it, so its number is still its own
        if grace:
            _signal(process, signal.SIGTERM)
            give_up = time.monotonic() + grace
            while not _has_ended(process) and time.monotonic() < give_up:
                time.sleep(_POLL_SECONDS / 4)
        _signal(process, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_SECONDS)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _last(output: bytearray) -> str:
    """The end of what was printed."""
    text = output[-_CHARACTERS:].decode("utf-8", "backslashreplace")
    return "\n".join(text.splitlines()[-_LINES:])
