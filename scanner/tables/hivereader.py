"""Reading keys of a registry hive with hivex, in a child process.

hivex is C, and a damaged hive can crash it; a child's end costs the one hive, not the agent.
Where hivex refuses a hive, a copy is tried whose missing end is filled up and whose bad blocks
are passed over, so that what can still be read is given, together with the failure.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from scanner.tables import hivenames

HIVE_LIMIT = 512 << 20
"""Largest hive that is opened, in bytes; Windows' own are seldom above 200 MiB."""

VALUE_LIMIT = 1 << 16
"""Bytes kept of a value; of a longer one, its beginning."""

_REPAIR_LIMIT = 96 << 20  # the copy lies in the appliance's memory
_OUTPUT_LIMIT = 48 << 20
_KEY_LIMIT = 200_000
_DATA_LIMIT = 16 << 20
_CPU_SECONDS = 60
_PROBLEMS = 10
_BLOCK = 1 << 20

_DAMAGE = (RuntimeError, ValueError)  # what hivex' binding raises: errors by number, bad text
_CURRENT = "currentcontrolset"

_BASE_BLOCK = 4096
_LENGTH_AT = 40  # offset of the length of all bins in the base block


@dataclass(frozen=True)
class Want:
    r"""Keys to be read.

    Attributes:
        path: the topmost key, from the hive's root, such as ``Microsoft\Windows NT``.
        depth: how many levels of keys below it are read as well.
        values: names of the values that are read, in lower case; None for all.
    """

    path: str
    depth: int = 0
    values: tuple[str, ...] | None = None


def read(descriptor: int, wanted: Sequence[Want]) -> tuple[list[Any] | None, list[str]]:
    """Read keys of an open hive.

    Args:
        descriptor: the hive's file.
        wanted: which keys to read.

    Returns:
        The root key, and what could not be read. A key is ``[name, Windows time, values by
        lower-case name, keys by lower-case name]``, a value ``[name, type, data in hex, size]``.
        None instead of the key when nothing could be read.
    """
    size = os.fstat(descriptor).st_size
    if size > HIVE_LIMIT:
        return None, [f"larger than {HIVE_LIMIT} bytes"]
    tree, problems = _in_child(descriptor, wanted, unsafe=False)
    if tree is None and 0 < size <= _REPAIR_LIMIT:
        copy = _filled_up(descriptor, size)
        try:
            tree, _ = _in_child(copy, wanted, unsafe=True)
        finally:
            os.close(copy)
    return tree, problems


def _filled_up(descriptor: int, size: int) -> int:
    """A copy in memory, as long as the base block says that the hive is."""
    copy = os.memfd_create("hive")
    os.lseek(descriptor, 0, os.SEEK_SET)
    written = 0
    while written < size and (block := os.read(descriptor, _BLOCK)):
        written += os.write(copy, block)
    length = int.from_bytes(os.pread(copy, 4, _LENGTH_AT), "little") + 2 * _BASE_BLOCK
    os.truncate(copy, max(written, min(length, _REPAIR_LIMIT)))
    return copy


def _in_child(
    descriptor: int, wanted: Sequence[Want], *, unsafe: bool
) -> tuple[list[Any] | None, list[str]]:
    """As :func:`read`, in a process of its own."""
    output, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(to_parent, descriptor, wanted, unsafe=unsafe)
    os.close(to_parent)
    try:
        with os.fdopen(output, "rb") as stream:
            told = stream.read(_OUTPUT_LIMIT)
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        return None, [f"its reader ended with status {status}"]
    tree, problems = json.loads(told)
    return tree, problems


def _be_child(to_parent: int, descriptor: int, wanted: Sequence[Want], *, unsafe: bool) -> NoReturn:
    status = 1
    try:
        sys.unraisablehook = lambda _: None  # hivex' own, of handles that were never opened
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(to_parent, "wb") as stream:
            stream.write(json.dumps(_snapshot(descriptor, wanted, unsafe=unsafe)).encode())
        status = 0
    finally:
        os._exit(status)


