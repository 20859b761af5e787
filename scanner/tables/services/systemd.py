"""systemd's units on disk, and the state that ``systemctl is-enabled`` gives them offline.

The rules are those of systemctl(1) and systemd.unit(5). :class:`UnitTree` holds what the unit
directories list; what it concludes needs no file but the unit files.

Shared with ``scheduled_tasks``, ``config`` and ``mountpoints``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleetscan.scanner.tables.services import unitfile
from fleetscan.scanner.tables.services.spec import State

SEARCH_PATH = (
    "/etc/systemd/system.control",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Directories of the system manager's units, the first one to have a name wins."""

CONFIG = "/etc/systemd/system"
"""Where ``systemctl enable`` makes its links."""

PULLS = (".wants", ".requires", ".upholds")
"""Ends of the names of folders whose links make one unit pull in others."""

_NULL = "/dev/null"
_LINKS_FOLLOWED = 64


@dataclass(frozen=True)
class UnitListing:
    """What one unit directory lists.

    Attributes:
        path: the directory.
        files: sizes of the regular files among its entries.
        links: targets of the symbolic links among them.
        pulls: links in its ``.wants``, ``.requires`` and ``.upholds`` folders, by folder.
        dropins: names of the ``.conf`` files in its ``.d`` folders, by folder.
    """

    path: str
    files: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    pulls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dropins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Definition:
    """Where a unit name leads.

    Attributes:
        name: the unit's own name, which is not the name asked for when that is an alias.
        path: the file that defines it, or the link that masks it.
        masked: whether it cannot be started at all.
    """

    name: str
    path: str
    masked: bool = False


@dataclass(frozen=True)
class _Link:
    directory: int  # index into the tree's listings
    folder: str  # "" for the directory itself
    name: str
    target: str


