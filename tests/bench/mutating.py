"""Damage to disk images: where it is done, what is written, and how it is undone.

What is changed follows from a seed, the image's name and the mutation's number alone, so that any
mutation can be made again by itself.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

END = 1 << 20
"""How much of a file's beginning and end is damaged, in bytes."""

_CHUNK = 1 << 20
_SECTOR = 512
_PAGE = 4096
_LARGEST_FILE = 64 << 10  # bytes of a file found inside an image that are damaged
_PLACES = 8  # of one kind, in one image
_LONGEST_FILL = 16 << 10


@dataclass(frozen=True)
class Region:
    """A part of a file that is worth damaging.

    Attributes:
        kind: what lies there.
        offset: where it begins, in bytes.
        length: how long it is, in bytes.
    """

    kind: str
    offset: int
    length: int


@dataclass(frozen=True)
class Mutation:
    """One damage.

    Attributes:
        what: what was done, in words.
        kind: the kind of the region.
        writes: bytes, and where they go.
        length: what the file is cut to; None where it keeps its length.
    """

    what: str
    kind: str
    writes: tuple[tuple[int, bytes], ...] = ()
    length: int | None = None


@dataclass(frozen=True)
class Signature:
    """Bytes by which something inside an image is found, whatever filesystem holds it.

    Attributes:
        kind: what it is.
        magic: the bytes.
        at: where in the thing they stand.
        align: what the thing's own offset is a multiple of, in bytes.
        text: whether a change of it can make another text that is as good; of what is no text,
            each byte that is lost has to be noticed.
    """

    kind: str
    magic: bytes
    at: int = 0
    align: int = _SECTOR
    text: bool = False


