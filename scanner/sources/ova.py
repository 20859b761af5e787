"""OVA archives: each is one machine, with the disks that it holds in the archive's order.

The OVF specification (DSP0243, "OVF package") has an archive's files stand in the order of the
descriptor's list of them, which is where the disks are listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.descriptors import closing
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import bounds, containers
from fleetscan.scanner.preflight.deciding import ARCHIVE_SUFFIX, DISK_SUFFIXES
from fleetscan.scanner.preflight.layer import reader
from fleetscan.scanner.preflight.ova_members import BLOCK, ArchiveMember, is_sound, members
from fleetscan.scanner.preflight.plan import file_size, open_checked
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.sources.volume_keys import KeySource

_SEVERAL_SYSTEMS = b"VirtualSystemCollection"  # the element that groups machines (DSP0243)
_MAX_DESCRIPTOR = 1 << 20  # bytes; those of single machines have some ten thousand


def machine_of(
    machine_id: str,
    disks: Sequence[Disk],
    source: str,
    *,
    keys: tuple[KeySource, ...] = (),
    place: str | None = None,
    identity: str | None = None,
) -> Machine:
    """A machine of these disks, archives replaced by the disks that they hold.

    Args:
        machine_id: what it is called.
        disks: as the source names them.
        source: what the user named.
        keys: where the keys for its encrypted volumes come from.
        place: where a folder's listing found it.
        identity: what the user says names the content of its disks.
    """
    try:
        held = [found for disk in disks for found in _disks_of(disk)]
    except PreflightError as error:
        return Machine(machine_id, tuple(disks), source, error.told, place=place)
    return Machine(machine_id, tuple(held), source, keys=keys, place=place, identity=identity)


def _disks_of(disk: Disk) -> tuple[Disk, ...]:
    if disk.format is None and Path(disk.path).suffix.lower() == ARCHIVE_SUFFIX:
        return archive_disks(disk)
    return (disk,)


def archive_disks(disk: Disk) -> tuple[Disk, ...]:
    """The disks that an archive holds, in its order.

    Raises:
        PreflightError: it cannot be read, is malformed, or holds none.
    """
    real = bounds.resolved(disk.path)
    bounds.check_source(disk.path, real, disk.within)
    with closing(open_checked(real)) as fd:
        try:
            return tuple(replace(disk, member=name) for name in _disk_names(fd))
        except PreflightError as error:
            raise PreflightError(f"{real!r}: {error}", hint=error.hint) from error
        except OSError as error:
            raise PreflightError(f"{real!r} cannot be read: {error.strerror}") from error


def _disk_names(fd: int) -> list[str]:
    read, size = reader(fd), file_size(fd)
    if not is_sound(read(0, BLOCK)):
        containers.refuse(read, size)  # an archive that was compressed
    found = list(members(read, size))
    suffixes = {member: Path(member.name).suffix.lower() for member in found}
    for member, suffix in suffixes.items():
        if suffix == ".gz" or suffix[1:].isdigit():
            raise PreflightError(
                f"the archive holds the disk {member.name!r} compressed or in pieces",
                hint="recreate it without compression and chunks, as ovftool does by default",
            )
        if suffix == ".ovf" and _SEVERAL_SYSTEMS in read(member.start, _most_of(member)):
            raise PreflightError(
                "the archive holds several machines",
                hint="unpack it, and list each machine's disks in an inventory",
            )
    disks = [member.name for member, suffix in suffixes.items() if suffix in DISK_SUFFIXES]
    if not disks:
        raise PreflightError("the archive holds no disk")
    return disks


def _most_of(member: ArchiveMember) -> int:
    return min(member.length, _MAX_DESCRIPTOR)
