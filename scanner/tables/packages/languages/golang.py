"""Modules that Go programs were built from, as their build information lists them.

Format: Go's debug/buildinfo and runtime/debug (BuildInfo): strings in place since Go 1.18, before
it pointers to strings, back to Go 1.13.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

_SMALLEST = 256 << 10  # bytes; a Go program brings its runtime along
_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_HEADER = 32
_BIG_ENDIAN, _INLINE = 0x1, 0x2  # flags: pointers' order of bytes; strings follow the header
_WINDOW = 1 << 20  # bytes of a segment that are read; the magic is in its beginning
_TEXT_LIMIT = 4 << 20
_GUARD = 16  # bytes before and after the list of modules
_UNRELEASED = "(devel)"  # version of a program that was built from a working copy
_PT_LOAD = 1
_WRITABLE = 2
_PROGRAM_HEADERS = 64


@dataclass(frozen=True)
class Segment:
    """A segment of a program.

    Attributes:
        start: where it is in the file.
        size: bytes in the file.
        address: at which it is loaded.
        memory: bytes there; those that the file lacks are zeros.
        writable: whether the program may write there.
    """

    start: int
    size: int
    address: int
    memory: int
    writable: bool


def places(_: Root) -> Iterator[str]:
    """None: programs may be anywhere."""
    return iter(())


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """Everything, as programs have no names of their own."""
    return (f"{directory}/{name}" for name in names)


def read(root: Root, path: str) -> Iterator[Package]:
    """The modules of a program; none when it is not a Go program.

    Raises:
        OSError: it cannot be read.
        ValueError: its build information is cut off.
    """
    status = root.stat(path, follow=False)
    if not (stat.S_ISREG(status.st_mode) and status.st_mode & 0o111):
        return
    if status.st_size < _SMALLEST:
        return
    with root.open(path) as stream:
        head = stream.read(4096)
        loaded = [segment for segment in segments(head) if segment.start < status.st_size]
        for segment in loaded:
            if segment.writable:
                stream.seek(segment.start)
                place = find_magic(stream.read(min(segment.size, _WINDOW)), segment.address)
                if place is not None:
                    yield from from_build_information(stream, segment.start + place, loaded, path)
                    return


def segments(head: bytes) -> Iterator[Segment]:
    """The loaded segments of a 64-bit or 32-bit ELF program."""
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        return
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    length, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    fields = f"{order}{'IIQQQQQ' if wide else 'IIIIIII'}"
    for index in range(min(count, _PROGRAM_HEADERS)):
        place = table + index * length
        if place + struct.calcsize(fields) > len(head):
            return
        values = struct.unpack_from(fields, head, place)
        if wide:
            kind, flags, start, address, _, size, memory = values
        else:
            kind, start, address, _, size, memory, flags = values
        if kind == _PT_LOAD:
            yield Segment(start, size, address, memory, bool(flags & _WRITABLE))


def find_magic(data: bytes, address: int) -> int | None:
    """Where build information begins in a segment that is loaded at an address."""
    place = data.find(_MAGIC)
    while place >= 0 and (address + place) % _ALIGNMENT:
        place = data.find(_MAGIC, place + 1)
    return place if place >= 0 else None


def from_build_information(
    stream: BinaryIO, place: int, loaded: Sequence[Segment], path: str
) -> Iterator[Package]:
    """A row a module: the program's own, those it depends on, and the standard library.

    Args:
        stream: the program.
        place: where the magic stands in it.
        loaded: its segments.
        path: of the program.

    Raises:
        ValueError: the information is cut off, or is outside the program.
    """
    stream.seek(place)
    data = stream.read(_HEADER)
    if len(data) < _HEADER:
        raise ValueError("its build information is cut off")
    if data[15] & _INLINE:
        version, rest = _string(stream.read(_TEXT_LIMIT))
        modules, _ = _string(rest)
    else:
        version, modules = _pointed_at(stream, data, loaded)
    if version.startswith("go"):
        yield _row("stdlib", version.removeprefix("go").partition(" ")[0], path)
    lines = [line.split("\t") for line in modules[_GUARD:-_GUARD].splitlines()]
    for index, words in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else [""]
        if words[0] in ("mod", "dep") and len(words) > 2:
            replaced = following[0] == "=>" and len(following) > 2
            name, number = following[1:3] if replaced else words[1:3]
            yield _row(name, number, path)


def _pointed_at(stream: BinaryIO, header: bytes, loaded: Sequence[Segment]) -> tuple[str, str]:
    """Version and list of modules, each by a pointer to the string's own pointer and length."""
    word = struct.Struct(
        (">" if header[15] & _BIG_ENDIAN else "<") + ("Q" if header[14] == 8 else "I")
    )
    texts = []
    for place in (16, 16 + word.size):
        (address,) = word.unpack_from(header, place)
        own = _at(stream, address, 2 * word.size, loaded) if address else bytes(2 * word.size)
        (start,), (length,) = word.unpack_from(own), word.unpack_from(own, word.size)
        text = _at(stream, start, length, loaded) if length else b""
        texts.append(text.decode("utf-8", "surrogateescape"))
    return texts[0], texts[1]


def _at(stream: BinaryIO, address: int, size: int, loaded: Sequence[Segment]) -> bytes:
    """Bytes at an address of the running program.

    Raises:
        ValueError: the file has none there, or too many are asked for.
    """
    for segment in loaded:
        offset = address - segment.address
        if size <= _TEXT_LIMIT and 0 <= offset <= segment.memory - size:
            stream.seek(segment.start + offset)
            data = stream.read(max(0, min(size, segment.size - offset)))
            return data.ljust(size, b"\0")
    raise ValueError("its build information is outside the program")


def _string(data: bytes) -> tuple[str, bytes]:
    """A string with its length before it, and what follows.

    Raises:
        ValueError: it is longer than the data.
    """
    length = shift = place = 0
    for place, byte in enumerate(data[:5]):  # noqa: B007 - wanted after the loop
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    end = place + 1 + length
    if end > len(data):
        raise ValueError("its build information is cut off")
    return data[place + 1 : end].decode("utf-8", "surrogateescape"), data[end:]


def _row(module: str, version: str, path: str) -> Package:
    namespace, _, name = module.lower().rpartition("/")
    stated = "" if version == _UNRELEASED else version
    return Package(
        manager="go",
        name=module,
        version=version,
        purl=purl("golang", name, stated, namespace),
        upstream_version=version,
        path=path,
    )
