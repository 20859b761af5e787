"""Reference data: when releases of distributions stop getting security fixes."""

from __future__ import annotations

import csv
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data" / "end_of_life.csv"


@dataclass(frozen=True)
class Release:
    """One row of the end_of_life view.

    Attributes:
        distro: as operating_systems.distro.
        release: the version, or what it begins with up to a dot.
        eol: last day of security support that needs no extra contract.
        source: who says so.
    """

    distro: str
    release: str
    eol: dt.date
    source: str


def load_end_of_life(path: Path = DATA) -> tuple[Release, ...]:
    """The reference data, in the order of its file."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        return tuple(
            Release(row["distro"], row["release"], dt.date.fromisoformat(row["eol"]), row["source"])
            for row in rows
        )


def as_of(path: Path = DATA) -> dt.date:
    """The day that the reference data describes."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return dt.date.fromisoformat(first.removeprefix("# as of ").strip())
