"""The database of Windows dynamic disks (LDM): the volumes of a disk group, and their pieces.

Layout: the kernel's block/partitions/ldm.h and ldm.c.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleetscan.appliance.guest.disks import BlockDevice

METADATA_PARTITION = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
DATA_PARTITION = "af9b60a0-1431-4f62-bc68-3311714a69ad"
"""Types of the partitions that dynamic disks have in a GUID partition table."""

_SECTOR = 512
_MBR_TYPE = 0x42
_HEADER_SECTOR = 6  # on disks with an MBR; else the last of the metadata partition
_HEADER = struct.Struct(">8sI2H32x64s64x64s32s11xQQQQ")
_TABLES_AT = (1, 2)  # sectors of the configuration where its table of contents is written
_TABLE = struct.Struct(">8s28x10sQQ")
_DATABASE = struct.Struct(">4sIII2x2H")
_RECORD = struct.Struct(">4sIIHH")
_MAX_CONFIGURATION = 16 << 20  # bytes; Windows makes it 1 MiB
_MAX_RECORDS = 16384

_VOLUME, _COMPONENT, _PARTITION, _DISK3, _DISK4 = 0x51, 0x32, 0x33, 0x34, 0x44
STRIPED, RAID5 = 1, 3
"""Layouts of a component; of any other, the pieces follow one another."""

_HAS_STRIPES, _HAS_INDEX = 0x10, 0x08

Read = Callable[[int, int], bytes]
"""Reads (offset, length) of a disk, in bytes."""


@dataclass(frozen=True)
class LdmHeader:
    """What a disk says of itself.

    Attributes:
        disk: its id in the disk group.
        group: the disk group's id.
        group_name: its name.
        data: where the volumes' part of the disk begins, in sectors.
        configuration: where the database is, in sectors.
        length: the database's length, in sectors.
    """

    disk: str
    group: str
    group_name: str
    data: int
    configuration: int
    length: int


@dataclass(frozen=True)
class Piece:
    """A stretch of a volume on one disk; positions and lengths in sectors.

    Attributes:
        disk: the disk's number in the database.
        start: where it begins, from the beginning of the disk's data.
        size: its length.
        offset: where in its component it begins.
        index: its place among a striped component's pieces.
    """

    disk: int
    start: int
    size: int
    offset: int
    index: int


@dataclass
class Component:
    """One copy of a volume's content.

    Attributes:
        layout: striped, raid5, or anything else for pieces that follow one another.
        chunk: length of a stripe's part, in sectors.
        pieces: what it is stored in.
    """

    layout: int
    chunk: int
    pieces: list[Piece] = field(default_factory=list)


@dataclass
class Described:
    """A volume as the database has it.

    Attributes:
        name, guid: the volume's.
        size: its length in sectors.
        components: its copies.
    """

    name: str
    guid: str
    size: int
    components: list[Component] = field(default_factory=list)

    @property
    def layout(self) -> str:
        """How its data is laid out on disks, in Windows' own words."""
        if len(self.components) > 1:
            return "mirrored"
        (component,) = self.components or [Component(0, 0)]
        if component.layout == STRIPED:
            return "striped"
        if component.layout == RAID5:
            return "raid5"
        return "simple" if len({piece.disk for piece in component.pieces}) < 2 else "spanned"


@dataclass(frozen=True)
class LdmDatabase:
    """A disk group's database.

    Attributes:
        volumes: every volume.
        disks: each disk's id by its number.
    """

    volumes: list[Described]
    disks: Mapping[int, str]


def header_offset(
    disk: BlockDevice, partitions: Sequence[BlockDevice], first_sector: Callable[[], bytes]
) -> int | None:
    """Where a disk's header would be, in bytes; None where it has none.

    Args:
        disk: the disk.
        partitions: its partitions.
        first_sector: reads the disk's first sector; called only where it matters.
    """
    if disk.probe.get("PTTYPE") == "dos":
        kinds = first_sector()[446 + 4 : 510 : 16]  # the types of its four partitions
        return _HEADER_SECTOR * _SECTOR if _MBR_TYPE in kinds else None
    for partition in partitions:
        if partition.probe.get("PART_ENTRY_TYPE") == METADATA_PARTITION:
            return partition.start + partition.size - _SECTOR
    return None


def parse_header(data: bytes) -> LdmHeader | None:
    """A disk's header; None when it has none."""
    if len(data) < _HEADER.size or not data.startswith(b"PRIVHEAD"):
        return None
    _, _, _, _, disk, group, name, start, _, configuration, length = _HEADER.unpack_from(data)
    return LdmHeader(_text(disk), _text(group), _text(name), start, configuration, length)