def _snapshot(descriptor: int, wanted: Sequence[Want], *, unsafe: bool) -> list[Any]:
    try:
        import hivex

        hive = hivex.Hivex(f"/proc/self/fd/{descriptor}", unsafe=unsafe)
    except ImportError:
        return [None, ["hivex' Python binding is not installed"]]
    except RuntimeError as error:
        return [None, [f"hivex cannot open it: {error}"]]
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    reader = _Reader(hive, content)
    try:
        root = reader.whole(hive.root(), 0, ())
    except _DAMAGE as error:
        return [None, [f"hivex cannot read its root key: {error}"]]
    for want in wanted:
        reader.graft(root, want)
    return [root, reader.problems]


class _Reader:
    """Turns parts of a hive into plain data, within limits."""

    def __init__(self, hive: Any, content: hivenames.Bytes) -> None:  # Any: an untyped binding
        self._hive = hive
        self._content = content
        self._keys_left = _KEY_LIMIT
        self._bytes_left = _DATA_LIMIT
        self.problems: list[str] = []

    def graft(self, root: list[Any], want: Want) -> None:
        """Add a wanted key and the keys that lead to it."""
        try:
            place, node = root, self._hive.root()
            for part in want.path.split("\\"):
                child = self._child(node, part)
                if child is None:
                    self._note_damaged_name(want.path, node, part)
                    return
                node = child
                place = place[3].setdefault(part.lower(), self.whole(node, 0, ()))
            _merge(place, self.whole(node, want.depth, want.values))
        except _DAMAGE as error:
            self._note(want.path, error)

    def _child(self, node: int, name: str) -> int | None:
        child: int | None = self._hive.node_get_child(node, name)
        if child is None and name.lower() == _CURRENT and node == self._hive.root():
            return self._current_control_set(node)
        return child

    def _current_control_set(self, root: int) -> int | None:
        """The control set that a start uses, which only a running Windows has a link to."""
        select = self._hive.node_get_child(root, "Select")
        value = select and self._hive.node_get_value(select, "Current")
        if not value:
            return None
        number = self._hive.value_dword(value)
        child: int | None = self._hive.node_get_child(root, f"ControlSet{number:03}")
        return child

    def whole(self, node: int, depth: int, names: tuple[str, ...] | None) -> list[Any]:
        """A key, its values and the keys below it."""
        hive = self._hive
        self._keys_left -= 1
        if self._keys_left < 0:
            raise ValueError(f"more than {_KEY_LIMIT} keys")
        key: list[Any] = [hive.node_name(node), hive.node_timestamp(node), {}, {}]
        if names != ():
            self._guarded(key[0], lambda: self._add_values(key, node, names))
        if depth > 0:
            self._guarded(key[0], lambda: self._add_keys(key, node, depth, names))
        return key

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except _DAMAGE as error:
            self._note(name, error)

    def _add_values(self, key: list[Any], node: int, names: tuple[str, ...] | None) -> None:
        for value in self._hive.node_values(node):
            self._guarded(key[0], functools.partial(self._add_value, key, value, names))

    def _add_value(self, key: list[Any], value: int, names: tuple[str, ...] | None) -> None:
        name = self._hive.value_key(value)
        if names is not None and name.lower() not in names:
            return
        kind, data = self._hive.value_value(value)
        kept = data[:VALUE_LIMIT]
        self._bytes_left -= len(kept)
        if self._bytes_left < 0:
            raise ValueError(f"more than {_DATA_LIMIT} bytes of values")
        key[2][name.lower()] = [name, kind, kept.hex(), len(data)]

    def _add_keys(
        self, key: list[Any], node: int, depth: int, names: tuple[str, ...] | None
    ) -> None:
        def add(child: int) -> None:
            below = self.whole(child, depth - 1, names)
            key[3][below[0].lower()] = below

        for child in self._hive.node_children(node):
            self._guarded(key[0], functools.partial(add, child))
        self._note_damaged_name(key[0], node)

    def _note_damaged_name(self, where: str, node: int, wanted: str | None = None) -> None:
        """Note a key below a node that would go by another name, were its own not damaged."""
        if (what := hivenames.damaged(self._content, node, wanted)) is not None:
            self._note(where, ValueError(what))

    def _note(self, where: str, error: Exception) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(f"{where}: {error}")


def _merge(known: list[Any], key: list[Any]) -> None:
    known[2].update(key[2])
    for name, below in key[3].items():
        if name in known[3]:
            _merge(known[3][name], below)
        else:
            known[3][name] = below
