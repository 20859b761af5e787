"""Windows dynamic disks (LDM): their volumes put together, read-only.

The kernel shows the pieces of volumes as partitions, on disks with an MBR alone; a filesystem that
begins in one may go on in another. Here every volume of a disk group is put together of its
pieces, or named with what is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleetscan.appliance.guest import mapping
from fleetscan.appliance.guest.disks import BlockDevice, read_at
from fleetscan.appliance.guest.tools import ToolError
from fleetscan.appliance.guest.volume import Volume, VolumeKind
from fleetscan.appliance.guest.volumes.ldm.database import (
    DATA_PARTITION,
    METADATA_PARTITION,
    RAID5,
    STRIPED,
    Component,
    Described,
    LdmDatabase,
    LdmHeader,
    Piece,
    header_offset,
    parse_header,
    read_database,
)

_SECTOR = 512
_MAX_PIECES = 1024


@dataclass(frozen=True)
class GroupMember:
    """A disk of a group that the machine has.

    Attributes:
        device: the disk.
        header: what it says of itself.
    """

    device: BlockDevice
    header: LdmHeader


class DynamicDisks(VolumeKind):
    """The machine's disk groups."""

    instead_of_partitions = True

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Put volumes in the place of the pieces that the kernel found of them."""
        members = find_members(fresh, read_at)
        hide_pieces(members, fresh)
        groups: dict[str, list[GroupMember]] = {}
        for member in members:
            groups.setdefault(member.header.group, []).append(member)
        for group in groups.values():
            self.volumes += _volumes_of(group)


def find_members(
    devices: Sequence[BlockDevice], read_at: Callable[[str, int, int], bytes]
) -> list[GroupMember]:
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
            found.append(GroupMember(disk, header))
    return found


def hide_pieces(members: Sequence[GroupMember], devices: Sequence[BlockDevice]) -> None:
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


def _volumes_of(group: Sequence[GroupMember]) -> list[Volume]:
    """A disk group's volumes, by the first of its disks whose database can be read.

    Raises:
        ValueError: none can be.
    """
    reason = ""
    for member in group:
        read = functools.partial(read_at, member.device.path)
        try:
            return open_group(group, read_database(read, member.header))
        except ValueError as error:
            reason = reason or f"{member.device.path}: dynamic disk: {error}"
    raise ValueError(reason)


def open_group(members: Sequence[GroupMember], database: LdmDatabase) -> list[Volume]:
    """Map the volumes of a disk group; of those that cannot be, the reason."""
    by_id = {member.header.disk.casefold(): member for member in members}
    present = {
        number: by_id[name.casefold()]
        for number, name in database.disks.items()
        if name.casefold() in by_id
    }
    return [_open(volume, present, members[0].header) for volume in database.volumes]


def _open(volume: Described, present: Mapping[int, GroupMember], header: LdmHeader) -> Volume:
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
        degraded=None if error else degraded,
        error=error or None,
    )


def choose(volume: Described, present: Mapping[int, GroupMember]) -> tuple[Component, bool]:
    """The copy of a volume to read, and whether members are missing that it can do without.

    Raises:
        ValueError: none is whole.
    """
    for component in volume.components:
        missing = sum(1 for piece in component.pieces if piece.disk not in present)
        allowed = 1 if component.layout == RAID5 and len(component.pieces) > 2 else 0
        if component.pieces and missing <= allowed:
            others = [other for other in volume.components if other is not component]
            lost = any(piece.disk not in present for other in others for piece in other.pieces)
            return component, bool(missing) or lost
    raise ValueError("part of it is on a missing disk")


def table(
    volume: Described,
    component: Component,
    present: Mapping[int, GroupMember],
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
        raise ValueError(f"is in {len(component.pieces)} pieces")
    for piece in component.pieces:
        member = present.get(piece.disk)
        end = (member.header.data + piece.start + piece.size) * _SECTOR if member else 0
        if member and (end > member.device.size or not piece.size):
            raise ValueError("part of it lies beyond the end of its disk")
    if component.layout in (STRIPED, RAID5):
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
    present: Mapping[int, GroupMember],
    writable: Callable[[BlockDevice], str],
) -> str:
    pieces = sorted(component.pieces, key=lambda piece: piece.index)
    chunk, count = component.chunk, len(pieces)
    data = count - (component.layout == RAID5)
    if not chunk > 0 or chunk & (chunk - 1) or data < 1:
        raise ValueError("its stripes make no sense")
    size = volume.size // (chunk * data) * chunk * data
    if size == 0 or any(piece.size < size // data for piece in pieces):
        raise ValueError("its stripes are shorter than the volume")
    if component.layout == STRIPED:
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


def _place(piece: Piece, present: Mapping[int, GroupMember]) -> str:
    return f"{present[piece.disk].device.path} {_start(piece, present)}"


def _start(piece: Piece, present: Mapping[int, GroupMember]) -> int:
    return present[piece.disk].header.data + piece.start


def _overlay(disk: BlockDevice) -> str:
    return mapping.overlay_once(disk.path, disk.size)
