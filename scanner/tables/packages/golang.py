"""Modules that Go programs were built from, as their build information lists them.

Format: Go's debug/buildinfo and runtime/debug (BuildInfo), as of Go 1.18; programs of older
releases have pointers there instead, and are passed over. Guest-safe: standard library only.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Sequence

from appliance.guest.root import Root
from scanner.tables.packages.purl import purl
from scanner.tables.packages.row import package
from scanner.tables.packages.spec import Package

_SMALLEST = 256 << 10  # bytes; a Go program brings its runtime along
_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_HEADER = 32
_INLINE = 0x2  # flag: strings follow the header
_WINDOW = 1 << 20  # bytes of a segment that are looked at; the magic is in its beginning
_TEXT_LIMIT = 4 << 20
_GUARD = 16  # bytes before and after the list of modules
_UNRELEASED = "(devel)"  # version of a program that was built from a working copy
_PT_LOAD = 1
_WRITABLE = 2
_PROGRAM_HEADERS = 64


def places(_: Root) -> Iterator[str]:
    """None: programs lie anywhere."""
    return iter(())


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """Everything, as programs have no names of their own."""
    return (f"{directory}/{name}" for name in names)


def read(root: Root, path: str) -> Iterator[Package]:
    """The modules of a program; none of what is no Go program.

    Raises:
        OSError: it cannot be read.
    """
    status = root.stat(path, follow=False)
    if not (stat.S_ISREG(status.st_mode) and status.st_mode & 0o111):
        return
    if status.st_size < _SMALLEST:
        return
    with root.open(path) as stream:
        for start, size in data_segments(stream.read(4096)):
            stream.seek(min(start, status.st_size))
            found = stream.read(min(size, _WINDOW))
            place = find_magic(found)
            if place is not None:
                stream.seek(start + place)
                yield from from_build_information(stream.read(_TEXT_LIMIT), path)
                return


def data_segments(head: bytes) -> Iterator[tuple[int, int]]:
    """Offset and size of the writable segments of a 64-bit or 32-bit ELF program."""
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        return
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    length, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    fields = f"{order}{'IIQQQQ' if wide else 'IIIIIII'}"
    for index in range(min(count, _PROGRAM_HEADERS)):
        place = table + index * length
        if place + struct.calcsize(fields) > len(head):
            return
        values = struct.unpack_from(fields, head, place)
        flags, start, size = (values[1], values[2], values[5]) if wide else (
            values[6], values[1], values[4],
        )  # fmt: skip
        if values[0] == _PT_LOAD and flags & _WRITABLE:
            yield start, size


def find_magic(segment: bytes) -> int | None:
    """Where build information begins in a segment."""
    place = segment.find(_MAGIC)
    while place >= 0 and place % _ALIGNMENT:
        place = segment.find(_MAGIC, place + 1)
    return place if place >= 0 else None


def from_build_information(data: bytes, path: str) -> Iterator[Package]:
    """A row a module: the program's own, those it depends on, and the standard library.

    Args:
        data: what begins with the magic.
        path: the program.
    """
    if len(data) < _HEADER or not data[15] & _INLINE:
        return
    version, rest = _string(data[_HEADER:])
    modules, _ = _string(rest)
    if version.startswith("go"):
        yield _row("stdlib", version.removeprefix("go").partition(" ")[0], path)
    lines = [line.split("\t") for line in modules[_GUARD:-_GUARD].splitlines()]
    for index, words in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else [""]
        if words[0] in ("mod", "dep") and len(words) > 2:
            replaced = following[0] == "=>" and len(following) > 2
            name, number = following[1:3] if replaced else words[1:3]
            yield _row(name, number, path)


def _string(data: bytes) -> tuple[str, bytes]:
    """A string with its length before it, and what follows."""
    length = shift = place = 0
    for place, byte in enumerate(data[:5]):  # noqa: B007 - wanted after the loop
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    end = place + 1 + length
    return data[place + 1 : end].decode("utf-8", "surrogateescape"), data[end:]


def _row(module: str, version: str, path: str) -> Package:
    namespace, _, name = module.lower().rpartition("/")
    stated = "" if version == _UNRELEASED else version
    return package("go", module, version, purl("golang", name, stated, namespace), path=path)
