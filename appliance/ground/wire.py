"""Frames between host and guest.

A frame is one byte of kind, four bytes of payload length (big endian) and the payload. The host
sends REQUEST frames; the agent answers each with any number of ROWS and LOG frames and then
exactly one REPLY or ERROR frame. There is one request at a time.

======== ======================================================================================
kind     payload
======== ======================================================================================
REQUEST  JSON object: ``op``, the operation's name, and ``args``, an object
REPLY    JSON value: the operation's result
ERROR    JSON object: ``name``, ``message``, ``traceback`` of the exception that ended it, and
         ``unread`` of an UnreadError
ROWS     a fact table's name, a newline, then rows as newline-ended JSON objects
LOG      UTF-8 text for the scanner's log
======== ======================================================================================
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PROTOCOL = 1
"""Version of this protocol; host and agent must agree, and do, as both ship together."""

FRAME_LIMIT = 4 << 20
"""Longest payload of a frame, in bytes."""

ROWS_TARGET = 256 << 10
"""Payload length, in bytes, at which the agent sends the rows gathered so far."""

ROW_LIMIT = 1 << 20
"""Longest single encoded row, in bytes."""

_HEADER = struct.Struct(">BI")


class FrameKind(enum.IntEnum):
    """What a frame's payload is."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    ROWS = 4
    LOG = 5


_KINDS = frozenset(FrameKind)


class FrameError(ValueError):
    """Bytes on the wire that are not a frame, or a frame beyond its limit."""


@dataclass(frozen=True)
class Frame:
    """One frame, as received."""

    kind: FrameKind
    payload: bytes


def encode(kind: FrameKind, payload: bytes) -> bytes:
    """A frame's bytes.

    Raises:
        FrameError: the payload is longer than FRAME_LIMIT.
    """
    if len(payload) > FRAME_LIMIT:
        raise FrameError(f"payload of {len(payload)} bytes exceeds {FRAME_LIMIT}")
    return _HEADER.pack(kind, len(payload)) + payload


def encode_json(kind: FrameKind, value: object) -> bytes:
    """A frame whose payload is JSON."""
    return encode(kind, json.dumps(value, separators=(",", ":")).encode())


def encode_rows(table: str, rows: bytes) -> bytes:
    """A ROWS frame.

    Args:
        table: the fact table's name.
        rows: newline-ended JSON objects.
    """
    return encode(FrameKind.ROWS, table.encode() + b"\n" + rows)


def parse_json(payload: bytes) -> Any:
    """A payload that is JSON.

    Raises:
        FrameError: it is not.
    """
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameError("a payload that should be JSON is not") from error


class FrameReader:
    """Cuts a stream of bytes into frames, holding no more than one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in more bytes and yield the frames that are complete with them.

        Raises:
            FrameError: the bytes are not a frame, or announce one beyond FRAME_LIMIT.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _HEADER.size:
                kind, length = _HEADER.unpack_from(self._buffer, start)
                if kind not in _KINDS:
                    raise FrameError(f"unknown kind of frame: {kind}")
                if length > FRAME_LIMIT:
                    raise FrameError(f"payload of {length} bytes announced, {FRAME_LIMIT} allowed")
                end = start + _HEADER.size + length
                if len(self._buffer) < end:
                    break
                payload = bytes(memoryview(self._buffer)[start + _HEADER.size : end])
                start = end
                yield Frame(FrameKind(kind), payload)
        finally:
            del self._buffer[:start]
