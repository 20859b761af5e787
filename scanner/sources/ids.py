"""Machine ids: short enough to be stored, and each of only one machine.

What is in a scanned folder cannot take another machine's id. A machine that the user named keeps
its id, whatever is found. Of machines that folders' listings found under one id, none gets it: each
is called by its absolute path, so that nobody's facts are continued under somebody else's name.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.ground.schema import escape
from fleetscan.scanner.sources.base import Machine

log = logging.getLogger(__name__)

_LONGEST = 4096
"""Bytes of an id: what the store takes (`fleetscan.scanner.store.arrow.MAX_IDENTITY`)."""

_KEPT = 512  # characters that a longer one keeps of its beginning


def id_of(path: str) -> str:
    """A path as a machine's id: text that can be stored, and different for different paths."""
    text = escape(path)
    if len(text.encode()) <= _LONGEST:
        return text
    return f"{text[:_KEPT]}...{hashlib.sha256(text.encode()).hexdigest()}"


def distinct(machines: Sequence[Machine]) -> Iterator[Machine]:
    """The machines, in their order, with no id twice.

    Raises:
        UsageError: the user gave one id to two machines.
    """
    _check_named([machine for machine in machines if machine.place is None])
    count = Counter(machine.machine_id for machine in machines)
    taken = {
        machine.machine_id
        for machine in machines
        if machine.place is None or count[machine.machine_id] == 1
    }
    for machine in machines:
        if machine.place is None or count[machine.machine_id] == 1:
            yield machine
            continue
        machine_id = _free(id_of(machine.place), taken)
        taken.add(machine_id)
        log.warning("several machines are called %r: one is now %r", machine.machine_id, machine_id)
        yield replace(machine, machine_id=machine_id)


def _free(machine_id: str, taken: set[str]) -> str:
    others = (f"{machine_id} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain([machine_id], others) if name not in taken)


def _check_named(machines: Sequence[Machine]) -> None:
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
                hint="leave one out with --exclude, or give them ids in one inventory file",
            )
