"""From facts and results to a report's values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fleetscan.reports import fact_sections, result_sections
from fleetscan.reports.contents import FilesystemTotals, Report, ReportLimits, Top
from fleetscan.reports.report_database import ReportDatabase
from fleetscan.reports.sections import Sections
from fleetscan.reports.states import RuleText

DEFAULT_TITLE = "Fleet report"


def build_report(
    db: ReportDatabase,
    *,
    checked: bool,
    rules: Iterable[RuleText] = (),
    title: str = DEFAULT_TITLE,
    generated: datetime,
    limits: ReportLimits | None = None,
    sections: Sections | None = None,
) -> Report:
    """Read everything that a report says, in a fixed number of queries.

    Args:
        db: facts and results of one run.
        checked: whether rules have been evaluated; without it results are not looked at.
        rules: texts of the rules; those without results are listed as well.
        title: the report's heading.
        generated: when the report is made, with its time zone.
        limits: how many rows its lists hold; the defaults when None.
        sections: computes what depends on guests' values, and says what it could not.

    Raises:
        SectionLostError: a section cannot be computed, and no other after it.
    """
    limits = limits or ReportLimits()
    machines = fact_sections.machine_counts(db)
    severities = result_sections.severities(db)
    get = (sections := sections or Sections()).get
    nothing: Top[Any] = Top((), 0)
    no_totals = FilesystemTotals(0, 0, 0, 0, 0)
    totals = get("filesystems", lambda: fact_sections.filesystem_totals(db), no_totals)
    return Report(
        title=title,
        generated=generated,
        run=fact_sections.run_info(db),
        machines=machines,
        checked=checked,
        tally=result_sections.total(severities),
        severities=severities,
        rules=get("rules", lambda: result_sections.rules(db, rules if checked else (), limits), ()),
        machine_rows=get(
            "machines", lambda: fact_sections.machines(db, limits.machines, machines.total), nothing
        ),
        failure_kinds=get(
            "failures", lambda: fact_sections.failure_kinds(db, limits.groups), nothing
        ),
        failed_machines=get(
            "failures",
            lambda: fact_sections.failed_machines(db, limits.failed_machines, machines.failed),
            nothing,
        ),
        coverage=fact_sections.coverage(db),
        coverage_errors=get(
            "tables", lambda: fact_sections.coverage_errors(db, limits.groups), nothing
        ),
        device_errors=get(
            "devices", lambda: fact_sections.device_errors(db, limits.groups), nothing
        ),
        left_out=get("left_out", lambda: fact_sections.left_out(db, limits.groups), nothing),
        filesystem_totals=totals,
        filesystems=get(
            "filesystems",
            lambda: fact_sections.filesystems(db, limits.filesystems, totals.filesystems),
            nothing,
        ),
        systems=get("systems", lambda: fact_sections.systems(db, limits.systems), nothing),
        package_managers=get("packages", lambda: fact_sections.package_managers(db), ()),
        package_spread=get(
            "packages", lambda: fact_sections.package_spread(db, limits.packages), ()
        ),
        waivers=get("waivers", lambda: result_sections.waivers(db, limits.groups), nothing),
        problems=sections.problems,
    )
