"""Windows dynamic disks (LDM): their database read, their volumes mapped read-only.

The kernel reads the database of disks with an MBR alone, and shows the pieces of volumes as
partitions; a filesystem that begins in one may go on in another. Here every volume of a disk group
is put together of its pieces, or named with what is missing.

Layout of the database: the kernel's block/partitions/ldm.h and ldm.c.
"""

from __future__ import annotations

import functools
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.guest import mapping
from appliance.guest.disks import BlockDevice
from appliance.guest.tools import ToolError
from scanner.tables.volumes.spec import Volume

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
_MAX_PIECES = 1024

_VOLUME, _COMPONENT, _PARTITION, _DISK3, _DISK4 = 0x51, 0x32, 0x33, 0x34, 0x44
_STRIPED, _RAID5 = 1, 3  # a component's layout; else its pieces follow one another
_HAS_STRIPES, _HAS_INDEX = 0x10, 0x08

Read = Callable[[int, int], bytes]
"""Reads (offset, length) of a disk, in bytes."""


@dataclass(frozen=True)
class Header:
    """What a disk says of itself.

    Attributes:
        disk: its id in the disk group.
        group: the disk group's id.
        group_name: its name.
        data: where the volumes' part of the disk begins, in sectors.
        configuration: where the database lies, in sectors.
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
        pieces: what it lies in.
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
        """How its data lies on disks, by Windows' own words."""
        if len(self.components) > 1:
            return "mirrored"
        (component,) = self.components or [Component(0, 0)]
        if component.layout == _STRIPED:
            return "striped"
        if component.layout == _RAID5:
            return "raid5"
        return "simple" if len({piece.disk for piece in component.pieces}) < 2 else "spanned"


@dataclass(frozen=True)
class Database:
    """A disk group's database.

    Attributes:
        volumes: every volume.
        disks: each disk's id by its number.
    """

    volumes: list[Described]
    disks: Mapping[int, str]


# -- Reading -----------------------------------------------------------------------------------


def header_offset(
    disk: BlockDevice, partitions: Sequence[BlockDevice], first_sector: Callable[[], bytes]
) -> int | None:
    """Where a disk's header would lie, in bytes; None where it has none.

    Args:
        disk: the disk.
        partitions: its partitions.
        first_sector: reads the disk's; asked for where it tells.
    """
    if disk.probe.get("PTTYPE") == "dos":
        kinds = first_sector()[446 + 4 : 510 : 16]  # the types of its four partitions
        return _HEADER_SECTOR * _SECTOR if _MBR_TYPE in kinds else None
    for partition in partitions:
        if partition.probe.get("PART_ENTRY_TYPE") == METADATA_PARTITION:
            return partition.start + partition.size - _SECTOR
    return None


def parse_header(data: bytes) -> Header | None:
    """A disk's header; None when it has none."""
    if len(data) < _HEADER.size or not data.startswith(b"PRIVHEAD"):
        return None
    _, _, _, _, disk, group, name, start, _, configuration, length = _HEADER.unpack_from(data)
    return Header(_text(disk), _text(group), _text(name), start, configuration, length)


def read_database(read: Read, header: Header) -> Database:
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


def parse_database(data: bytes) -> Database:
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

    def joined(self) -> Database:
        """Everything put to what it belongs to."""
        for parent, piece in self.pieces:
            if parent in self.components:
                self.components[parent][1].pieces.append(piece)
        for _, (parent, component) in sorted(self.components.items(), key=lambda item: item[0]):
            if parent in self.volumes:
                self.volumes[parent].components.append(component)
        return Database([self.volumes[number] for number in sorted(self.volumes)], self.disks)


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


