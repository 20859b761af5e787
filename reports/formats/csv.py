"""One row a result, for spreadsheets and for programs that read tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from fleetscan.reports.report_format import CheckedRun, TextFormat

_SECTION = "results"
_ROWS_A_SIGN = 10_000  # rows after which the section is named again, as a sign of life
_CHARACTERS = 32_000  # of one cell; Excel takes 32,767 and a few are spent on escaping
_STARTS_FORMULA = ("=", "+", "-", "@")


class Csv(TextFormat):
    """The results as CSV (RFC 4180), with the columns of the results' Parquet file and a header.

    Text that a spreadsheet would take for a formula, which a guest may have chosen, begins with an
    apostrophe (OWASP, "CSV Injection"). Characters that are invisible or control terminals are
    spelled out, so each result is one line. Offending rows are JSON, one after the other. A run
    that was not checked has the header alone.
    """

    name = "csv"
    help = "Write results as a table, one row each, without formulas; - prints it."
    suffix = ".csv"
    media_type = "text/csv"

    def pieces(self, run: CheckedRun) -> Iterator[str]:
        """The report in pieces, one a line."""
        from fleetscan.reports.report_database import RESULTS, attached
        from fleetscan.reports.sections import SectionLostError, why
        from fleetscan.rules.results import SCHEMA

        order = "machine_id, root NULLS FIRST, pack, rule_id"
        sql = f"SELECT {', '.join(SCHEMA.names)} FROM {RESULTS} ORDER BY {order}"  # noqa: S608 - our own names
        yield _line(SCHEMA.names)
        try:
            with attached(run.connection, run.results) as database:
                for number, row in enumerate(database.dicts(sql)):
                    if number % _ROWS_A_SIGN == 0:
                        run.sections.starting(_SECTION)
                    yield _line(map(_cell, row.values()))
        except Exception as error:
            raise SectionLostError(_SECTION, why(error)) from error


def _line(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow(cells)
    return stream.getvalue()


def _cell(value: Any) -> str:  # Any: whatever SQL gives
    """A value as a cell that is what it looks like.

    >>> _cell("=cmd|' /C calc'!A0"), _cell(-1), _cell(None)
    ("'=cmd|' /C calc'!A0", '-1', '')
    """
    from fleetscan.reports.text import visible

    if value is None:
        return ""
    if isinstance(value, list):
        value = " ".join(value)
    if not isinstance(value, str):
        return str(value)
    text = visible(value, _CHARACTERS)
    return f"'{text}" if text.lstrip().startswith(_STARTS_FORMULA) else text


FORMAT = Csv()
