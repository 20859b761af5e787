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
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fleetscan.appliance.guest.readers import hivenames

HIVE_LIMIT = 512 << 20
"""Largest hive that is opened, in bytes; Windows' own are seldom above 200 MiB."""

VALUE_LIMIT = 1 << 16
"""Bytes kept of a value; of a longer one, its beginning."""

_REPAIR_LIMIT = 96 << 20  # the copy is in the appliance's memory
_OUTPUT_LIMIT = 32 << 20  # as printed by the child; in Python's objects it takes several times that
_KEY_LIMIT = 200_000
_CPU_SECONDS = 60
_READING_SECONDS = 40  # of those, for keys; the rest is for telling them
_PROBLEMS = 10
_BLOCK = 1 << 20

_DAMAGE = (RuntimeError, ValueError)  # what hivex' binding raises: errors by number, bad text
_CURRENT = "currentcontrolset"
_FRAME = 64  # bytes around a key or value: brackets, times and numbers

_Part = tuple[list[tuple[str, list[Any]]], list[str]]
"""Keys on the way to a wanted one, itself last, each by its name in lower case; and problems."""

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
    tree, problems, finished = _in_child(descriptor, wanted, unsafe=False)
    if (tree is None or not finished) and 0 < size <= _REPAIR_LIMIT:
        copy = _filled_up(descriptor, size)
        try:
            repaired, _, whole = _in_child(copy, wanted, unsafe=True)
        finally:
            os.close(copy)
        if repaired is not None and (whole or tree is None):
            tree = repaired
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
) -> tuple[list[Any] | None, list[str], bool]:
    """As :func:`read`, in a process of its own; and whether that came to its end.

    The child prints each wanted key when it has it, so that nothing printed is lost if it dies, or
    is stopped because it prints too much.
    """
    output, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(output)  # or its writing would wait for itself once the parent reads no more
        _be_child(to_parent, descriptor, wanted, unsafe=unsafe)
    os.close(to_parent)
    try:
        told, whole = _read_within(output, 2 * _OUTPUT_LIMIT)
    finally:
        os.close(output)
        if not whole:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tree, problems = _assembled(told)
    if not whole:
        problems.append("its reader printed too much and was stopped")
    elif status:
        problems.append(f"its reader ended with status {status}")
    return tree, problems, whole and not status


def _read_within(descriptor: int, limit: int) -> tuple[bytes, bool]:
    """What comes down a pipe, and whether that was all of it."""
    blocks = []
    while limit > 0 and (block := os.read(descriptor, min(_BLOCK, limit))):
        blocks.append(block)
        limit -= len(block)
    return b"".join(blocks), limit > 0


def _assembled(told: bytes) -> tuple[list[Any] | None, list[str]]:
    """The tree and the problems that a child printed, one a line; a cut last line is dropped."""
    tree: list[Any] | None = None
    problems: list[str] = []
    for line in told.split(b"\n")[:-1]:
        chain, found = json.loads(line)
        problems += found
        if tree is None:
            tree = chain[0][1] if chain else None
            continue
        place = tree
        for name, key in chain[:-1]:
            place = place[3].setdefault(name, key)
        for name, key in chain[-1:]:
            _merge(place[3].setdefault(name, [*key[:2], {}, {}]), key)
    return tree, problems


def _be_child(to_parent: int, descriptor: int, wanted: Sequence[Want], *, unsafe: bool) -> NoReturn:
    status = 1
    try:
        sys.unraisablehook = lambda _: None  # hivex' own, of handles that were never opened
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(to_parent, "wb") as stream:
            for part in _parts(descriptor, wanted, unsafe=unsafe):
                stream.write(json.dumps(part).encode() + b"\n")
                stream.flush()
        status = 0
    finally:
        os._exit(status)


def _parts(descriptor: int, wanted: Sequence[Want], *, unsafe: bool) -> Iterator[_Part]:
    """The root key, then each wanted key with those that lead to it; and what is wrong with it."""
    try:
        import hivex

        hive = hivex.Hivex(f"/proc/self/fd/{descriptor}", unsafe=unsafe)
    except ImportError:
        yield [], ["hivex' Python binding is not installed"]
        return
    except RuntimeError as error:
        yield [], [f"hivex cannot open it: {error}"]
        return
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    reader = _Reader(hive, content)
    try:
        yield [("", reader.root())], []
    except (_LimitError, *_DAMAGE) as error:
        yield [], [f"hivex cannot read its root key: {error}"]
        return
    for number, want in enumerate(wanted, start=1):
        yield reader.chain(want, last=number == len(wanted)), reader.problems
        reader.problems = []


