"""Windows registry hives: the keys that a collector asks for, as plain data for its parsers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers import hivelogs, hivereader
from fleetscan.appliance.guest.readers.hivelogs import Recovery
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.root import Root

_FILETIME_EPOCH = 11_644_473_600 * MICROSECOND  # 1601 to 1970

_PROFILE_FOLDERS = ("/Users", "/Documents and Settings")  # the latter until Windows XP

# Numbers of value types, from winnt.h.
_SZ, _EXPAND, _DWORD, _DWORD_BIG_ENDIAN, _LINK, _MULTI, _QWORD = 1, 2, 4, 5, 6, 7, 11
TEXT_TYPES = frozenset((_SZ, _EXPAND, _LINK, _MULTI))
"""Numbers of the value types that hold text."""


@dataclass(frozen=True)
class Value:
    """A registry value.

    Attributes:
        name: its name; empty for a key's default value.
        type: its type's number.
        data: its first :data:`hivereader.VALUE_LIMIT` bytes.
        size: its whole length in bytes.
    """

    name: str
    type: int
    data: bytes
    size: int

    def number(self) -> int | None:
        """The value of a DWORD or QWORD."""
        if self.type in (_DWORD, _DWORD_BIG_ENDIAN) and len(self.data) == 4:
            return int.from_bytes(self.data, "big" if self.type == _DWORD_BIG_ENDIAN else "little")
        if self.type == _QWORD and len(self.data) == 8:
            return int.from_bytes(self.data, "little")
        return None

    def texts(self) -> tuple[str, ...]:
        """The string of a text value, or those of a REG_MULTI_SZ; empty ones left out."""
        if self.type not in TEXT_TYPES:
            return ()
        whole = utf16(self.data)
        parts = whole.split("\0") if self.type == _MULTI else [whole.partition("\0")[0]]
        return tuple(part for part in parts if part)


@dataclass
class HiveKey:
    """A registry key with what was asked for below it; names are looked up in lower case.

    Attributes:
        name: its name.
        modified: when it was last written, microseconds since 1970; None when not stated.
        values: its values by name.
        keys: its keys by name.
    """

    name: str
    modified: int | None = None
    values: dict[str, Value] = field(default_factory=dict)
    keys: dict[str, HiveKey] = field(default_factory=dict)

    def find(self, path: str) -> HiveKey | None:
        """A key below this one; None when it was not read."""
        key: HiveKey | None = self
        for part in path.lower().split("\\"):
            key = key.keys.get(part) if key else None
        return key

    def below(self, path: str) -> Iterator[HiveKey]:
        """The keys directly below a path."""
        key = self.find(path)
        return iter(key.keys.values() if key else ())

    def text(self, name: str) -> str | None:
        """A text value; None when there is none, or it is empty."""
        return next(iter(self.texts(name)), None)

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings of a text value; none when there is none."""
        value = self.values.get(name.lower())
        return value.texts() if value else ()

    def number(self, name: str) -> int | None:
        """A DWORD or QWORD."""
        value = self.values.get(name.lower())
        return value.number() if value else None

    def data(self, name: str) -> bytes:
        """A value's bytes; none when there is none."""
        value = self.values.get(name.lower())
        return value.data if value else b""


def utf16(data: bytes) -> str:
    """UTF-16LE text; what is no valid pair of surrogates becomes a replacement character."""
    return data[: len(data) & ~1].decode("utf-16-le", "replace")


def filetime(number: int | None) -> int | None:
    """Microseconds since 1970 of a Windows time; None for none, never and before 1970.

    Args:
        number: units of 100 nanoseconds since 1601; 0 and 2^63-1 stand for never.
    """
    if number is None or not 0 < number < (1 << 63) - 1:
        return None
    time = number // 10 - _FILETIME_EPOCH
    return time if 0 <= time < 253_402_300_800 * MICROSECOND else None


