"""Services, from systemd's unit directories and SysV scripts.

Shared with ``scheduled_tasks``, ``config`` and ``mountpoints``: timers and mounts are units.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.services import systemd, sysv, unitfile, windows
from fleetscan.scanner.tables.services.spec import Service

SCRIPT_FOLDERS = ("/etc/init.d", "/etc/rc.d/init.d")
RUN_LEVEL_FOLDERS = ("/etc/rc{}.d", "/etc/rc.d/rc{}.d", "/etc/init.d/rc{}.d")
"""Where Debian, Red Hat and SUSE keep a run level's links."""

LIMIT = 1 << 20
"""Largest unit file or script that is read, in bytes; systemd's own limit for a line."""


def collect(root: Root) -> Iterator[Service]:
    """One row a unit name, then one a SysV script; or one a Windows service.

    Raises:
        NotApplicable: the root has neither.
        IncompleteError: a file could not be read; raised after all rows.
    """
    if root.windows:
        yield from windows.collect(root)
        return
    reader = Reader(root, LIMIT)
    tree = root.once(read_units)
    names = tree.names()
    yield from _units(reader, tree, names)
    has_scripts = False
    for row in _scripts(reader, {name.rpartition(".")[0] for name in names}):
        has_scripts = True
        yield row
    if not tree.listings and not has_scripts:
        raise NotApplicable("neither systemd units nor SysV scripts")
    reader.finish()


def read_units(root: Root) -> systemd.UnitTree:
    """List all unit directories of a root.

    Raises:
        OSError: one cannot be read.
    """
    listings: dict[tuple[int, int], systemd.UnitListing] = {}
    same: dict[str, str] = {}
    for path in systemd.SEARCH_PATH:
        if not root.is_dir(path):
            continue
        status = root.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in listings:  # /lib is a link to /usr/lib
            same[path] = listings[identity].path
        else:
            listings[identity] = _listing(root, path)
    return systemd.UnitTree(listings.values(), same)


def _listing(root: Root, path: str) -> systemd.UnitListing:
    files, links, folders = _entries(root, path)
    pulls, dropins = {}, {}
    for folder in folders:
        if folder.endswith(systemd.PULLS):
            pulls[folder] = _entries(root, f"{path}/{folder}")[1]
        elif folder.endswith(".d"):
            names = root.listdir(f"{path}/{folder}")
            dropins[folder] = tuple(name for name in names if name.endswith(".conf"))
    return systemd.UnitListing(path, files, links, pulls, dropins)


def _entries(root: Root, path: str) -> tuple[dict[str, int], dict[str, str], list[str]]:
    files, links, folders = {}, {}, []
    fd = root.open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links[entry.name] = os.readlink(entry.name, dir_fd=fd)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files[entry.name] = entry.stat(follow_symlinks=False).st_size
    finally:
        os.close(fd)
    return files, links, sorted(folders)


def _units(reader: Reader, tree: systemd.UnitTree, names: list[str]) -> Iterator[Service]:
    units = {name: define(reader.root, tree, name) for name in names}
    aliases: dict[str, list[str]] = {}
    for name, unit in units.items():
        if unit and unit.name != name:
            aliases.setdefault(unit.name, []).append(name)
    for name, unit in units.items():
        settings: unitfile.Settings = {}
        if unit and not unit.masked:
            for path in (unit.path, *tree.dropins(unit.name)):
                unitfile.parse(_text(reader, path, name), settings)
        yield Service(
            name=name,
            manager="systemd",
            kind=unitfile.kind_of(name),
            state=tree.state(name, unit, settings),
            path=unit.path if unit else tree.path_of(name),
            description=unitfile.last(settings, "Unit", "Description"),
            command=unitfile.command(settings),
            run_as=unitfile.run_as(unit.name if unit else name, settings),
            wanted_by=tree.wanted_by(name),
            aliases=tuple(aliases.get(name, ())),
        )


def define(root: Root, tree: systemd.UnitTree, name: str) -> systemd.Definition | None:
    """Where a unit name leads, as the tree says; also None when that file does not exist."""
    unit = tree.define(name)
    return None if unit and tree.is_outside(unit.path) and not root.is_file(unit.path) else unit


def _scripts(reader: Reader, unit_names: set[str]) -> Iterator[Service]:
    root = reader.root
    folder = next(filter(root.is_dir, SCRIPT_FOLDERS), None)
    if folder is None:
        return
    starts: dict[str, set[str]] = {}
    linked: set[str] = set()
    for level in sysv.RUN_LEVELS:
        starts[level], both = sysv.parse_links(_run_level(root, level))
        linked |= both
    for path in root.glob(folder):
        if path.rpartition("/")[2] not in unit_names and root.is_file(path):
            row = sysv.service(path, reader.text(path, path) or "", starts, linked)
            if row:
                yield row


def _run_level(root: Root, level: str) -> list[str]:
    folders = (pattern.format(level) for pattern in RUN_LEVEL_FOLDERS)
    return root.listdir(next(filter(root.is_dir, folders), ""))


def _text(reader: Reader, path: str, name: str) -> str:
    """A unit's file; beside it goes unread what has the row's name, an alias of it perhaps."""
    return reader.text(path, path, f"{posixpath.dirname(path)}/{name}") or ""