class _LimitError(Exception):
    """A key holds more than is read of it."""


class _Reader:
    """Turns parts of a hive into plain data, within limits.

    No wanted key but the last gets more than half of what is left of them, so that each one after
    it gets something.
    """

    def __init__(self, hive: Any, content: hivenames.Bytes) -> None:  # Any: an untyped binding
        self._hive = hive
        self._content = content
        self._left = {"keys": _KEY_LIMIT, "bytes": _OUTPUT_LIMIT}
        self._share = dict(self._left)
        self._noted = 0
        self.problems: list[str] = []

    def root(self) -> list[Any]:
        """Only the root key."""
        return self._key(self._hive.root())

    def chain(self, want: Want, *, last: bool) -> list[tuple[str, list[Any]]]:
        """A wanted key, with all that is read of it, behind those that lead to it from the root.

        Of a key that has too much, and of a damaged one, as much as could be read.
        """
        self._share = {what: left if last else left // 2 for what, left in self._left.items()}
        before = dict(self._share)
        found: list[tuple[str, list[Any]]] = []
        try:
            node: int = self._hive.root()
            for part in want.path.split("\\"):
                child = self._child(node, part)
                if child is None:
                    self._note_damaged_name(want.path, node, part)
                    return []
                node = child
                found.append((part.lower(), self._key(node)))
            self._fill(found[-1][1], node, want.depth, want.values)
        except (_LimitError, MemoryError, *_DAMAGE) as error:
            self._note(want.path, error)
        for what, share in self._share.items():
            self._left[what] -= before[what] - share
        return found

    def _spend(self, what: str, amount: int) -> None:
        self._share[what] -= amount
        if self._share[what] < 0:
            raise _LimitError(f"contains more {what} than are read; the rest was left out")
        if time.process_time() > _READING_SECONDS:
            raise _LimitError(f"not read completely within {_READING_SECONDS} seconds")

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

    def _key(self, node: int) -> list[Any]:
        """A key without what is in it."""
        name = self._hive.node_name(node)
        self._spend("keys", 1)
        self._spend("bytes", 2 * _length(name) + _FRAME)
        return [name, self._hive.node_timestamp(node), {}, {}]

    def _fill(self, key: list[Any], node: int, depth: int, names: tuple[str, ...] | None) -> None:
        """Add a key's values and the keys below it."""
        if names != ():
            self._guarded(key[0], lambda: self._add_values(key, node, names))
        if depth > 0:
            self._guarded(key[0], lambda: self._add_keys(key, node, depth, names))

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
        self._spend("bytes", 2 * _length(name) + 2 * len(kept) + _FRAME)
        key[2][name.lower()] = [name, kind, kept.hex(), len(data)]

    def _add_keys(
        self, key: list[Any], node: int, depth: int, names: tuple[str, ...] | None
    ) -> None:
        def add(child: int) -> None:
            below = self._key(child)
            key[3][below[0].lower()] = below
            self._fill(below, child, depth - 1, names)

        for child in self._hive.node_children(node):
            self._guarded(key[0], functools.partial(add, child))
        self._note_damaged_name(key[0], node)

    def _note_damaged_name(self, where: str, node: int, wanted: str | None = None) -> None:
        """Note a key below a node that would go by another name, were its own not damaged."""
        if (what := hivenames.damaged(self._content, node, wanted)) is not None:
            self._note(where, ValueError(what))

    def _note(self, where: str, error: Exception) -> None:
        self._noted += 1
        if self._noted <= _PROBLEMS:
            self.problems.append(f"{where}: {error}")


def _length(text: str) -> int:
    """Most bytes that JSON takes for a text."""
    return len(text) * (2 if text.isascii() and text.isprintable() else 12)


def _merge(known: list[Any], key: list[Any]) -> None:
    known[2].update(key[2])
    for name, below in key[3].items():
        if name in known[3]:
            _merge(known[3][name], below)
        else:
            known[3][name] = below