class UnitTree:
    """All unit directories of a root.

    Args:
        listings: of the directories that exist, in the order of the search path.
        same: other paths of a listed directory, such as /lib/systemd/system of /usr/lib's.
    """

    def __init__(self, listings: Iterable[UnitListing], same: Mapping[str, str]) -> None:
        self.listings = tuple(listings)
        self._same = same
        self._by_path = {listing.path: listing for listing in self.listings}
        self._by_name: dict[str, list[_Link]] = {}
        self._by_target: dict[str, list[_Link]] = {}
        for link in self._links():
            self._by_name.setdefault(link.name, []).append(link)
            self._by_target.setdefault(posixpath.basename(link.target), []).append(link)

    def _links(self) -> Iterator[_Link]:
        for index, listing in enumerate(self.listings):
            for folder, links in (("", listing.links), *listing.pulls.items()):
                for name, target in links.items():
                    yield _Link(index, folder, name, target)

    def names(self) -> list[str]:
        """All unit names, sorted: those of files and links, and instances that are pulled in."""
        names: set[str] = set()
        for listing in self.listings:
            names.update(listing.files, listing.links)
            for links in listing.pulls.values():
                names.update(name for name in links if unitfile.template_of(name))
        return sorted(filter(unitfile.is_unit_name, names))

    def define(self, name: str) -> Definition | None:
        """Where a unit name leads; None when its link is broken or leads to no unit.

        Of a link to a file outside of the unit directories, :meth:`is_outside`, it is for the
        caller to see that the file exists.
        """
        for _ in range(_LINKS_FOLLOWED):
            listing = self._holder(name)
            if listing is None:
                template = unitfile.template_of(name)
                found = self.define(template) if template else None
                return found and Definition(name, found.path, found.masked)
            path = f"{listing.path}/{name}"
            if name in listing.files:
                return Definition(name, path, masked=listing.files[name] == 0)
            target = self._chase(listing, name)
            if target == _NULL:
                return Definition(name, path, masked=True)
            other = posixpath.basename(target)
            if not _may_link(name, other):
                return None
            if other == name or other == unitfile.template_of(name):
                return self._linked(name, target)
            name = other
        return None

    def path_of(self, name: str) -> str:
        """Path of the entry that a unit name has in the search path; the name itself for none."""
        listing = self._holder(name)
        return f"{listing.path}/{name}" if listing else name

    def is_outside(self, path: str) -> bool:
        """Whether a path is in none of the unit directories."""
        folder = posixpath.dirname(path)
        return self._same.get(folder, folder) not in self._by_path

    def _holder(self, name: str) -> UnitListing | None:
        for listing in self.listings:
            if name in listing.files or name in listing.links:
                return listing
        return None

    def _linked(self, name: str, target: str) -> Definition | None:
        folder, base = posixpath.split(target)
        listing = self._by_path.get(self._same.get(folder, folder))
        if listing is None:
            return Definition(name, target)
        if base == name or base not in listing.files:
            return (
                None  # systemctl refuses a link from one unit directory to the same name in another
            )
        return Definition(name, target, masked=listing.files[base] == 0)

    def _chase(self, listing: UnitListing, name: str) -> str:
        path = f"{listing.path}/{name}"
        for _ in range(_LINKS_FOLLOWED):
            folder, base = posixpath.split(path)
            known = self._by_path.get(self._same.get(folder, folder))
            if known is None or base not in known.links:
                return path
            path = posixpath.normpath(posixpath.join(known.path, known.links[base]))
        return path

    def state(self, name: str, unit: Definition | None, settings: unitfile.Settings) -> State:
        """Enablement of a unit name.

        Args:
            name: one of :meth:`names`.
            unit: what :meth:`define` returned for it.
            settings: of the unit's file and drop-ins.
        """
        if unit is None:
            return "bad"
        if unit.masked:
            return "masked"
        if name != unit.name:
            return "alias"
        installed = set(unitfile.words(settings, "Install", "Alias")) | {name}
        if default := unitfile.last(settings, "Install", "DefaultInstance"):
            installed.add(name.replace("@.", f"@{default}."))
        by_links = self._state_by_links(unit, installed)
        if by_links:
            return by_links
        if self._state_by_links(unit, None):
            return "indirect"
        if any(
            unitfile.words(settings, "Install", key)
            for key in ("WantedBy", "RequiredBy", "UpheldBy", "Alias")
        ):
            return "disabled"
        return "indirect" if unitfile.words(settings, "Install", "Also") else "static"

    def _state_by_links(self, unit: Definition, known: set[str] | None) -> State | None:
        # A link counts that has the unit's name or leads to it, and whose own name systemctl
        # would have given it (or any name, when known is None).
        enabled: set[str] = set()
        linked = False
        candidates = self._by_name.get(unit.name, []) + self._by_target.get(unit.name, [])
        for link in candidates:
            leads_here = posixpath.basename(link.target) == unit.name
            named_so = link.name == unit.name and not self._is_below(link, unit)
            if leads_here and named_so and not link.folder:
                linked = linked or self.listings[link.directory].path == CONFIG
            elif (leads_here or named_so) and (known is None or link.name in known):
                enabled.add(self.listings[link.directory].path)
        if CONFIG in enabled:
            return "enabled"
        if enabled and unitfile.template_of(unit.name):
            return "static"
        return "linked" if linked else None

    def _is_below(self, link: _Link, unit: Definition) -> bool:
        # Directories after the one that holds the unit's file are overridden by it.
        folder = posixpath.dirname(unit.path)
        return any(
            self._same.get(folder, folder) == listing.path
            for listing in self.listings[: link.directory]
        )

    def wanted_by(self, name: str) -> tuple[str, ...]:
        """Units that pull a unit name in by a link in one of their folders, sorted."""
        decided: dict[str, bool] = {}
        for link in self._by_name.get(name, ()):
            if link.folder:  # in the order of the search path: a link to /dev/null ends the search
                decided.setdefault(link.folder, link.target != _NULL)
        return tuple(
            sorted({folder.rpartition(".")[0] for folder, real in decided.items() if real})
        )

    def dropins(self, name: str) -> list[str]:
        """Paths of a unit's drop-in files, in the order in which they apply."""
        paths: dict[str, str] = {}
        if not any(listing.dropins for listing in self.listings):
            return []
        for folder in unitfile.dropin_folders(name):
            for listing in self.listings:
                for base in listing.dropins.get(folder, ()):
                    paths.setdefault(base, f"{listing.path}/{folder}/{base}")
        return [paths[base] for base in sorted(paths)]


def _may_link(name: str, target: str) -> bool:
    # A link must not change the kind of a unit, nor lead from an instance to a plain unit.
    if not unitfile.is_unit_name(target) or unitfile.kind_of(name) != unitfile.kind_of(target):
        return False
    if unitfile.template_of(name):
        return "@" in target
    return unitfile.is_template(name) == unitfile.is_template(target)
