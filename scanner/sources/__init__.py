"""Sources: what a user names on the command line, turned into machines.

A source is a folder (:mod:`scanner.sources.folder`), one image file, OVA archive
(:mod:`scanner.sources.archive`) or block device, or an inventory file
(:mod:`scanner.sources.inventory`; ``.yaml``, ``.yml``, ``.json`` or ``.csv``).
Nothing here opens an image for more than its header; whether a disk can be read is preflight's
to say.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scanner.errors import UsageError
from scanner.sources.base import Disk, Machine

__all__ = ["Disk", "Machine", "find_machines"]

log = logging.getLogger(__name__)

_INVENTORY_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".csv"})


def find_machines(
    sources: Sequence[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Machine]:
    """All machines of the sources, in the sources' order, each source's sorted by its ids.

    Args:
        sources: folders, image files, block devices and inventory files.
        include: shell patterns; when there are any, only machines whose id matches one are kept.
        exclude: shell patterns; machines whose id matches one are left out.

    Raises:
        UsageError: a source does not exist or is malformed, or two machines have the same id.
    """
    machines = [machine for source in sources for machine in _source_machines(source)]
    machines = list(_selected(machines, include, exclude))
    _check_unique(machines)
    return machines


def _source_machines(source: str) -> list[Machine]:
    path = Path(source)
    try:
        there = path.exists()
    except OSError as error:
        raise UsageError(f"source {source!r} cannot be read: {error.strerror}") from error
    if not there:
        raise UsageError(
            f"source {source!r} does not exist",
            hint="name a folder of images, an image file, a block device or an inventory file",
        )
    # All imported here: preflight, which folders and archives need, itself names disks; and
    # pydantic, which inventories need, takes a fifth of a second to load.
    if path.is_dir():
        from scanner.sources.folder import folder_machines

        return folder_machines(source)
    if path.suffix.lower() in _INVENTORY_SUFFIXES:
        from scanner.sources.inventory import inventory_machines

        return inventory_machines(source)
    from scanner.sources.archive import machine_of

    return [machine_of(path.name, (Disk(str(path.absolute())),), source)]


def _selected(
    machines: Iterable[Machine], include: Sequence[str], exclude: Sequence[str]
) -> Iterator[Machine]:
    for machine in machines:
        if include and not _matches(machine.machine_id, include):
            log.debug("left out, matched by no --include: %s", machine.machine_id)
        elif _matches(machine.machine_id, exclude):
            log.debug("left out by --exclude: %s", machine.machine_id)
        else:
            yield machine


def _matches(machine_id: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(machine_id, pattern) for pattern in patterns)


def _check_unique(machines: Iterable[Machine]) -> None:
    seen: dict[str, Machine] = {}
    for machine in machines:
        other = seen.setdefault(machine.machine_id, machine)
        if other is not machine:
            where = (
                f"twice in {machine.source!r}"
                if other.source == machine.source
                else f"in both {other.source!r} and {machine.source!r}"
            )
            raise UsageError(
                f"two machines have the id {machine.machine_id!r}, {where}",
                hint="scan a folder that holds both sources, leave one out with --exclude, "
                "or give them ids in an inventory file",
            )
