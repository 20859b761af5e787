"""The host's end of the wire: one request at a time, under a deadline and within limits.

Everything that arrives here was written by a guest that may be hostile. Frames are counted and
measured before they are looked at, and rows are handed on as bytes: their check is the store's.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, GuestError, WireError
from fleetscan.appliance.ground.schema import UNREAD_FILES, UNREAD_LENGTH, unescape
from fleetscan.appliance.ground.wire import Frame, FrameKind
from fleetscan.appliance.host.printable import escaped

log = logging.getLogger(__name__)

RowsHandler = Callable[[str, bytes], None]
"""Takes a table's name, as the guest spelt it, and its rows as newline-ended JSON."""

_RECEIVE = 1 << 20
_LOG_LINE = 500
_UNREAD_ESCAPED = 4 * UNREAD_LENGTH  # schema.escape makes four characters of a byte


@dataclass
class SessionLimits:
    """What one machine's guest may send in all.

    Attributes:
        bytes_left: payload bytes.
        frames_left: frames; an honest agent fills them, so many small ones mean a broken one.
        log_lines_left: lines of log that are kept; further ones are dropped.
    """

    bytes_left: int = 8 << 30
    frames_left: int = 200_000
    log_lines_left: int = 200

    def take(self, frame: Frame) -> None:
        """Count a frame.

        Raises:
            WireError: the guest has sent more than it may.
        """
        self.bytes_left -= len(frame.payload)
        self.frames_left -= 1
        if self.bytes_left < 0 or self.frames_left < 0:
            raise WireError("the appliance sent more than one machine may")


class Session:
    """A conversation with an agent over a connected stream socket.

    Args:
        sock: the socket; the session owns it from here on.
        limits: what the guest may send during the session.
        gone: called when the stream ends; says in words why the other side went away.
    """

    def __init__(
        self, sock: socket.socket, limits: SessionLimits, gone: Callable[[], str] = lambda: ""
    ) -> None:
        self._sock = sock
        self._limits = limits
        self._gone = gone
        self._reader = wire.FrameReader()
        self._pending: list[Frame] = []

    def close(self) -> None:
        """End the conversation."""
        self._sock.close()

    def call(
        self,
        op: str,
        deadline: Deadline,
        on_rows: RowsHandler | None = None,
        **args: object,
    ) -> Any:
        """Have the agent carry out an operation and return its result, as JSON gives it.

        The caller checks the result's shape: it comes from the guest.

        Args:
            op: the operation's name.
            deadline: when it must have ended.
            on_rows: takes rows as they arrive; rows without it are an error.
            args: the operation's arguments.

        Raises:
            GuestError: the operation failed inside the guest.
            WireError: the guest broke the wire's rules or exceeded its limits.
            DeadlineError: it took too long.
            ApplianceError: the guest went away.
        """
        self._send(wire.encode_json(FrameKind.REQUEST, {"op": op, "args": args}), deadline)
        while True:
            frame = self._receive(deadline)
            if frame.kind is FrameKind.ROWS and on_rows is not None:
                table, newline, rows = frame.payload.partition(b"\n")
                if not newline or not table.isascii() or len(table) > 64:
                    raise WireError("the appliance sent rows without a table's name")
                on_rows(table.decode("ascii"), rows)
            elif frame.kind is FrameKind.LOG:
                self._log(frame.payload)
            elif frame.kind is FrameKind.REPLY:
                return _json(frame.payload)
            elif frame.kind is FrameKind.ERROR:
                raise _guest_error(frame.payload)
            else:
                raise WireError(f"the appliance sent a {frame.kind.name} frame out of turn")

    def _send(self, data: bytes, deadline: Deadline) -> None:
        try:
            self._sock.settimeout(deadline.left())
            self._sock.sendall(data)
        except TimeoutError:
            raise deadline.missed() from None
        except OSError as error:
            raise self._lost(str(error)) from error

    def _receive(self, deadline: Deadline) -> Frame:
        while not self._pending:
            try:
                self._sock.settimeout(deadline.left())
                data = self._sock.recv(_RECEIVE)
            except TimeoutError:
                raise deadline.missed() from None
            except OSError as error:
                raise self._lost(str(error)) from error
            if not data:
                raise self._lost("connection closed")
            try:
                self._pending = list(self._reader.feed(data))
            except wire.FrameError as error:
                raise WireError(f"the appliance sent an invalid frame: {error}") from error
            self._pending.reverse()
        deadline.left()  # a guest that never stops sending must not outrun its deadline
        frame = self._pending.pop()
        self._limits.take(frame)
        return frame

    def _lost(self, what: str) -> ApplianceError:
        return ApplianceError(f"the appliance stopped: {self._gone() or what}")

    def _log(self, payload: bytes) -> None:
        if self._limits.log_lines_left > 0:
            self._limits.log_lines_left -= 1
            text = payload[:_LOG_LINE].decode("utf-8", "replace")
            log.info("guest: %s", escaped(text))


def _json(payload: bytes) -> Any:
    try:
        return wire.parse_json(payload)
    except wire.FrameError as error:
        raise WireError(f"the appliance sent {error}") from error


def _guest_error(payload: bytes) -> ApplianceError:
    value = _json(payload)
    if not isinstance(value, dict):
        return WireError("the appliance sent an error without a name")
    fields = [value.get(name, "") for name in ("name", "message", "traceback")]
    if not all(isinstance(field, str) for field in fields):
        return WireError("the appliance sent an error that is not text")
    name, message, traceback = (escaped(field[:4000]) for field in fields)
    try:
        return GuestError(name[:100], message[:1000], traceback, _unread(value.get("unread")))
    except ValueError as error:
        return WireError(f"the appliance sent an error whose files are {error}")


def _unread(value: object) -> tuple[str, ...] | None:
    """An error's list of files, as guest text is in rows.

    Raises:
        ValueError: it is none, or is longer than an agent's may be.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise ValueError("not texts")
    if len(value) > UNREAD_FILES or sum(map(len, value)) > _UNREAD_ESCAPED:
        raise ValueError("too many")
    return tuple(unescape(path).decode("utf-8", "surrogateescape") for path in value)
