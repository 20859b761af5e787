"""Reference data: when releases of operating systems stop getting security fixes."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

from fleetscan.scanner.tables import load_all_tables
from fleetscan.scanner.tables.end_of_life.spec import ReleaseEnd

DATA = Path(__file__).parent / "end_of_life.csv"

COLUMNS = tuple(column.name for column in load_all_tables()["end_of_life"].columns)
"""Columns of the view, and of its file."""


def release_end(distro: str, release: str, eol: dt.date, source: str, taken: dt.date) -> ReleaseEnd:
    """A row, its values in the order of the columns."""
    return ReleaseEnd(distro=distro, release=release, eol=eol, source=source, taken=taken)


def load_end_of_life(path: Path = DATA) -> tuple[ReleaseEnd, ...]:
    """The reference data, in the order of its file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(
            release_end(
                row["distro"],
                row["release"],
                dt.date.fromisoformat(row["eol"]),
                row["source"],
                dt.date.fromisoformat(row["taken"]),
            )
            for row in csv.DictReader(stream)
        )
