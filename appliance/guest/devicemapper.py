"""Device mapper's own requests, without dmsetup(8).

Source: linux/dm-ioctl.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

_CONTROL = "/dev/mapper/control"
_HEADER = struct.Struct("<3I7I Q128s129s7x")
_TARGET = struct.Struct("<QQiI16s")
_CREATE, _REMOVE, _RESUME, _LOAD = (0xC1380000 | 0xFD00 | number for number in (3, 4, 6, 9))
_READ_ONLY = 1
_VERSION = (4, 0, 0)


class MapperLine(NamedTuple):
    """A line of a table, as dmsetup(8) has them: start and length in sectors."""

    start: int
    length: int
    target: str
    parameters: str


class DeviceMapper:
    """The kernel's device mapper; a context manager.

    Entering, and every method, raises:
        OSError: it refused.
    """

    def __enter__(self) -> DeviceMapper:
        self._control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; what was made stays."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def create(self, name: str, uuid: str) -> int:
        """Make a device without a table; returns its number, as os.makedev gives it."""
        return self._request(_CREATE, name, uuid)

    def load_read_only(self, name: str, table: Sequence[MapperLine]) -> None:
        """Give a device its table, and let it be read."""
        encoded = b"".join(map(_encoded, table))
        self._request(_LOAD, name, table=encoded, count=len(table), flags=_READ_ONLY)
        self._request(_RESUME, name)

    def remove(self, name: str) -> None:
        """Remove a device that nobody has open."""
        self._request(_REMOVE, name)

    def _request(
        self,
        command: int,
        name: str,
        uuid: str = "",
        *,
        table: bytes = b"",
        count: int = 0,
        flags: int = 0,
    ) -> int:
        size = _HEADER.size + len(table)
        head = (*_VERSION, size, _HEADER.size, count, 0, flags, 0, 0)
        buffer = bytearray(_HEADER.pack(*head, 0, name.encode(), uuid.encode()) + table)
        fcntl.ioctl(self._control, command, buffer)
        number: int = _HEADER.unpack_from(buffer)[10]
        return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)


def _encoded(line: MapperLine) -> bytes:
    parameters = line.parameters.encode() + b"\0"
    parameters += b"\0" * (-len(parameters) % 8)
    size = _TARGET.size + len(parameters)
    return _TARGET.pack(line.start, line.length, 0, size, line.target.encode()) + parameters