def system_hive(root: Root, name: str) -> str:
    """Path of a hive in Windows' config directory, such as ``SOFTWARE``."""
    return f"{root.windows}/System32/config/{name}"


def user_hives(root: Root) -> Iterator[tuple[str, str]]:
    """Name of a user's profile folder and path of the hive in it, for each that has one."""
    for folder in _PROFILE_FOLDERS:
        for name in root.listdir(folder):
            path = f"{folder}/{name}/NTUSER.DAT"
            if not root.is_link(f"{folder}/{name}") and root.is_file(path):
                yield name, path


def read_system(root: Root, name: str, wanted: Sequence[Want], problems: Problems) -> HiveKey:
    """As :func:`read`, of a hive in Windows' config directory, which must be there."""
    path = system_hive(root, name)
    key = read(root, path, wanted, problems)
    if key is None:
        problems.note(f"{path}: there is no such hive")
    return key or HiveKey("")


def read(root: Root, path: str, wanted: Sequence[Want], problems: Problems) -> HiveKey | None:
    """The hive's root key, with those of the wanted keys that are there.

    Args:
        root: the tree.
        path: the hive's file.
        wanted: which keys to read.
        problems: gets a message for whatever could not be read.

    Returns:
        The key, without anything below it when the hive cannot be read; None when there is none.
    """
    tree: list[Any] | None = None
    try:
        with root.open(path) as stream:
            copy, _ = root.once(Recoveries).find(path, stream.fileno())
            tree, found = hivereader.read(stream.fileno() if copy is None else copy, wanted)
            if tree is None and copy is not None:  # its logs made no hive of it
                tree, _ = hivereader.read(stream.fileno(), wanted)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        found = [reason(error)]
    problems.extend(f"{path}: {problem}" for problem in found)
    return _key(tree) if tree else HiveKey("")


class Recoveries:
    """Copies of a root's dirty hives with their logs replayed, for as long as memory allows.

    Args:
        root: the tree.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._found: dict[str, tuple[int | None, Recovery]] = {}

    def find(self, path: str, hive: int) -> tuple[int | None, Recovery]:
        """As :func:`hivelogs.recover`, once a hive; what cannot be read is noted, not raised.

        Args:
            path: the hive's file.
            hive: its descriptor.
        """
        if path not in self._found:
            self._make_room(os.fstat(hive).st_size)
            try:
                with contextlib.ExitStack() as stack:
                    self._found[path] = hivelogs.recover(hive, list(_logs(self._root, path, stack)))
            except OSError as error:
                self._found[path] = None, Recovery("failed", note=reason(error))
        return self._found[path]

    def _make_room(self, size: int) -> None:
        """Forget the oldest copies until one more of a size fits beside the others."""
        for path, (copy, _) in list(self._found.items()):
            copies = [copy for copy, _ in self._found.values() if copy is not None]
            if size + sum(os.fstat(copy).st_size for copy in copies) <= hivelogs.COPY_LIMIT:
                return
            if copy is not None:
                os.close(copy)
                del self._found[path]

    def close(self) -> None:
        """Let go of the copies."""
        for copy, _ in self._found.values():
            if copy is not None:
                os.close(copy)
        self._found.clear()


def logs(root: Root, path: str) -> tuple[str, ...]:
    """A hive's transaction logs that are not empty."""
    names = (f"{path}{ending}" for ending in hivelogs.ENDINGS)
    return tuple(name for name in names if root.is_file(name) and root.stat(name).st_size)


def _logs(root: Root, path: str, stack: contextlib.ExitStack) -> Iterator[int]:
    for name in logs(root, path):
        yield stack.enter_context(root.open(name)).fileno()


def _key(plain: list[Any]) -> HiveKey:
    name, time, values, keys = plain
    return HiveKey(
        name,
        filetime(time),
        {
            lower: Value(value[0], value[1], bytes.fromhex(value[2]), value[3])
            for lower, value in values.items()
        },
        {lower: _key(key) for lower, key in keys.items()},
    )
