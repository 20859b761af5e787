"""Packages on record: managers' databases, Windows' registry, and what languages' tools left."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.guest.root import Root
from scanner.schema import NotApplicable
from scanner.tables import release
from scanner.tables.packages import (
    apk,
    dpkg,
    flatpak,
    freebsd,
    languages,
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
from scanner.tables.packages.purl import Distribution
from scanner.tables.packages.spec import Package

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

``collect`` takes the root, its distribution, and a list to which it adds a message for whatever
makes rows be missing.
"""


def collect(root: Root) -> Iterator[Package]:
    """One row a package, of every database that the root has, then those of languages.

    Raises:
        NotApplicable: the root has no package database, nor packages of languages.
        ValueError: a database is damaged or cannot be read; raised after the rows it still gave.
    """
    problems: list[str] = []
    rows = windows.collect(root, problems) if root.windows else _unix(root, problems)
    yield from rows
    if problems:
        raise ValueError("; ".join(problems))


def _unix(root: Root, problems: list[str]) -> Iterator[Package]:
    found = [database for database in _DATABASES if database.is_present(root)]
    distribution = _distribution(root, problems)
    for database in found:
        yield from database.collect(root, distribution, problems)
    anything = bool(found)
    for package in languages.collect(root, problems):
        anything = True
        yield package
    if not anything and not problems:
        raise NotApplicable("no package database")


def _distribution(root: Root, problems: list[str]) -> Distribution:
    try:
        text = release.read_os_release(root)
        if text is not None:
            stated = release.parse_assignments(text)
            return Distribution(stated.get("ID", "").lower(), stated.get("VERSION_ID", ""))
        older = release.find(root)
        return Distribution(older.distro or "", older.version or "")
    except OSError as error:
        problems.append(f"the distribution that purl names cannot be told: {error.strerror}")
        return Distribution()
