"""What a source yields: machines, their disks named but not yet opened."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fleetscan.appliance.ground.option import option
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources.volume_keys import KeySource

Why = Literal["base", "extent", "alias", "bundle", "unlisted"]
"""Why a file is not a machine of its own: see the table ``left_out``."""

Bases = Literal["leave", "scan"]
"""What becomes of the files that other images are based on."""


def _absolute(text: str) -> str:
    return str(Path(text).absolute())


@dataclass(frozen=True)
class SourceOptions:
    """Which machines sources yield, and what of theirs may be read.

    Attributes:
        include: shell patterns; when there are any, only machines whose id matches one are kept.
        exclude: shell patterns; machines whose id matches one are left out.
        bases: whether an image that others of its folder are based on is a machine as well.
        allowed_directories: absolute; where symbolic links may lead and backing files may be,
            besides the source and the image's own folder.
        live: images in use are read.
        key_commands: inventories may name commands that print keys.
    """

    include: tuple[str, ...] = option(
        (),
        decides=False,
        metavar="GLOB",
        commands=("scan",),
        help="Scan only machines whose id matches; may be repeated.",
    )
    exclude: tuple[str, ...] = option(
        (),
        decides=False,
        metavar="GLOB",
        commands=("scan",),
        help="Skip machines whose id matches; may be repeated.",
    )
    bases: Bases = option(
        "leave",
        decides=False,
        commands=("scan",),
        help="Leave out images that others in their folder are based on, or scan them too.",
    )
    # A machine for which one was missing was not read whole, and is scanned again anyway.
    allowed_directories: tuple[str, ...] = option(
        (),
        decides=False,
        planned="confirmed",
        flag="--allow-dir",
        metavar="DIR",
        read=_absolute,
        help="A directory where backing files may be, besides their image's own, and where links "
        "in a source may lead; may be repeated.",
    )
    live: bool = option(
        default=False,
        decides=True,
        help="Read images even if they are in use; their rows are marked as torn.",
    )
    key_commands: bool = option(
        default=False,
        decides=False,
        planned="asked",
        flag="--allow-key-commands",
        commands=("scan",),
        help="Run the commands that inventories give for printing keys.",
    )

    def wants(self, machine_id: str) -> bool:
        """Whether a machine of this id is to be scanned."""
        included = not self.include or _matches(machine_id, self.include)
        return included and not _matches(machine_id, self.exclude)


def _matches(machine_id: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(machine_id, pattern) for pattern in patterns)


@dataclass(frozen=True)
class LeftOut:
    """A file of a scanned folder that is not a machine of its own.

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
        identity: what the user says names the content of its disks, such as a snapshot's id.
    """

    machine_id: str
    disks: tuple[Disk, ...]
    source: str
    error: str | None = None
    keys: tuple[KeySource, ...] = ()
    place: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    identity: str | None = None
