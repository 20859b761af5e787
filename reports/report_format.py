"""What a report format is: how it is asked for, and how it writes a run's facts and results.

Each module of ``formats/`` has one, as ``FORMAT``, and is found by being there. The command line
imports all of them to list them, so what is slow to import is imported when a report is written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, ClassVar

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from fleetscan.reports.sections import Sections
    from fleetscan.reports.states import RuleText


@dataclass(frozen=True)
class CheckedRun:
    """What a report says, as a format gets it.

    Attributes:
        connection: one view for every fact table, holding the rows of one run.
        results: columns as in :data:`fleetscan.rules.results.SCHEMA`; None when no rule was
            evaluated, which the report then says.
        rules: texts of the rules.
        title: the report's heading.
        generated: when the report is made, with its time zone.
        sections: computes what depends on guests' values, and says what it could not.
    """

    connection: duckdb.DuckDBPyConnection
    results: pa.Table | None
    rules: Iterable[RuleText]
    title: str
    generated: datetime
    sections: Sections


class ReportFormat(ABC):
    """A format of one file.

    Attributes:
        name: what people call it, which is its module's name and its option's.
        help: what it is for, in one sentence, for ``fleetscan report --help``.
        suffix: of its files, as examples and mails name them.
        media_type: as IANA registers it.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    suffix: ClassVar[str]
    media_type: ClassVar[str]

    @abstractmethod
    def write(self, run: CheckedRun, stream: BinaryIO) -> None:
        """Write the report.

        Every text that a guest chose is escaped as the format asks.

        Raises:
            SectionLostError: a section cannot be computed; what was written so far is worth
                nothing, and the report is asked for again without it.
        """


class TextFormat(ReportFormat):
    """A format of text, in UTF-8."""

    @abstractmethod
    def pieces(self, run: CheckedRun) -> Iterator[str]:
        """The report in pieces; raises as :meth:`write` does."""

    def write(self, run: CheckedRun, stream: BinaryIO) -> None:
        """Write the report."""
        stream.writelines(piece.encode() for piece in self.pieces(run))