SIGNATURES = (
    Signature("dpkg status", b"Package: ", text=True),
    Signature("apk database", b"C:Q1", text=True),
    Signature("SQLite database", b"SQLite format 3\0"),
    Signature("Berkeley database", b"\x61\x15\x06\x00", at=12),
    Signature("ndb package database", b"RpmP"),
    Signature("hive", b"regf"),
    Signature("hive bin", b"hbin"),
    Signature("passwd", b"root:x:0:0:", text=True),
    Signature("shadow", b":0:99999:7:::\n", at=-1, align=1, text=True),
    Signature("sshd_config", b"PermitRootLogin", at=-1, align=1, text=True),
    Signature("fstab", b"\nUUID=", at=-1, align=1, text=True),
    Signature("os-release", b"PRETTY_NAME=", at=-1, align=1, text=True),
    Signature("unit file", b"[Unit]\n", text=True),
    Signature("NTFS file record", b"FILE0\0\3\0"),
    Signature("XFS superblock", b"XFSB"),
    Signature("XFS directory", b"XDB3"),
    Signature("btrfs superblock", b"_BHRfS_M", at=64),
    Signature("ext superblock", b"\x53\xef", at=56, align=1024),
    Signature("ext directory", b"\x0c\x00\x01\x02.\0\0\0", at=4, align=1024),
    Signature("LVM label", b"LVM2 001", at=24),
    Signature("LVM metadata", b" LVM2 x[5A%r0N*>", at=4),
    Signature("md superblock", b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    Signature("LUKS header", b"LUKS\xba\xbe"),
    Signature("GPT", b"EFI PART"),
)

TEXTS = frozenset(signature.kind for signature in SIGNATURES if signature.text)


# -- Where ---------------------------------------------------------------------------------------


def ends(path: Path) -> list[Region]:
    """A file's first and last MiB."""
    size = path.stat().st_size
    first = Region("first MiB", 0, min(END, size))
    last = Region("last MiB", max(0, size - END), min(END, size))
    return [first, last] if size else []


def contents(path: Path) -> list[Region]:
    """What is recognised inside a raw disk, some places of each kind."""
    found: dict[str, list[Region]] = {}
    for offset, data in _data(path):
        for signature in SIGNATURES:
            places = found.setdefault(signature.kind, [])
            for start in _hits(signature, offset, data):
                if len(places) < _PLACES:
                    places.append(Region(signature.kind, start, _length(signature, path, start)))
    return [region for places in found.values() for region in places]


def _hits(signature: Signature, offset: int, data: bytes) -> Iterator[int]:
    position = data.find(signature.magic)
    while position >= 0:
        if signature.at < 0:  # somewhere in a small file, which begins with its block
            yield (offset + position) // _PAGE * _PAGE
        elif (start := offset + position - signature.at) % signature.align == 0:
            yield max(0, start)
        position = data.find(signature.magic, position + 1)


def _length(signature: Signature, path: Path, start: int) -> int:
    """How much of what begins there is worth damaging: a text to its end, else some pages."""
    with path.open("rb") as stream:
        stream.seek(start)
        data = stream.read(_LARGEST_FILE)
    if signature.text:
        return max(1, (data + b"\0").index(b"\0"))
    return min(len(data), 4 * _PAGE)


def _data(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each piece of a sparse file that is no hole."""
    with path.open("rb") as stream:
        end = 0
        with contextlib.suppress(OSError):  # ENXIO: no data after this offset
            while True:
                start = os.lseek(stream.fileno(), end, os.SEEK_DATA)
                end = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
                for offset in range(start, end, _CHUNK):
                    yield offset, os.pread(stream.fileno(), min(_CHUNK, end - offset), offset)


# -- What ----------------------------------------------------------------------------------------

_Writes = tuple[tuple[int, bytes], ...]
_Change = Callable[[random.Random, bytes], tuple[str, _Writes]]


def mutation(chance: random.Random, path: Path, regions: Sequence[Region]) -> Mutation:
    """One damage of a file.

    Args:
        chance: decides all of it.
        path: the file.
        regions: where in it; every kind is as likely as another.
    """
    kind = chance.choice(sorted({region.kind for region in regions}))
    region = chance.choice([region for region in regions if region.kind == kind])
    if kind == "last MiB" and chance.random() < 0.15:
        cut = region.offset + chance.randrange(region.length)
        return Mutation(f"cut to {cut} bytes", kind, length=cut)
    with path.open("rb") as stream:
        stream.seek(region.offset)
        data = stream.read(region.length)
    what, writes = chance.choice(_CHANGES)(chance, data)
    absolute = tuple((region.offset + at, change) for at, change in writes)
    return Mutation(f"{what} at {', '.join(str(at) for at, _ in absolute[:4])}", kind, absolute)


def _flipped_bits(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    places = [_place(chance, data) for _ in range(chance.choice((1, 1, 2, 8, 32)))]
    writes = tuple((at, bytes([data[at] ^ 1 << chance.randrange(8)])) for at in places)
    return f"{len(writes)} bits flipped", writes


def _random_bytes(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    change = chance.randbytes(chance.choice((1, 4, 16, 64, 512)))
    return f"{len(change)} random bytes", (_fitted(_place(chance, data), change, data),)


def _filled(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    length = chance.choice((4, 64, 512, 4096, _LONGEST_FILL))
    at = _place(chance, data) // length * length
    byte = chance.choice((b"\0", b"\xff"))
    return f"{length} times {byte.hex()}", (_fitted(at, byte * length, data),)


def _copied_block(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    source, target, size = _blocks(chance, data)
    change = data[source : source + size]
    return f"block of {size} copied", (_fitted(target, change, data),)


def _swapped_blocks(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    first, second, size = _blocks(chance, data)
    pairs = ((first, data[second : second + size]), (second, data[first : first + size]))
    return f"blocks of {size} swapped", tuple(_fitted(at, part, data) for at, part in pairs)


def _extreme_number(chance: random.Random, data: bytes) -> tuple[str, _Writes]:
    size = chance.choice((1, 2, 4, 8))
    at = _place(chance, data) // size * size
    most = 1 << 8 * size
    value = chance.choice((0, 1, most // 2 - 1, most // 2, most - 2, most - 1))
    change = value.to_bytes(size, chance.choice(("little", "big")))
    return f"{value:#x} as a number of {size} bytes", (_fitted(at, change, data),)


_CHANGES: tuple[_Change, ...] = (
    _flipped_bits,
    _random_bytes,
    _filled,
    _copied_block,
    _swapped_blocks,
    _extreme_number,
)


def _place(chance: random.Random, data: bytes) -> int:
    """Where to change: mostly where there is something."""
    for _ in range(64):
        at = chance.randrange(len(data))
        sector = at // _SECTOR * _SECTOR
        if any(data[sector : sector + _SECTOR]):
            return at
    return chance.randrange(len(data))


def _blocks(chance: random.Random, data: bytes) -> tuple[int, int, int]:
    """Two places for blocks, and the blocks' size."""
    size = chance.choice((64, _SECTOR, _PAGE))
    first, second = (_place(chance, data) // size * size for _ in range(2))
    return first, second, size


def _fitted(at: int, change: bytes, data: bytes) -> tuple[int, bytes]:
    return at, change[: len(data) - at]


# -- Done and undone -----------------------------------------------------------------------------


@contextlib.contextmanager
def applied(path: Path, damage: Mutation) -> Iterator[None]:
    """The file is damaged while the block runs, and as it was afterwards."""
    with path.open("r+b") as stream:
        size = path.stat().st_size
        before = [(at, os.pread(stream.fileno(), len(change), at)) for at, change in damage.writes]
        tail = b"" if damage.length is None else os.pread(stream.fileno(), size, damage.length)
        try:
            for at, change in damage.writes:
                os.pwrite(stream.fileno(), change, at)
            if damage.length is not None:
                os.truncate(path, damage.length)
            yield
        finally:
            if damage.length is not None:
                os.pwrite(stream.fileno(), tail, damage.length)
                os.truncate(path, size)
            for at, content in reversed(before):
                os.pwrite(stream.fileno(), content, at)
