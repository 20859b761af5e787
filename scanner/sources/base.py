"""What a source yields: machines and their disks, named but not yet opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fleetscan.scanner.sources.keys import KeySource

Why = Literal["base", "extent", "alias", "bundle", "unlisted"]
"""Why a file is no machine of its own: see the table ``left_out``."""

Bases = Literal["leave", "scan"]
"""What becomes of the files that other images are based on."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources are read.

    Attributes:
        include: shell patterns; when there are any, only machines whose id matches one are kept.
        exclude: shell patterns; machines whose id matches one are left out.
        bases: whether an image that others of its folder are based on is a machine as well.
        allowed_directories: where symbolic links may lead and backing files may lie, besides the
            source and the image's own folder.
        live: images in use are read.
        key_commands: inventories may name commands that print keys.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bases: Bases = "leave"
    allowed_directories: tuple[str, ...] = ()
    live: bool = False
    key_commands: bool = False


@dataclass(frozen=True)
class Disk:
    """One disk of a machine, as its source names it.

    Attributes:
        path: image file or block device, absolute, symbolic links unresolved.
        format: image format where the source states one; None leaves it to preflight.
        member: which member of the archive ``path`` the image is; None when it is no archive.
        within: directories, links resolved, below one of which the file lies when it is opened;
            empty for a disk that the user named, which may lie anywhere.
    """

    path: str
    format: str | None = None
    member: str | None = None
    within: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class LeftOut:
    """A file of a scanned folder that is no machine of its own.

    Attributes:
        path: the file, as the folder's listing found it.
        why: what it is instead.
        named_by: the file that says so: an image, a ``machine.yaml``, a bundle's descriptor.
    """

    path: str
    why: Why
    named_by: str


@dataclass(frozen=True)
class Machine:
    """One machine to scan.

    Attributes:
        machine_id: stable from run to run; unique among the machines of a scan.
        disks: its disks, in the order in which the machine sees them.
        source: what the user named and the machine was found in.
        keys: where the keys for its encrypted volumes come from.
        error: why the source knows that the machine cannot be scanned; None when it may be.
        place: the file or folder that a folder's listing found it as; None when the user named it.
        left_out: files of its source that are no machines of their own because of it.
    """

    machine_id: str
    disks: tuple[Disk, ...]
    source: str
    error: str | None = None
    keys: tuple[KeySource, ...] = ()
    place: str | None = None
    left_out: tuple[LeftOut, ...] = ()
