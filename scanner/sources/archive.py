"""OVA archives: each is one machine, with the disks that it holds in the archive's order.

The OVF specification (DSP0243, "OVF package") has an archive's files stand in the order of the
descriptor's list of them, which is where the disks are listed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scanner.errors import PreflightError
from scanner.preflight.archive import members
from scanner.preflight.formats import ARCHIVE_SUFFIX, DISK_SUFFIXES
from scanner.preflight.layer import reader
from scanner.preflight.plan import file_size, open_checked
from scanner.sources.base import Disk, Machine


def machine_of(machine_id: str, disks: Sequence[Disk], source: str) -> Machine:
    """A machine of these disks, archives replaced by the disks that they hold.

    Args:
        machine_id: what it is called.
        disks: as the source names them.
        source: what the user named.
    """
    try:
        held = [found for disk in disks for found in _disks_of(disk)]
    except PreflightError as error:
        return Machine(machine_id, tuple(disks), source, str(error))
    return Machine(machine_id, tuple(held), source)


def _disks_of(disk: Disk) -> tuple[Disk, ...]:
    if disk.format is None and Path(disk.path).suffix.lower() == ARCHIVE_SUFFIX:
        return archive_disks(disk.path)
    return (disk,)


def archive_disks(path: str) -> tuple[Disk, ...]:
    """The disks that an archive holds, in its order.

    Raises:
        PreflightError: it cannot be read, is malformed, or holds none.
    """
    real = os.path.realpath(path)
    fd = open_checked(real)
    try:
        names = [member.name for member in members(reader(fd), file_size(fd))]
    except PreflightError as error:
        raise PreflightError(f"{real!r}: {error}", hint=error.hint) from error
    except OSError as error:
        raise PreflightError(f"{real!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    disks = [name for name in names if Path(name).suffix.lower() in DISK_SUFFIXES]
    if not disks:
        raise PreflightError(f"{real!r}: the archive holds no disk")
    return tuple(Disk(path, member=name) for name in disks)
