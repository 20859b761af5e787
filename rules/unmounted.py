"""What of a root's tree was not mounted, for tables that are made by walking all of its files.

``files`` and ``directory_usage`` describe the machine's own disks, and their coverage says whether
these were seen. What the system mounts besides is not among their rows: a share of another
machine, or a filesystem that may be absent. A rule that looks below such a mountpoint has not
seen what it asks about. So every mountpoint without its filesystem becomes a problem of these
tables (see rules.subjects), of one of three parts:

* ``share``: a network filesystem. Rules whose ``own_disks`` name the table leave it to its server;
* ``by_hand``: removable media, and what ``noauto`` leaves to people. The tree is whole without it,
  so it concerns only rules that name a directory it may be below;
* ``own``: all else, such as a missing disk whose entry says ``nofail``.

Symbolic links lead there as well: where ``/home`` is a link to ``/srv/home``, and ``/srv`` is
missing, nothing below ``/home`` was seen. The links are rows of ``files``. Bind mounts
count as links do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import duckdb

from fleetscan.appliance.ground.mounts import FstabEntry
from fleetscan.appliance.host import child
from fleetscan.scanner.tables import load_tables

WALKED = frozenset(
    name
    for name, table in load_tables().items()
    if table.walks or (table.derived_from and load_tables()[table.derived_from].walks)
)
"""Tables made by walking the tree. Other collectors compare each path that they look up."""

_MOST_MOUNTS = 100
_MOST_LINKS = 2000
_MOST_PLACES = 1000
"""Limits for one root; beyond them anything may be missing, and its rules are unknown."""

_ALL = "/"
_ROUNDS = 8  # links that lead to links; where there are more, anything may be missing
_LONGEST = 4096  # PATH_MAX: no honest row has more

Part = Literal["table", "share", "by_hand", "own"]
Subject = tuple[str, str]
"""A machine and a root."""


class LostDirectory(NamedTuple):
    """A directory below which nothing was seen.

    Attributes:
        part: why; ``table`` when coverage says so.
        key: tells apart the problems of one table.
        prefix: the directory, with a slash at its end.
    """

    part: Part
    key: str
    prefix: str


_MOUNTS = """
SELECT machine_id, root, min({
    'path': left(path, $longest), 'source': left(source, $longest), 'type': left(type, 64),
    'options': list_transform(options[:64], lambda one: left(one, 64)), 'error': left(error, 256)
}, $most) AS mounts
FROM mountpoints
WHERE NOT mounted AND error IS NOT NULL AND path <> 'swap'
GROUP BY machine_id, root
"""

# A table that the user left out, that does not apply or failed for good has a problem already.
_ADD_PROBLEMS = """
INSERT INTO _problems
SELECT m.machine_id, m.root, t.table_name, 0 AS rank, 'unknown' AS state,
    t.table_name || ': ' || m.message AS message, false AS lenient, [m.prefix] AS unread,
    m.part, m.key
FROM (SELECT unnest($mounts::STRUCT(
    machine_id VARCHAR, root VARCHAR, part VARCHAR, key VARCHAR, prefix VARCHAR, message VARCHAR
)[], recursive := true)) m
JOIN _tables t ON list_contains($walked, t.table_name)
JOIN coverage c ON c.machine_id = m.machine_id AND c.root = m.root AND c.table_name = t.table_name
WHERE c.status <> 'not_applicable'
"""


def add_problems(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the mountpoints without their filesystems to the temporary table ``_problems``."""
    rows = connection.execute(_MOUNTS, {"longest": _LONGEST, "most": _MOST_MOUNTS + 1})
    mounts = [
        {"machine_id": machine_id, "root": root, **mount}
        for machine_id, root, found in rows.fetchall()
        for mount in _mounts(found)
    ]
    if mounts:
        connection.execute(_ADD_PROBLEMS, {"mounts": mounts, "walked": sorted(WALKED)})


