"""Confinement of the programs that read hostile bytes on the host: QEMU and qemu-img."""

from __future__ import annotations

import enum


class WantedConfinement(enum.StrEnum):
    """How much confinement a user insists on. None of these switches a layer off.

    ``all`` refuses to scan unless every layer holds, ``least`` unless those do without which a
    QEMU that was taken over reaches the host; ``any`` scans with whatever holds.
    """

    ALL = "all"
    LEAST = "least"
    ANY = "any"
