"""Volumes, as the agent opened them or found them closed.

No cases: it describes block devices, which a directory tree has none of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.machine import GuestMachine, need_disks
from fleetscan.scanner.tables.volumes.spec import VolumeRow


def collect(machine: GuestMachine) -> Iterator[VolumeRow]:
    """One row a volume.

    Raises:
        IncompleteError: some could not be opened; their rows are yielded before.
    """
    problems = Problems()
    for volume in need_disks(machine).volumes:
        yield VolumeRow(**dataclasses.asdict(volume))
        if volume.error:
            problems.note(f"{volume.name}: {volume.error}")
    problems.finish()
