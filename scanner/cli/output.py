"""How commands print: results to standard output, everything else to standard error.

Text that came from guests, images or inventories never reaches a terminal raw: it passes
:func:`fleetscan.appliance.host.printable.printable`, is escaped by JSON, or is written as CSV to a
file.
"""

from __future__ import annotations

import csv
import datetime as dt
import enum
import json
import logging
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fleetscan.appliance.host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

_CELL = 200
"""Longest cell of a text table, in characters."""

_LINE = 2000
"""Longest line of a log or an error, in characters."""


class Output(enum.StrEnum):
    """Output of commands that report."""

    TEXT = "text"
    JSON = "json"


class _State:
    """What -v and the first need for a console set, for the rest of the process."""

    verbose = 0
    console: Console | None = None


def stderr() -> Console:
    """The console on standard error, which logs and progress share."""
    from rich.console import Console

    if _State.console is None:
        _State.console = Console(stderr=True, highlight=False)
    return _State.console


def configure(verbose: int) -> int:
    """Set up logging: warnings, with -v what happens, with -vv everything."""
    _State.verbose = verbose
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    root = logging.getLogger()
    root.handlers = [_StderrHandler()]
    root.setLevel(logging.WARNING)  # of libraries, only warnings
    for name in (
        "fleetscan.scanner",
        "fleetscan.appliance",
        "fleetscan.rules",
        "fleetscan.reports",
    ):
        logging.getLogger(name).setLevel(level)
    return verbose


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message(f"fleetscan: {record.levelname.lower()}: {self.format(record)}")


def message(text: str) -> None:
    """Print lines to standard error, above a progress display if there is one."""
    from rich.text import Text

    for line in text.splitlines():
        stderr().print(Text(printable(line, _LINE)), soft_wrap=True)


def error(problem: BaseException | str, hint: str = "") -> None:
    """Tell of an error in one line and its hint in another; with -v how it came about."""
    first, *others = str(problem).splitlines() or [type(problem).__name__]
    message("\n".join([f"fleetscan: {first}", *(f"  {other}" for other in others)]))
    if hint:
        message(f"hint: {hint}")
    if isinstance(problem, BaseException):
        trace(problem)


def trace(problem: BaseException) -> None:
    """With -v, show how an error came about."""
    if _State.verbose:
        message("".join(traceback.format_exception(problem)))


def line(text: str = "") -> None:
    """Print one line of a result."""
    sys.stdout.write(printable(text, _LINE) + "\n")


def heading(text: str) -> None:
    """Begin a part of a result."""
    line()
    line(text)


def paragraph(text: str, indent: str = "") -> None:
    """Print text in lines that fit a terminal."""
    for part in textwrap.wrap(text, 78, initial_indent=indent, subsequent_indent=indent):
        line(part)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "") -> None:
    """Print rows in aligned columns; numbers to the right."""
    cells = [[_shown(value) for value in row] for row in rows]
    numeric = [_is_numeric(cells, index) for index in range(len(header))]
    widths = [
        max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(header)
    ]
    for row in [list(header), ["-" * width for width in widths], *cells]:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        sys.stdout.write((indent + "  ".join(padded)).rstrip() + "\n")


def _is_numeric(cells: Sequence[Sequence[str]], index: int) -> bool:
    values = [row[index] for row in cells if row[index]]
    return bool(values) and all(value.replace(".", "", 1).isdigit() for value in values)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return printable(", ".join(map(str, value)), _CELL)
    if isinstance(value, dt.datetime):
        return isoformat(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value), _CELL)


def isoformat(value: dt.datetime) -> str:
    """A time as ISO 8601, UTC.

    >>> isoformat(dt.datetime(2026, 1, 31, 2, 3, 4, tzinfo=dt.UTC))
    '2026-01-31T02:03:04Z'
    """
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def json_text(value: object) -> str:
    """A value as JSON in ASCII, so that no terminal and no parser stumbles over it."""
    return json.dumps(value, default=_jsonable, separators=(",", ":"))


def _jsonable(value: object) -> object:
    if isinstance(value, dt.datetime):
        return isoformat(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def json_object(value: object) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, default=_jsonable, indent=2) + "\n")


def json_array(rows: Iterable[object]) -> None:
    """Print a JSON array, a row a line, without ever holding all of it."""
    for piece in json_array_pieces(rows):
        sys.stdout.write(piece)
    sys.stdout.write("\n")


def json_array_pieces(rows: Iterable[object]) -> Iterator[str]:
    """A JSON array as pieces of text."""
    yield "["
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}\n{json_text(row)}"
    yield "\n]"


def csv_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print CSV that a spreadsheet takes for data, never for formulas."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in header])
    for row in rows:
        writer.writerow([_csv_cell(value) for value in row])


def _csv_cell(value: Any) -> Any:  # Any: csv.writer takes anything
    if isinstance(value, dt.datetime):
        return isoformat(value)
    if isinstance(value, list | tuple | dict):
        return json_text(value)
    if not isinstance(value, str):
        return value
    text = printable(value, len(value) * 10) if sys.stdout.isatty() else value
    # What a spreadsheet would evaluate begins so (OWASP, CSV injection).
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
