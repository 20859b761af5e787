"""Filesystems, with their usage by statvfs(2) of the mounted filesystem.

No cases: it describes block devices, which a directory tree has none of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.filesystems import Filesystem as Opened
from fleetscan.appliance.guest.machine import GuestMachine, need_disks
from fleetscan.scanner.tables.filesystems.spec import FilesystemRow

Usage = Literal["filesystem", "swap", "raid", "crypto", "other"]

_USAGES: dict[str, Usage] = {"filesystem": "filesystem", "raid": "raid", "crypto": "crypto"}


def collect(machine: GuestMachine) -> Iterator[FilesystemRow]:
    """One row a device with known content.

    Raises:
        IncompleteError: some could not be mounted; their rows are yielded before.
    """
    problems = Problems()
    disk_machine = need_disks(machine)
    for opened in disk_machine.filesystems:
        yield _to_row(opened, tuple(disk_machine.stack(opened.device.path)))
        if opened.error:
            problems.note(f"{opened.device.path}: {opened.error}")
    problems.finish()


def _to_row(opened: Opened, stack: tuple[str, ...]) -> FilesystemRow:
    usage = os.statvfs(opened.top) if opened.top else None
    unit = usage.f_frsize if usage else 0
    # The kernel says "all ones" of inodes that a filesystem does not count; Python reads it signed.
    counted = usage is not None and usage.f_files >= 0
    probe = opened.device.probe
    return FilesystemRow(
        device=opened.device.path,
        type=opened.type,
        usage=_usage(opened),
        version=probe.get("VERSION") or None,
        uuid=probe.get("UUID") or None,
        label=probe.get("LABEL") or None,
        mounted=opened.top is not None,
        journal=opened.journal,
        block_size=usage.f_bsize if usage else None,
        size=usage.f_blocks * unit if usage else None,
        used=(usage.f_blocks - usage.f_bfree) * unit if usage else None,
        free=usage.f_bfree * unit if usage else None,
        available=usage.f_bavail * unit if usage else None,
        inodes=usage.f_files if usage and counted else None,
        inodes_used=usage.f_files - usage.f_ffree if usage and counted else None,
        stack=stack,
        error=opened.error,
    )


def _usage(opened: Opened) -> Usage:
    if opened.type == "swap":
        return "swap"
    return _USAGES.get(opened.device.probe.get("USAGE", ""), "other")
