"""Packages on record: managers' databases, Windows' registry, and what languages' tools left."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import release
from fleetscan.appliance.guest.readers.os_release import parse_assignments, read_os_release
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages import language
from fleetscan.scanner.tables.packages.managers import (
    apk,
    dpkg,
    flatpak,
    freebsd,
    nix,
    opkg,
    pacman,
    pkgsrc,
    portage,
    rpmdb,
    slackware,
    snap,
    windows,
    xbps,
)
from fleetscan.scanner.tables.packages.purl import Distribution
from fleetscan.scanner.tables.packages.spec import Package

_DATABASES = (
    dpkg,
    rpmdb,
    apk,
    pacman,
    portage,
    xbps,
    opkg,
    slackware,
    freebsd,
    pkgsrc,
    nix,
    snap,
    flatpak,
)
"""Readers: ``is_present`` tells whether a root has their database, ``collect`` gives its rows.

``collect`` takes the root, its distribution, and the problems in which it notes whatever makes rows
be missing.
"""


def collect(root: Root) -> Iterator[Package]:
    """One row a package, of every database that the root has, then those of languages.

    Raises:
        NotApplicable: the root has no package database, nor packages of languages.
        UnreadError: packages of languages alone cannot be read.
        IncompleteError: a database is damaged or cannot be read; raised after what it gave.
    """
    reader = Reader(root)
    if root.windows:
        yield from windows.collect(root, reader)
    else:
        yield from _unix(reader)
    reader.finish()


def _unix(reader: Reader) -> Iterator[Package]:
    root = reader.root
    found = [database for database in _DATABASES if database.is_present(root)]
    distribution = _distribution(root, reader)
    for database in found:
        yield from database.collect(root, distribution, reader)
    anything = bool(found or reader)
    with root.lookups.watching() as lost:
        for package in language.collect(reader):
            anything = True
            yield package
    if lost:
        reader.note(str(lost), *lost.unread)
    if not anything:
        reader.finish()
        raise NotApplicable("no package database")


def _distribution(root: Root, problems: Problems) -> Distribution:
    try:
        text = read_os_release(root)
        if text is not None:
            stated = parse_assignments(text)
            return Distribution(stated.get("ID", "").lower(), stated.get("VERSION_ID", ""))
        older = release.find(root)
        return Distribution(older.distro or "", older.version or "")
    except OSError as error:
        problems.note(f"the distribution that purl names cannot be told: {reason(error)}")
        return Distribution()
