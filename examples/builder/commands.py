"""Running the build's commands: output kept for the error, everything ended on interrupt."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetscan.appliance.ground.errors import CommandError

_GRACE_SECONDS = 20  # mmdebstrap needs it to take its mounts and its directory away

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()
_stopping = threading.Event()


def run(
    doing: str,
    command: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Run a command in a process group of its own and return what it printed, errors included.

    Raises:
        CommandError: it failed, did not end within ``seconds``, or the build is being stopped.
    """
    with tempfile.TemporaryFile() as output:
        process = _start(doing, command, output.fileno(), environment, directory)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=seconds)
            returncode = process.poll()
        finally:
            _end(process)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if returncode == 0:
        return text
    if returncode is None:
        text += f"\nstopped after {seconds:.0f} seconds"
    raise CommandError(doing, command, process.returncode, stdout=text[-6000:])


def _start(
    doing: str,
    command: Sequence[str],
    output: int,
    environment: Mapping[str, str] | None,
    directory: Path | None,
) -> subprocess.Popen[bytes]:
    with _lock:  # or an interrupt could come between the check and the start
        if _stopping.is_set():
            raise CommandError(doing, command, -signal.SIGTERM, stderr="the build was stopped")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            cwd=directory,
            start_new_session=True,
        )
        _running.add(process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)
    with _lock:
        _running.discard(process)


def stop_all() -> None:
    """End every command that runs, and let none start any more."""
    with _lock:
        _stopping.set()
        processes = list(_running)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
