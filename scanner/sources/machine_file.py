"""A ``machine.yaml`` found in a scanned folder: which images are the disks of one machine.

It is input, not configuration. It lists disks in or below its own folder, and says nothing else:
no key, so that nobody reads the host's files or starts its programs through it, and no id, so that
no machine takes over the name and the history of another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pydantic

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.appliance.host.descriptors import closing
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import bounds
from fleetscan.scanner.preflight.plan import open_checked
from fleetscan.scanner.sources.inventory import DiskEntry, parsed_yaml, validated
from fleetscan.scanner.sources.listing import MARKER, is_below, link_error

_LONGEST = 64 << 10  # bytes; a list of the most disks with names of 200 characters
_MOST_DISKS = 256  # what the appliance reports (scanner.inspect)
_HINT = (
    "a machine.yaml lists disks of its own folder and nothing else; an inventory that you name "
    "yourself may give ids, keys, and disks elsewhere"
)


class _MachineFile(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    disks: list[DiskEntry] = pydantic.Field(min_length=1, max_length=_MOST_DISKS)


def machine_disks(folder: str, real: str, allowed: Sequence[str]) -> tuple[Disk, ...]:
    """The disks that a folder's ``machine.yaml`` lists.

    Args:
        folder: the folder, as it was found.
        real: the same, links resolved.
        allowed: directories, links resolved, that symbolic links in it may lead to.

    Raises:
        FleetscanError: it cannot be read, is malformed, or lists what it must not.
    """
    path = Path(folder) / MARKER
    within = (real, *allowed)
    try:
        parsed = parsed_yaml(_read(path, within), path, typed=False)  # a disk may be called 2024
        entries = validated(_MachineFile, parsed.value, path, parsed.line).disks
        disks = tuple(_disk(entry, path, folder, within) for entry in entries)
        _check_once(disks, path)
    except FleetscanError as error:
        raise UsageError(f"{error} ({_HINT})") from error
    return disks


def _read(path: Path, within: Sequence[str]) -> str:
    real = bounds.resolved(str(path))
    if not is_below(real, within):
        raise UsageError(link_error(str(path), real))
    with closing(open_checked(real)) as fd:
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"{path}: not a regular file")
            data = os.read(fd, _LONGEST + 1)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _LONGEST:
        raise UsageError(f"{path}: larger than {_LONGEST >> 10} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text") from error


def _disk(entry: DiskEntry, path: Path, folder: str, within: tuple[str, ...]) -> Disk:
    name = PurePosixPath(entry.path)
    if name.is_absolute() or ".." in name.parts:
        raise UsageError(f"{path}: the disk {entry.path!r} does not lie below its folder")
    disk = os.path.join(folder, entry.path)  # noqa: PTH118 - a Path would change the name
    real = bounds.resolved(disk)
    if not is_below(real, within):
        raise UsageError(f"{path}: the disk {link_error(disk, real)}")
    return Disk(disk, entry.format, within=within)


def _check_once(disks: Sequence[Disk], path: Path) -> None:
    seen: set[str] = set()
    for disk in disks:
        real = bounds.resolved(disk.path)
        if real in seen:
            raise UsageError(f"{path}: lists the disk {disk.path!r} twice")
        seen.add(real)