def read_database(read: Read, header: LdmHeader) -> LdmDatabase:
    """A disk group's database, from one of its disks.

    Raises:
        ValueError: it is damaged, or larger than any.
    """
    start = header.configuration * _SECTOR
    if header.length * _SECTOR > _MAX_CONFIGURATION:
        raise ValueError(f"a database of {header.length} sectors")
    for sector in _TABLES_AT:
        found = read(start + sector * _SECTOR, _SECTOR)
        if len(found) == _SECTOR and found.startswith(b"TOCBLOCK"):
            break
    else:
        raise ValueError("its table of contents is missing")
    _, name, place, length = _TABLE.unpack_from(found)
    if not name.startswith(b"config") or place + length > header.length:
        raise ValueError("its table of contents is damaged")
    return parse_database(read(start + place * _SECTOR, length * _SECTOR))


def parse_database(data: bytes) -> LdmDatabase:
    """A database from its bytes.

    Raises:
        ValueError: it is damaged.
    """
    if len(data) < _DATABASE.size or not data.startswith(b"VMDB"):
        raise ValueError("its database is missing")
    _, last, size, offset, major, _ = _DATABASE.unpack_from(data)
    if major != 4 or not _RECORD.size < size <= 4096 or last > _MAX_RECORDS:
        raise ValueError("its database is of an unknown version")
    found = _Objects()
    try:
        for record in _records(data[offset : offset + last * size], size):
            found.add(record)
    except (struct.error, IndexError) as error:
        raise ValueError("a record of its database is damaged") from error
    return found.joined()


@dataclass
class _Objects:
    """What records describe, by their numbers, the parent's number before what has one."""

    volumes: dict[int, Described] = field(default_factory=dict)
    components: dict[int, tuple[int, Component]] = field(default_factory=dict)
    pieces: list[tuple[int, Piece]] = field(default_factory=list)
    disks: dict[int, str] = field(default_factory=dict)

    def add(self, record: _Record) -> None:
        """Take in a record; those of other kinds are passed over."""
        if record.kind == _VOLUME:
            self.volumes[record.number] = _volume(record)
        elif record.kind == _COMPONENT:
            self.components[record.number] = _component(record)
        elif record.kind == _PARTITION:
            self.pieces.append(_piece(record))
        elif record.kind in (_DISK3, _DISK4):
            self.disks[record.number] = _disk(record)

    def joined(self) -> LdmDatabase:
        """Everything put to what it belongs to."""
        for parent, piece in self.pieces:
            if parent in self.components:
                self.components[parent][1].pieces.append(piece)
        for _, (parent, component) in sorted(self.components.items(), key=lambda item: item[0]):
            if parent in self.volumes:
                self.volumes[parent].components.append(component)
        return LdmDatabase([self.volumes[number] for number in sorted(self.volumes)], self.disks)


class _Record:
    """A record's fields, read from its beginning on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        _, self.flags, self.kind, _ = struct.unpack_from(">HBBI", data)
        self._at = 8
        self.number = self.integer()
        self.name = self.text()

    def skip(self, length: int) -> bytes:
        """Fields of a fixed length."""
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise IndexError("a record ends too early")
        self._at += length
        return found

    def variable(self) -> bytes:
        """A field that begins with its length."""
        return self.skip(self.skip(1)[0])

    def integer(self) -> int:
        """A number of as many bytes as it takes."""
        return int.from_bytes(self.variable()[:8])

    def text(self) -> str:
        """A text."""
        return self.variable().decode("utf-8", "surrogateescape")


def _records(data: bytes, size: int) -> Iterator[_Record]:
    """The database's records, those in several parts put together; empty ones are left out."""
    parts: dict[int, dict[int, bytes]] = {}
    for start in range(0, len(data) - size + 1, size):
        magic, _, group, number, count = _RECORD.unpack_from(data, start)
        if magic != b"VBLK" or count == 0:
            continue
        found = parts.setdefault(group, {})
        found[number] = data[start + _RECORD.size : start + size]
        if len(found) == count:
            yield _Record(b"".join(found[key] for key in sorted(found)))
            del parts[group]


def _volume(record: _Record) -> Described:
    record.text()  # gen or raid5
    record.text()  # whether it has no drive letter
    record.skip(21)  # state, type, number, flags
    record.integer()  # how many components
    record.skip(16)
    size = record.integer()
    record.skip(5)
    return Described(record.name, str(uuid.UUID(bytes=record.skip(16))), size)


def _component(record: _Record) -> tuple[int, Component]:
    record.text()  # state
    layout = record.skip(5)[0]
    record.integer()  # how many pieces
    record.skip(16)
    parent = record.integer()
    record.skip(1)
    chunk = record.integer() if record.flags & _HAS_STRIPES else 0
    return parent, Component(layout, chunk)


def _piece(record: _Record) -> tuple[int, Piece]:
    record.skip(12)
    start, offset = struct.unpack(">QQ", record.skip(16))
    size = record.integer()
    parent = record.integer()
    disk = record.integer()
    index = record.integer() if record.flags & _HAS_INDEX else 0
    return parent, Piece(disk, start, size, offset, index)


def _disk(record: _Record) -> str:
    if record.kind == _DISK4:
        return str(uuid.UUID(bytes=record.skip(16)))
    return record.text()


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
