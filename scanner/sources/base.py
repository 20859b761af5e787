"""What a source yields: machines and their disks, named but not yet opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Disk:
    """One disk of a machine, as its source names it.

    Attributes:
        path: image file or block device, absolute, symbolic links unresolved.
        format: image format where the source states one; None leaves it to preflight.
        member: which member of the archive ``path`` the image is; None when it is no archive.
    """

    path: str
    format: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Machine:
    """One machine to scan.

    Attributes:
        machine_id: stable from run to run; unique among the machines of a scan.
        disks: its disks, in the order in which the machine sees them.
        source: what the user named and the machine was found in.
        error: why the source knows that the machine cannot be scanned; None when it may be.
    """

    machine_id: str
    disks: tuple[Disk, ...]
    source: str
    error: str | None = None
