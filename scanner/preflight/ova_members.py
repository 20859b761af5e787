"""OVA archives: tar files that hold a machine's disks, read in place.

Member headers are walked, not unpacked. Layout: POSIX ustar and pax ("pax", Extended Description)
and GNU tar's large numbers, as DMTF's OVF specification (DSP0243) has archives be made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.image import Malformed, Read

BLOCK = 512
"""Length of a member's header, and of what its content is filled up to, in bytes."""

_MAX_MEMBERS = 1000
_MAX_PAX_BYTES = 1 << 16
_REGULAR, _OLD_REGULAR, _PAX, _PAX_GLOBAL = b"0", b"\0", b"x", b"g"

_malformed = Malformed("ova")


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive.

    Attributes:
        name: as the archive has it, undecodable bytes escaped by Python's "surrogateescape".
        start: where its content begins, in bytes.
        length: of its content, in bytes.
    """

    name: str
    start: int
    length: int


def find_member(read: Read, file_size: int, name: str) -> tuple[int, int]:
    """Where a member's content begins, and its length, in bytes.

    Raises:
        PreflightError: there is none of this name, or the archive is malformed or truncated.
    """
    for member in members(read, file_size):
        if member.name == name:
            return member.start, member.length
    raise PreflightError("the archive has no such member")


def members(read: Read, file_size: int) -> Iterator[ArchiveMember]:
    """The regular files of an archive, in its order.

    Raises:
        PreflightError: it is malformed or truncated; what came before was given.
    """
    offset, pax = 0, dict[str, bytes]()
    for _ in range(_MAX_MEMBERS):
        header = read(offset, BLOCK)
        if offset > 0 and not header.strip(b"\0"):
            return
        _malformed.unless(len(header) == BLOCK and is_sound(header), f"no header at {offset}")
        kind, start = header[156:157], offset + BLOCK
        length = _size(header, pax)
        if start + length > file_size:
            raise PreflightError("truncated: a member lies beyond the end of the archive")
        offset = start + -(-length // BLOCK) * BLOCK
        if kind == _PAX:
            _malformed.unless(length <= _MAX_PAX_BYTES, f"extended header of {length} bytes")
            pax = _pax_records(read(start, length))
        elif kind != _PAX_GLOBAL:
            if kind in (_REGULAR, _OLD_REGULAR):
                yield ArchiveMember(_name(header, pax), start, length)
            pax = {}
    raise PreflightError(f"an archive of more than {_MAX_MEMBERS} members")


def is_sound(header: bytes) -> bool:
    """Whether a header's checksum is right: the sum of all bytes, its own taken for spaces."""
    total = sum(header[:148]) + sum(b" " * 8) + sum(header[156:])
    try:
        return int(header[148:156].strip(b"\0 ") or b"-1", 8) == total
    except ValueError:
        return False


def _size(header: bytes, pax: dict[str, bytes]) -> int:
    field = header[124:136]
    try:
        if "size" in pax:
            size = int(pax["size"])
        elif field[0] & 0x80:  # GNU: a binary number
            size = int.from_bytes(field[1:])
        else:
            size = int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        size = -1
    _malformed.unless(0 <= size < 1 << 60, "a member's length")
    return size


def _name(header: bytes, pax: dict[str, bytes]) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    whole = pax.get("path") or (prefix + b"/" + name if prefix else name)
    return whole.decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Records "LENGTH KEY=VALUE" with a line's end each, the length counting all of itself."""
    records = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        _malformed.unless(len(digits) < length <= len(data), "extended header")
        key, _, value = data[len(digits) + 1 : length].removesuffix(b"\n").partition(b"=")
        records[key.decode("utf-8", "replace")] = value
        data = data[length:]
    return records
