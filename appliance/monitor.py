"""QEMU's monitor (QMP), as a blocking client with deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, DeadlineError


class Monitor:
    """A connection to one QEMU's monitor.

    Args:
        sock: a connected socket; the monitor owns it from here on.
        deadline: when the greeting must have come.

    Raises:
        ApplianceError: QEMU does not answer.
        DeadlineError: it took too long.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("fleetscan")
        self._client.logger.disabled = True  # a killed QEMU is how every machine ends
        try:
            self._run(self._client.connect(sock), deadline)
        except DeadlineError:  # which is an OSError, too
            self.close()
            raise
        except (QMPError, OSError) as error:
            self.close()
            raise ApplianceError(f"QEMU's monitor does not answer: {error}") from error

    def execute(
        self, command: str, deadline: Deadline, arguments: dict[str, object] | None = None
    ) -> Any:
        """Execute a QMP command and return its result.

        Raises:
            ApplianceError: QEMU refused it or went away.
            DeadlineError: it took too long.
        """
        try:
            return self._run(self._client.execute(command, arguments), deadline)
        except DeadlineError:
            raise
        except ExecuteError as error:
            raise ApplianceError(f"QEMU refused {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise ApplianceError(f"QEMU ended during {command}: {error}") from error

    def send_descriptor(self, descriptor: int) -> None:
        """Send an open file along, for the ``add-fd`` or ``getfd`` command that follows.

        Raises:
            ApplianceError: QEMU went away.
        """
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise ApplianceError(f"QEMU accepts no more files: {error}") from error

    def _run(self, work: Any, deadline: Deadline) -> Any:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, deadline.left()))
        except TimeoutError:
            raise deadline.missed() from None

    def close(self) -> None:
        """Let go of the connection, whatever state it is in."""
        try:
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        with contextlib.suppress(Exception):  # the other side is being killed
            await asyncio.wait_for(self._client.disconnect(), timeout=1)
