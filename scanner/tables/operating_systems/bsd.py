"""The BSDs, identified by notes in their programs where no release file says more."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.guest.readers.os_release import Release
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems import elf

FAMILIES: tuple[Literal["freebsd", "netbsd", "openbsd"], ...] = ("freebsd", "netbsd", "openbsd")
"""Values of os-release's ID, as of our own for those that have none."""

_NAMES = {"freebsd": "FreeBSD", "netbsd": "NetBSD", "openbsd": "OpenBSD"}
_PROGRAMS = ("/bin/sh", "/sbin/init", "/bin/ls")


def find_release(root: Root) -> Release:
    """The system that a usual program was built for; an empty release when it is not a BSD.

    Raises:
        OSError: the program cannot be read.
    """
    for path in filter(root.is_file, _PROGRAMS):
        with root.open(path) as stream:
            found = elf.bsd_note(stream.read(elf.NOTES_SIZE))
        if found:
            distro, version = found
            product = " ".join(filter(None, (_NAMES[distro], version)))
            return Release(distro, product=product, version=version)
    return Release()