# -- Mapping -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A disk of a group that the machine has.

    Attributes:
        device: the disk.
        header: what it says of itself.
    """

    device: BlockDevice
    header: Header


def find_members(
    devices: Sequence[BlockDevice], read_at: Callable[[str, int, int], bytes]
) -> list[Member]:
    """The dynamic disks among these devices.

    Args:
        devices: disks, and their partitions.
        read_at: reads (path, offset, length).

    Raises:
        OSError: a disk cannot be read.
    """
    found = []
    for disk in devices:
        if disk.partition is not None:
            continue
        inside = [item for item in devices if item.partition and item.members == (disk.path,)]
        beginning = functools.partial(read_at, disk.path, 0, _SECTOR)
        offset = header_offset(disk, inside, beginning)
        header = parse_header(read_at(disk.path, offset, _SECTOR)) if offset else None
        if header is not None:
            found.append(Member(disk, header))
    return found


def hide_pieces(members: Sequence[Member], devices: Sequence[BlockDevice]) -> None:
    """Forget what was taken for the content of partitions that hold pieces of volumes."""
    disks = {member.device.path: member.device for member in members}
    for device in devices:
        disk = disks.get(device.members[0]) if device.partition else None
        if disk is None:
            continue
        kind = device.probe.get("PART_ENTRY_TYPE")
        if disk.probe.get("PTTYPE") == "dos" or kind in (METADATA_PARTITION, DATA_PARTITION):
            device.probe = {
                name: value
                for name, value in device.probe.items()
                if name.startswith("PART_ENTRY_")
            }


def open_group(members: Sequence[Member], database: Database) -> list[Volume]:
    """Map the volumes of a disk group; of those that cannot be, the reason."""
    by_id = {member.header.disk.casefold(): member for member in members}
    present = {
        number: by_id[name.casefold()]
        for number, name in database.disks.items()
        if name.casefold() in by_id
    }
    return [_open(volume, present, members[0].header) for volume in database.volumes]


def _open(volume: Described, present: Mapping[int, Member], header: Header) -> Volume:
    name = f"ldm_vol_{header.group_name}_{volume.name}"
    error, degraded = "", False
    try:
        component, degraded = choose(volume, present)
        tables = table(volume, component, present, _overlay)
        mapping.create(name, tables)
    except (ValueError, ToolError) as reason:
        error = str(reason)
    disks = {piece.disk for component in volume.components for piece in component.pieces}
    return Volume(
        kind="ldm",
        device=None if error else mapping.path_of(name),
        name=volume.name,
        group_name=header.group_name,
        uuid=volume.guid,
        group_uuid=header.group,
        size=volume.size * _SECTOR,
        layout=volume.layout,
        members=tuple(present[disk].device.path for disk in sorted(disks) if disk in present),
        active=not error,
        snapshot=False,
        degraded=None if error else degraded,
        error=error or None,
    )


def choose(volume: Described, present: Mapping[int, Member]) -> tuple[Component, bool]:
    """The copy of a volume to read, and whether members are missing that it can do without.

    Raises:
        ValueError: none is whole.
    """
    for component in volume.components:
        missing = sum(1 for piece in component.pieces if piece.disk not in present)
        allowed = 1 if component.layout == _RAID5 and len(component.pieces) > 2 else 0
        if component.pieces and missing <= allowed:
            others = [other for other in volume.components if other is not component]
            lost = any(piece.disk not in present for other in others for piece in other.pieces)
            return component, bool(missing) or lost
    raise ValueError("lies partly on a disk that is missing")


def table(
    volume: Described,
    component: Component,
    present: Mapping[int, Member],
    writable: Callable[[BlockDevice], str],
) -> str:
    """The device mapper's table for a component.

    Args:
        volume: the volume.
        component: which copy of it.
        present: the disks there are, by number.
        writable: a device over a disk that may be opened for writing.

    Raises:
        ValueError: its pieces make no sense together.
    """
    if len(component.pieces) > _MAX_PIECES:
        raise ValueError(f"lies in {len(component.pieces)} pieces")
    for piece in component.pieces:
        member = present.get(piece.disk)
        end = (member.header.data + piece.start + piece.size) * _SECTOR if member else 0
        if member and (end > member.device.size or not piece.size):
            raise ValueError("a piece of it lies beyond its disk's end")
    if component.layout in (_STRIPED, _RAID5):
        return _striped(volume, component, present, writable)
    lines, done = [], 0
    for piece in sorted(component.pieces, key=lambda piece: piece.offset):
        if piece.offset != done:
            raise ValueError("its pieces do not follow one another")
        lines.append(f"{done} {piece.size} linear {_place(piece, present)}")
        done += piece.size
    return "\n".join(lines)


def _striped(
    volume: Described,
    component: Component,
    present: Mapping[int, Member],
    writable: Callable[[BlockDevice], str],
) -> str:
    pieces = sorted(component.pieces, key=lambda piece: piece.index)
    chunk, count = component.chunk, len(pieces)
    data = count - (component.layout == _RAID5)
    if not chunk > 0 or chunk & (chunk - 1) or data < 1:
        raise ValueError("its stripes make no sense")
    size = volume.size // (chunk * data) * chunk * data
    if size == 0 or any(piece.size < size // data for piece in pieces):
        raise ValueError("its stripes are shorter than the volume")
    if component.layout == _STRIPED:
        places = " ".join(_place(piece, present) for piece in pieces)
        return f"0 {size} striped {count} {chunk} {places}"
    devices = []
    for piece in pieces:
        if piece.disk not in present:
            devices.append("- -")
            continue
        name = f"ldm_part_{piece.disk}_{piece.start}"
        place = f"{writable(present[piece.disk].device)} {_start(piece, present)}"
        mapping.create(name, f"0 {piece.size} linear {place}", read_only=False)
        devices.append(f"- {mapping.path_of(name)}")
    return f"0 {size} raid raid5_ls 2 {chunk} nosync {count} {' '.join(devices)}"


def _place(piece: Piece, present: Mapping[int, Member]) -> str:
    return f"{present[piece.disk].device.path} {_start(piece, present)}"


def _start(piece: Piece, present: Mapping[int, Member]) -> int:
    return present[piece.disk].header.data + piece.start


def _overlay(disk: BlockDevice) -> str:
    return mapping.overlay_once(disk.path, disk.size)
