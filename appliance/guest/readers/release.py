"""Which distribution a root is, by all of its release files."""

from __future__ import annotations

import re
from dataclasses import replace

from fleetscan.appliance.guest.readers.older_releases import OLDER_FILES, OTHER_FILES
from fleetscan.appliance.guest.readers.os_release import (
    LIMIT,
    Release,
    from_os_release,
    more_precise,
    read_os_release,
)
from fleetscan.appliance.guest.root import Root

_NUMBERS = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?![0-9])")
_NEOKYLIN = re.compile(r"V([0-9]{1,9})Update([0-9]{1,9})")


def find(root: Root) -> Release:
    """What a root's release files say, os-release(5) before older ones.

    Raises:
        OSError: one of them cannot be read.
    """
    text = read_os_release(root)
    found = None if text is None else from_os_release(text)
    names = {f"/etc/{name}" for name in root.listdir("/etc")}  # dearer to try them one by one
    for path, parse in OLDER_FILES:
        if "/".join(path.split("/", 3)[:3]) in names:
            text = root.try_text(path, LIMIT)
            older = parse(text) if text is not None else None
            if older is not None:
                found = refine(found, older) if found else older
    for path, parse in OTHER_FILES:
        if found is None or found == Release():
            text = root.try_text(path, LIMIT)
            found = parse(text) if text is not None else None
    return found or Release()


def refine(release: Release, older: Release) -> Release:
    """A release with what an older file of the same system may add to it: its point release.

    Where os-release lacks an ID, the older file says which distribution it is.

    Debian's os-release says only "12" where /etc/debian_version says "12.11"; CentOS 7's says
    "7" where /etc/centos-release says "7.9.2009".
    """
    testing = release.version is None and release.distro == older.distro
    return replace(
        release,
        distro=release.distro or older.distro,
        like=release.like or (older.like if release.distro is None else ()),
        version=more_precise(release.version, older.version or ""),
        codename=release.codename or (older.codename if testing else None),
    )


def version_numbers(version: str | None) -> tuple[int | None, int | None]:
    """First and second number of a version; None for what it lacks."""
    match = _NUMBERS.match(version or "") or _NEOKYLIN.fullmatch(version or "")
    if match is None:
        return None, None
    return int(match[1]), int(match[2]) if match[2] else None
