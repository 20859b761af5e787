"""From facts and results to a report's values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from reports import facts, verdicts
from reports.database import Database
from reports.model import Limits, Report, RuleText

DEFAULT_TITLE = "Fleet report"


def build_report(
    db: Database,
    *,
    checked: bool,
    rules: Iterable[RuleText] = (),
    title: str = DEFAULT_TITLE,
    generated: datetime,
    limits: Limits | None = None,
) -> Report:
    """Read everything that a report says, in a fixed number of queries.

    Args:
        db: facts and results of one run.
        checked: whether rules have been evaluated; without it results are not looked at.
        rules: texts of the rules; those without results are listed as well.
        title: the report's heading.
        generated: when the report is made, with its time zone.
        limits: how many rows its lists hold; the defaults when None.
    """
    limits = limits or Limits()
    machines = facts.machine_counts(db)
    severities = verdicts.severities(db)
    totals = facts.filesystem_totals(db)
    return Report(
        title=title,
        generated=generated,
        run=facts.run_info(db),
        machines=machines,
        checked=checked,
        tally=verdicts.total(severities),
        severities=severities,
        rules=verdicts.rules(db, rules if checked else (), limits),
        machine_rows=facts.machines(db, limits.machines, machines.total),
        failure_kinds=facts.failure_kinds(db, limits.groups),
        failed_machines=facts.failed_machines(db, limits.failed_machines, machines.failed),
        coverage=facts.coverage(db),
        coverage_errors=facts.coverage_errors(db, limits.groups),
        device_errors=facts.device_errors(db, limits.groups),
        left_out=facts.left_out(db, limits.groups),
        filesystem_totals=totals,
        filesystems=facts.filesystems(db, limits.filesystems, totals.filesystems),
        systems=facts.systems(db, limits.systems),
        package_managers=facts.package_managers(db),
        package_spread=facts.package_spread(db, limits.packages),
        waivers=verdicts.waivers(db, limits.groups),
    )
