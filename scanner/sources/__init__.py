"""Sources: what a user names on the command line, turned into machines.

Each kind of source is a module of ``kinds/``, as :mod:`fleetscan.scanner.sources.source_kind`
describes it. Nothing here opens an image for more than its header; whether a disk can be read is
preflight's to say.

What the user names is configuration: an inventory may name any disk, and keys. What is in a
folder is input: nothing there names a key, a command, or a file outside of the folder, and what is
wrong with it is an error of the machine that it is about.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.sources import ids
from fleetscan.scanner.sources.base import Machine, SourceOptions
from fleetscan.scanner.sources.kinds import load_kinds
from fleetscan.scanner.sources.source_kind import SourceKind

__all__ = ["Machine", "SourceOptions", "absolute", "find_machines"]

log = logging.getLogger(__name__)

_DEFAULTS = SourceOptions()


def find_machines(sources: Sequence[str], options: SourceOptions = _DEFAULTS) -> list[Machine]:
    """All machines of the sources, in the sources' order, each source's sorted by its ids.

    Args:
        sources: what the user named, of any kind.
        options: how they are read.

    Raises:
        UsageError: what the user named does not exist, is malformed, or is named twice.
    """
    _check_repeated(sources)
    machines = [one for source in sources for one in _kind_of(source).machines(source, options)]
    return list(ids.distinct(list(_selected(machines, options))))


def absolute(source: str) -> str:
    """A source as it is named from any working directory, whether it exists or not."""
    kind = _accepting(source)
    return kind.absolute(source) if kind else str(Path(source).absolute())


def _kind_of(source: str) -> SourceKind:
    kind = _accepting(source)
    if kind is None:
        forms = ", ".join(kind.form for kind in load_kinds())
        raise UsageError(f"source {source!r} does not exist", hint=f"give {forms}")
    return kind


def _accepting(source: str) -> SourceKind | None:
    return next((kind for kind in load_kinds() if kind.accepts(source)), None)


def _check_repeated(sources: Iterable[str]) -> None:
    seen: set[str] = set()
    for source in sources:
        kind = _accepting(source)
        identity = kind.identity(source) if kind else os.path.realpath(source)
        if identity in seen:
            raise UsageError(f"source {source!r} is given twice", hint="give it only once")
        seen.add(identity)


def _selected(machines: Iterable[Machine], options: SourceOptions) -> Iterator[Machine]:
    for machine in machines:
        if options.wants(machine.machine_id):
            yield machine
        else:
            log.debug("left out by --include or --exclude: %s", machine.machine_id)