def _mounts(rows: Sequence[Mapping[str, object]]) -> Iterator[dict[str, str]]:
    """What a root's mountpoints without their filesystems mean for rules."""
    if len(rows) > _MOST_MOUNTS:
        message = f"more than {_MOST_MOUNTS} filesystems are not mounted"
        yield {"part": "own", "key": "", "prefix": "/", "message": message}
        return
    for row in rows:
        prefix = _directory(str(row["path"]))
        message = f"not mounted: {row['path']} ({row['error']})"
        yield {"part": part_of(row), "key": prefix, "prefix": prefix, "message": message}


def part_of(row: Mapping[str, object]) -> Part:
    """What a row of ``mountpoints`` that is not mounted is part of."""
    options = row["options"]
    entry = FstabEntry(
        source=str(row["source"] or ""),
        path=str(row["path"]),
        type=str(row["type"] or ""),
        options=tuple(map(str, options)) if isinstance(options, list) else (),
        check_pass=0,
    )
    # systemd mounts this as soon as anybody looks there, systemd.mount(5).
    automatic = any(option.startswith("x-systemd.automount") for option in entry.options)
    if "noauto" in entry.options and not automatic:
        return "by_hand"
    if entry.kind == "network":
        return "share"
    removable = entry.is_remote and "_netdev" not in entry.options
    return "by_hand" if removable else "own"


def _directory(path: str) -> str:
    """A path as a prefix, without dots and double slashes."""
    return posixpath.normpath(f"/{path.lstrip('/')}").rstrip("/") + "/"


# -- Links ----------------------------------------------------------------------------------------

_UNREAD = """
CREATE TEMP TABLE _unread AS
SELECT DISTINCT machine_id, root, table_name, part, key,
    CASE WHEN table_name = 'directory_usage' AND part <> 'table' THEN '/' ELSE file END AS file
FROM (SELECT *, unnest(unread) AS file FROM _problems)
"""
# What a directory holds in all is short where anything below it is.

_ADD_UNREAD = """
INSERT INTO _unread
SELECT machine_id, root, 'files', part, key, prefix FROM (SELECT unnest($rows::STRUCT(
    machine_id VARCHAR, root VARCHAR, part VARCHAR, key VARCHAR, prefix VARCHAR
)[], recursive := true))
"""

_FRONTIER = """
CREATE OR REPLACE TEMP TABLE _frontier AS SELECT unnest($frontier::STRUCT(
    machine_id VARCHAR, root VARCHAR, ends VARCHAR[], parts VARCHAR[], ways VARCHAR[]
)[], recursive := true)
"""

# Links that may lead into a prefix, or to a directory above it, or that lie on the way to it. A
# directory that is shown at a second place is like a link there.
_LINKS = """
SELECT f.machine_id, f.root, min({'path': f.path, 'target': f.target}, $most) AS links
FROM (
    SELECT machine_id, root, path, target FROM files WHERE type = 'symlink'
    UNION ALL
    SELECT machine_id, root, rtrim(path, '/'), source FROM mountpoints
    WHERE list_has_any(options, ['bind', 'rbind']) AND starts_with(source, '/')
) f JOIN _frontier w ON w.machine_id = f.machine_id AND w.root = f.root
WHERE strlen(f.path) < $longest AND strlen(f.target) < $longest AND (
    list_contains(w.ways, f.path)
    OR list_contains(w.parts, split_part(rtrim(f.target, '/'), '/', -1))
    OR len(list_filter(w.ends, lambda one: contains(f.path || '/' || f.target, one))) > 0
)
GROUP BY f.machine_id, f.root
"""


