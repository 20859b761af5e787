"""Reports made in a separate process, which is replaced if a section kills it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host import child
from fleetscan.appliance.host.child import Child, ChildLostError
from fleetscan.reports.compose import DEFAULT_TITLE
from fleetscan.reports.formats import load_formats
from fleetscan.reports.report_format import CheckedRun
from fleetscan.reports.sections import SectionLostError, Sections
from fleetscan.reports.states import RuleText, Words
from fleetscan.rules.results import NoResultsError, read_results
from fleetscan.scanner.store.views import connect

_SECTION_SECONDS = 300.0


@dataclass(frozen=True)
class WantedReport:
    """A report that is to be made.

    Attributes:
        facts: the store's directory.
        run_id: the run.
        form: name of a format of :mod:`fleetscan.reports.formats`.
        generated: when the report is made, with its time zone.
        rules: texts of the rules.
        title: the report's heading.
    """

    facts: Path
    run_id: str
    form: str
    generated: datetime
    rules: Iterable[RuleText] = ()
    title: str = DEFAULT_TITLE


def write_report(wanted: WantedReport, path: Path) -> dict[str, str]:
    """Write a report to a file that exists already.

    Args:
        wanted: which report.
        path: the file; what it holds when this fails is worth nothing.

    Returns:
        the sections that could not be computed, and why.

    Raises:
        FleetscanError: not even the rest could be.
    """
    lost: dict[str, str] = {}
    plain = WantedReport(
        *(wanted.facts, wanted.run_id, wanted.form, wanted.generated),
        rules=tuple(Words.of(rule) for rule in wanted.rules),
        title=wanted.title,
    )
    while True:
        section, reason = _attempt(plain, path, lost)
        if not section:
            return lost
        if section in lost:
            raise FleetscanError(f"the report cannot be made: {reason}")
        lost[section] = reason


def _attempt(wanted: WantedReport, path: Path, lost: dict[str, str]) -> tuple[str, str]:
    """Try to write it without some sections; return the one at which it failed, and why."""
    try:
        with Child(__name__, child.memory_limit()) as process:
            process.start("open_file", path)
            answer = json.loads(process.call("render", wanted, lost, seconds=_SECTION_SECONDS))
    except ChildLostError as error:
        if not error.doing:
            raise FleetscanError(f"the report cannot be made: {error}") from error
        return error.doing, str(error)
    lost.update(answer["problems"])
    return str(answer["section"]), str(answer["reason"])


# -- The child's side ----------------------------------------------------------------------------


class _File:
    """A file that reports are written to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def render(self, wanted: WantedReport, lost: dict[str, str]) -> bytes:
        """Write a report, and return what was lost."""
        sections = Sections(lost, child.note)
        section = reason = ""
        try:
            self._write(wanted, sections)
        except SectionLostError as error:
            section, reason = error.section, error.reason
        problems = {name: why for name, why in sections.problems.items() if name != section}
        return json.dumps({"problems": problems, "section": section, "reason": reason}).encode()

    def _write(self, wanted: WantedReport, sections: Sections) -> None:
        try:
            results: pa.Table | None = read_results(wanted.facts, wanted.run_id)
        except NoResultsError:
            results = None
        with connect(wanted.facts, wanted.run_id, memory_limit=child.sql_memory()) as connection:
            asked = CheckedRun(
                *(connection, results, wanted.rules, wanted.title, wanted.generated, sections)
            )
            with self._path.open("wb") as stream:
                load_formats()[wanted.form].write(asked, stream)


def open_file(path: Path) -> _File:
    """Where a report goes."""
    return _File(path)
