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
from fleetscan.scanner.tables.packages import language, windows
from fleetscan.scanner.tables.packages.manager import load_managers
from fleetscan.scanner.tables.packages.purl import Distribution
from fleetscan.scanner.tables.packages.spec import Package


def collect(root: Root) -> Iterator[Package]:
    """One row a package, of every database that the root has, then those of languages.

    Raises:
        NotApplicable: the root has no package database, nor packages of languages.
        UnreadError: only packages of languages cannot be read.
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
    found = [manager for manager in load_managers() if manager.is_present(root)]
    distribution = _distribution(root, reader)
    for manager in found:
        yield from manager.collect(root, distribution, reader)
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
        problems.note(f"the distribution that package URLs name is unknown: {reason(error)}")
        return Distribution()
