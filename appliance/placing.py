"""Puts a new appliance in the place of this version's: whole, or not at all.

Processes that make one at once wait for each other, and a crash leaves no half appliance.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fleetscan.appliance import built
from fleetscan.appliance.cache import cache_directory, trusted
from fleetscan.appliance.host import writing

# Debian's own files, no secrets: a cache whose top directory lets others in is of use to them. What
# templates hold is only for their owner.
_PUBLIC_FILE = 0o644
_PUBLIC_DIRECTORY = 0o755


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Nobody else makes an appliance meanwhile.

    Raises:
        ApplianceError: others could write the cache.
    """
    place = cache_directory() / "appliance"
    with trusted(place):
        writing.make_directory(place)
    with writing.locked(place / "lock"):
        yield


@contextlib.contextmanager
def new_appliance() -> Iterator[Path]:
    """A directory to make an appliance in, which takes its place when the block ends well.

    The caller holds the lock. What a crash left is swept away.
    """
    place = cache_directory() / "appliance"
    for leftover in place.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".new-") as name:
        work = Path(name) / "appliance"
        work.mkdir(_PUBLIC_DIRECTORY)
        yield work
        _publish(work)
        _replace(work, built.directory())


def _publish(work: Path) -> None:
    """Give a finished appliance its modes: the unprivileged VMM reads the files."""
    for path in work.iterdir():
        path.chmod(_PUBLIC_FILE)
    work.chmod(_PUBLIC_DIRECTORY)


def _replace(work: Path, place: Path) -> None:
    if place.exists():
        place.rename(work.parent / "old")
    work.rename(place)
