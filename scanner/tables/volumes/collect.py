"""Volumes, as the agent opened them or found them closed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fleetscan.appliance.guest.machine import GuestMachine, need_disks
from fleetscan.scanner.tables.volumes.spec import Volume


def collect(machine: GuestMachine) -> Iterator[Volume]:
    """One row a volume.

    Raises:
        OSError: some could not be opened; their rows are yielded before.
    """
    closed = []
    for volume in need_disks(machine).volumes:
        yield Volume(**dataclasses.asdict(volume))
        if volume.error:
            closed.append(f"{volume.name}: {volume.error}")
    if closed:
        raise OSError("; ".join(closed))
