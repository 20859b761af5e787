"""Snaps, as snapd's state lists them; only the snaps hold their versions.

Format: snapd, overlord/snapstate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.spec import Package

STATE = "/var/lib/snapd/state.json"


def is_present(root: Root) -> bool:
    """Whether the root has a state of snapd's."""
    return root.is_file(STATE)


def collect(root: Root, _: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a snap; arguments as of every reader here."""
    try:
        state = json.loads(root.read_bytes(STATE))
        snaps = state["data"].get("snaps", {}).items()
    except OSError as error:
        problems.note(f"{STATE}: {reason(error)}")
        return
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problems.note(f"{STATE}: damaged: {type(error).__name__}")
        return
    for name, snap in snaps:
        if isinstance(snap, dict) and isinstance(snap.get("current"), str | int):
            yield from_state(name, snap)
        else:
            problems.note(f"{STATE}: {name} has no revision")


def from_state(name: str, snap: dict[str, object]) -> Package:
    """The row for a snap that has a current revision."""
    revision, channel = str(snap["current"]), snap.get("channel")
    kind = snap.get("type")
    return Package(
        manager="snap",
        name=name,
        version="",
        purl=purl("generic", name, "", "snap", revision=revision),
        upstream_version="",
        release=revision or None,
        vendor=channel or None if isinstance(channel, str) else None,
        section=kind or None if isinstance(kind, str) else None,
    )
