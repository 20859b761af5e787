"""Reference data: when releases of operating systems stop getting security fixes."""

from __future__ import annotations

import csv
import datetime as dt
from dataclasses import dataclass, fields
from pathlib import Path

DATA = Path(__file__).parent / "data" / "end_of_life.csv"


@dataclass(frozen=True)
class ReleaseEnd:
    """One row of the end_of_life view.

    Attributes:
        distro: as operating_systems.distro; for Windows its edition, as in the README.
        release: the version, or what it begins with up to a dot.
        eol: last day of security support that needs no extra contract.
        source: who says so.
        taken: the day of the copy of the source that was read.
    """

    distro: str
    release: str
    eol: dt.date
    source: str
    taken: dt.date


COLUMNS = tuple(item.name for item in fields(ReleaseEnd))
"""Columns of the view, and of its file."""


def load_end_of_life(path: Path = DATA) -> tuple[ReleaseEnd, ...]:
    """The reference data, in the order of its file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(
            ReleaseEnd(
                row["distro"],
                row["release"],
                dt.date.fromisoformat(row["eol"]),
                row["source"],
                dt.date.fromisoformat(row["taken"]),
            )
            for row in csv.DictReader(stream)
        )