def follow_links(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary table ``_unread``: what ``_problems`` name, and what links lead there."""
    connection.execute(_UNREAD)
    rows = connection.execute(
        "SELECT machine_id, root, part, key, file FROM _unread "
        "WHERE table_name = 'files' AND ends_with(file, '/') AND file <> '/'"
    )
    known: dict[Subject, set[LostDirectory]] = {}
    for machine_id, root, *lost in rows.fetchall():
        known.setdefault((machine_id, root), set()).add(LostDirectory(*lost))
    frontier = {subject: set(lost) for subject, lost in known.items()}
    for _ in range(_ROUNDS):
        if not frontier:
            return
        child.note("following the links of files")
        found = {
            subject: _led(frontier[subject], links)
            for subject, links in _links(connection, frontier)
        }
        frontier = {subject: led - known[subject] for subject, led in found.items()}
        for subject, new in frontier.items():
            known[subject] |= new
        frontier = _tracked(connection, known, {s: new for s, new in frontier.items() if new})
    _note(connection, {subject: _anything(known[subject]) for subject in frontier})


def _tracked(
    connection: duckdb.DuckDBPyConnection,
    known: Mapping[Subject, Collection[LostDirectory]],
    new: Mapping[Subject, set[LostDirectory]],
) -> dict[Subject, set[LostDirectory]]:
    """Note what was found; return it without the roots of which too much was."""
    many = {
        s
        for s, lost in new.items()
        if len(known[s]) > _MOST_PLACES or _ALL in {one.prefix for one in lost}
    }
    _note(connection, {s: _anything(known[s]) if s in many else lost for s, lost in new.items()})
    return {subject: lost for subject, lost in new.items() if subject not in many}


def _anything(lost: Iterable[LostDirectory]) -> set[LostDirectory]:
    return {one._replace(prefix=_ALL) for one in lost}


def _note(
    connection: duckdb.DuckDBPyConnection, new: Mapping[Subject, Collection[LostDirectory]]
) -> None:
    rows = [
        {"machine_id": machine_id, "root": root, **one._asdict()}
        for (machine_id, root), lost in new.items()
        for one in lost
    ]
    if rows:
        connection.execute(_ADD_UNREAD, {"rows": rows})


def _links(
    connection: duckdb.DuckDBPyConnection, frontier: Mapping[Subject, Collection[LostDirectory]]
) -> Iterator[tuple[Subject, list[tuple[str, str]]]]:
    """Links of each root that may lead to what was not seen: their paths and targets."""
    sought = [
        {"machine_id": machine_id, "root": root, **_sought({one.prefix for one in lost})}
        for (machine_id, root), lost in frontier.items()
    ]
    connection.execute(_FRONTIER, {"frontier": sought})
    rows = connection.execute(_LINKS, {"most": _MOST_LINKS + 1, "longest": _LONGEST})
    for machine_id, root, found in rows.fetchall():
        yield (machine_id, root), [(link["path"], link["target"]) for link in found]


def _sought(prefixes: Iterable[str]) -> dict[str, list[str]]:
    """What tells the links that matter: see ``_LINKS``."""
    ends: set[str] = set()
    ways: set[str] = set()
    parts = {"", ".", ".."}
    for prefix in prefixes:
        names = prefix.strip("/").split("/")
        ends.add(names[-1])
        parts.update(names)
        ways.update("/" + "/".join(names[:count]) for count in range(1, len(names) + 1))
    return {"ends": sorted(ends), "parts": sorted(parts), "ways": sorted(ways)}


def _led(lost: Collection[LostDirectory], links: Sequence[tuple[str, str]]) -> set[LostDirectory]:
    """What is not seen through some links, where some directories are not."""
    if len(links) > _MOST_LINKS:
        return _anything(lost)
    found = set()
    for path, target in links:
        place = _directory(posixpath.join(posixpath.dirname(path), target))
        for part, key, prefix in lost:
            if place.startswith(prefix):  # it leads there
                found.add(LostDirectory(part, key, f"{path}/"))
            elif prefix.startswith(place):  # it leads to a directory above that
                found.add(LostDirectory(part, key, f"{path}/{prefix.removeprefix(place)}"))
            elif prefix.startswith(f"{path}/"):  # the mountpoint's own path goes through it
                found.add(LostDirectory(part, key, place + prefix.removeprefix(f"{path}/")))
    return found
