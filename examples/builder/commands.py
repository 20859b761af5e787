"""Running the build's commands: output kept for the error, everything ended on interrupt."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetscan.appliance.host import command
from fleetscan.appliance.host.command import Surroundings

_GRACE_SECONDS = 20.0  # mmdebstrap needs it to take its mounts and its directory away

_stopping = threading.Event()


def run(
    doing: str,
    argv: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Run a command in a process group of its own and return what it printed, errors included.

    Raises:
        CommandError: it failed, did not end within ``seconds``, or the build is being stopped.
    """
    return command.run(
        doing,
        argv,
        seconds=seconds,
        surroundings=Surroundings({"LC_ALL": "C.UTF-8", **(environment or {})}, directory),
        on_line=lambda line: None,  # which has its errors among what it printed
        stop=_stopping,
        grace=_GRACE_SECONDS,
    )


def stop_all() -> None:
    """End every command that runs, and let none run any more."""
    _stopping.set()
