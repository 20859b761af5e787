"""Sources: what a user names on the command line, turned into machines.

A source is a folder (:mod:`fleetscan.scanner.sources.folder`), one image file, OVA archive
(:mod:`fleetscan.scanner.sources.archive`) or block device, or an inventory file
(:mod:`fleetscan.scanner.sources.inventory`; ``.yaml``, ``.yml``, ``.json`` or ``.csv``).
Nothing here opens an image for more than its header; whether a disk can be read is preflight's
to say.

What the user names is configuration: an inventory may name any disk, and keys. What lies in a
folder is input: nothing there names a key, a command, or a file outside of the folder, and what is
wrong with it is an error of the machine that it is about.
"""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.sources import ids
from fleetscan.scanner.sources.base import Disk, Machine, SourceOptions

__all__ = ["Disk", "Machine", "SourceOptions", "find_machines"]

log = logging.getLogger(__name__)

_INVENTORY_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".csv"})
_DEFAULTS = SourceOptions()


def find_machines(sources: Sequence[str], options: SourceOptions = _DEFAULTS) -> list[Machine]:
    """All machines of the sources, in the sources' order, each source's sorted by its ids.

    Args:
        sources: folders, image files, block devices and inventory files.
        options: how they are read.

    Raises:
        UsageError: what the user named does not exist, is malformed, or is named twice.
    """
    _check_repeated(sources)
    machines = [machine for source in sources for machine in _source_machines(source, options)]
    return list(ids.distinct(list(_selected(machines, options))))


def _check_repeated(sources: Sequence[str]) -> None:
    seen: set[str] = set()
    for source in sources:
        real = os.path.realpath(source)
        if real in seen:
            raise UsageError(f"source {source!r} is given twice", hint="give it only once")
        seen.add(real)


def _source_machines(source: str, options: SourceOptions) -> list[Machine]:
    path = Path(source)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"source {source!r} cannot be read: {error}") from error
    if not there:
        raise UsageError(
            f"source {source!r} does not exist",
            hint="give a folder of images, an image file, a block device or an inventory file",
        )
    # All imported here: preflight, which folders and archives need, itself names disks; and
    # pydantic, which inventories need, takes a fifth of a second to load.
    if path.is_dir():
        from fleetscan.scanner.sources.folder import folder_machines

        return folder_machines(source, options, lambda machine_id: _wanted(machine_id, options))
    if path.suffix.lower() in _INVENTORY_SUFFIXES:
        from fleetscan.scanner.sources.inventory import inventory_machines

        return inventory_machines(source, key_commands=options.key_commands)
    from fleetscan.scanner.sources.archive import machine_of

    return [machine_of(path.name, (Disk(str(path.absolute())),), source)]


def _selected(machines: Iterable[Machine], options: SourceOptions) -> Iterator[Machine]:
    for machine in machines:
        if _wanted(machine.machine_id, options):
            yield machine
        else:
            log.debug("left out by --include or --exclude: %s", machine.machine_id)


def _wanted(machine_id: str, options: SourceOptions) -> bool:
    included = not options.include or _matches(machine_id, options.include)
    return included and not _matches(machine_id, options.exclude)


def _matches(machine_id: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(machine_id, pattern) for pattern in patterns)
