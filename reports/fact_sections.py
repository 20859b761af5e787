"""Queries over fact tables: machines, coverage, filesystems, inventory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetscan.reports.contents import (
    ErrorGroup,
    FailedMachine,
    FilesystemLine,
    FilesystemTotals,
    LeftOutLine,
    MachineCounts,
    MachineLine,
    PackageManagerLine,
    PackageSpread,
    RunSummary,
    SystemLine,
    Top,
)
from fleetscan.reports.report_database import RESULTS, ReportDatabase, sql_list
from fleetscan.reports.text import from_epoch
from fleetscan.scanner.tables.coverage.spec import CoverageStatus
from fleetscan.scanner.tables.machines.spec import Outcome
from fleetscan.scanner.tables.results.spec import DECIDED, UNDECIDED, Severity

_ERROR_CHARACTERS = 300
_TEXT = 300
"""Characters of a guest's text that is counted by, or listed."""

_LISTED = 64
"""Names of one machine or filesystem that are listed, before equal ones are left out."""

_FAILURES = ", ".join(
    f"count(*) FILTER (state = 'fail' AND severity = '{severity}') AS {severity}"
    for severity in Severity
)
_WORST_FIRST = ", ".join(f"coalesce({severity}, 0) DESC" for severity in Severity)


def run_info(db: ReportDatabase) -> RunSummary:
    """The run, summarised from its machines."""
    row = db.row(
        """
        SELECT max(run_id), min(epoch_us(started)),
               max(epoch_us(started) + try_cast(least(seconds, 1e9) * 1e6 AS BIGINT)),
               coalesce(sum(seconds) FILTER (isfinite(seconds)), 0),
               count(*) FILTER (facts_run <> run_id), count(*) FILTER (torn)
        FROM machines
        """
    )
    journals = db.row("SELECT count(*) FROM filesystems WHERE journal::VARCHAR = 'ignored'")
    return RunSummary(
        run_id=row[0],
        started=None if row[1] is None else from_epoch(row[1]),
        finished=None if row[2] is None else from_epoch(row[2]),
        sources=_distinct(db, "source"),
        accelerators=_distinct(db, "accelerator"),
        machine_seconds=float(row[3]),
        reused=row[4],
        torn=row[5],
        journals_ignored=journals[0],
    )


def _distinct(db: ReportDatabase, column: str) -> tuple[str, ...]:
    sql = (
        f"SELECT DISTINCT {column}::VARCHAR AS value FROM machines "  # noqa: S608 - our own name
        f"WHERE {column} IS NOT NULL ORDER BY value"
    )
    return tuple(row[0] for row in db.rows(sql))


def machine_counts(db: ReportDatabase) -> MachineCounts:
    """Machines by outcome."""
    row = db.row(
        f"""
        SELECT count(*),
               {", ".join(f"count(*) FILTER (outcome::VARCHAR = '{name}')" for name in Outcome)},
               coalesce(sum(disks), 0), coalesce(sum(roots), 0), count(*) FILTER (roots > 0),
               count(*) FILTER (machine_id NOT IN (
                   SELECT machine_id FROM {RESULTS} WHERE state IN ({sql_list(DECIDED)})))
        FROM machines
        """  # noqa: S608 - built of constants
    )
    return MachineCounts(*map(int, row))


MACHINES_SQL = f"""
    WITH verdicts AS (
        SELECT machine_id, {_FAILURES},
               count(*) FILTER (state IN ({sql_list(UNDECIDED)})) AS undecided,
               count(*) FILTER (state = 'pass') AS passed
        FROM {RESULTS} GROUP BY machine_id
    ), found AS (
        SELECT machine_id,
               min(left(coalesce(product, distro, family::VARCHAR), {_TEXT}), {_LISTED})
                   AS products,
               min(left(hostname, {_TEXT}), {_LISTED}) FILTER (hostname IS NOT NULL) AS names
        FROM operating_systems GROUP BY machine_id
    )
    SELECT machine_id, outcome::VARCHAR, stage::VARCHAR, error_kind, error, seconds,
           list_sort(list_distinct(coalesce(products, []))) AS systems,
           list_sort(list_distinct(coalesce(names, []))) AS hostnames,
           [{", ".join(f"coalesce({severity}, 0)" for severity in Severity)}] AS failures,
           coalesce(undecided, 0) AS undecided, coalesce(passed, 0) AS passed
    FROM machines LEFT JOIN verdicts USING (machine_id) LEFT JOIN found USING (machine_id)
"""  # noqa: S608 - built of constants
"""One row a machine with its failures by severity, in no order."""


def machines(db: ReportDatabase, limit: int, total: int) -> Top[MachineLine]:
    """Machines by their gravest failures, then by what could not be seen of them."""
    found = db.rows(
        f"""
        {MACHINES_SQL}
        ORDER BY {_WORST_FIRST}, outcome::VARCHAR = 'failed' DESC,
                 outcome::VARCHAR = 'partial' DESC, undecided DESC, machine_id
        LIMIT ?
        """,
        (limit,),
    )
    return Top(tuple(machine_row(row) for row in found), total)


def machine_row(row: tuple[Any, ...]) -> MachineLine:
    """A row of :data:`MACHINES_SQL`."""
    *head, failures, undecided, passed = row
    values = [*head, dict(zip(Severity, failures, strict=True)), undecided, passed]
    return MachineLine(*values)


def failed_machines(db: ReportDatabase, limit: int, total: int) -> Top[FailedMachine]:
    """Machines on which no operating system could be read."""
    found = db.rows(
        """
        SELECT machine_id, stage::VARCHAR, error_kind, error FROM machines
        WHERE outcome::VARCHAR = 'failed' ORDER BY error_kind, stage::VARCHAR, machine_id LIMIT ?
        """,
        (limit,),
    )
    return Top(tuple(FailedMachine(*row) for row in found), total)


def failure_kinds(db: ReportDatabase, limit: int) -> Top[ErrorGroup]:
    """Failed machines by the kind of their error and the stage that they reached."""
    return _error_groups(
        db,
        """
        SELECT coalesce(stage::VARCHAR, 'unknown') AS what, error_kind AS error, machine_id
        FROM machines WHERE outcome::VARCHAR = 'failed'
        """,
        limit,
    )


def coverage(db: ReportDatabase) -> Mapping[str, int]:
    """How many tables, over all machines and roots, ended in each status."""
    found = dict(db.rows("SELECT status::VARCHAR, count(*) FROM coverage GROUP BY 1"))
    return {status: found.get(status, 0) for status in CoverageStatus}


def coverage_errors(db: ReportDatabase, limit: int) -> Top[ErrorGroup]:
    """Failed collectors by table and error."""
    return _error_groups(
        db,
        """
        SELECT table_name AS what, error, machine_id FROM coverage
        WHERE status::VARCHAR = 'failed'
        """,
        limit,
    )


def device_errors(db: ReportDatabase, limit: int) -> Top[ErrorGroup]:
    """Disks, volumes, filesystems and mounts that could not be opened."""
    return _error_groups(
        db,
        """
        SELECT 'disk' AS what, error, machine_id FROM disks WHERE error IS NOT NULL
        UNION ALL
        SELECT 'volume', coalesce(error, 'not active'), machine_id FROM volumes
        WHERE error IS NOT NULL OR NOT active
        UNION ALL
        SELECT 'filesystem', error, machine_id FROM filesystems WHERE error IS NOT NULL
        UNION ALL
        SELECT 'mountpoint', error, machine_id FROM mountpoints WHERE error IS NOT NULL
        """,
        limit,
    )


def left_out(db: ReportDatabase, limit: int) -> Top[LeftOutLine]:
    """Files of scanned folders that are not machines themselves, and their machines."""
    found = db.rows(
        """
        SELECT path, why::VARCHAR AS reason, count(DISTINCT machine_id) AS users,
               count(DISTINCT machine_id) FILTER (outcome::VARCHAR = 'failed') AS failed,
               min(machine_id), count(*) OVER ()
        FROM left_out LEFT JOIN machines USING (machine_id) GROUP BY path, reason
        ORDER BY users DESC, path, reason LIMIT ?
        """,
        (limit,),
    )
    return Top(tuple(LeftOutLine(*row[:-1]) for row in found), found[0][-1] if found else 0)


def _error_groups(db: ReportDatabase, failures: str, limit: int) -> Top[ErrorGroup]:
    found = db.rows(
        f"""
        SELECT what, left(error, ?) AS reason, count(*) AS failures,
               count(DISTINCT machine_id) AS affected, min(machine_id), count(*) OVER ()
        FROM ({failures}) GROUP BY what, reason
        ORDER BY affected DESC, failures DESC, what, reason LIMIT ?
        """,  # noqa: S608 - subqueries of this module
        (_ERROR_CHARACTERS, limit),
    )
    return Top(tuple(ErrorGroup(*row[:-1]) for row in found), found[0][-1] if found else 0)


_USAGE = "usage::VARCHAR = 'filesystem' AND used IS NOT NULL AND available IS NOT NULL"
# DOUBLE and HUGEINT, as sums of what guests write pass the largest UBIGINT.
_PERCENT = "100 * used::DOUBLE / (used::DOUBLE + available::DOUBLE)"
_HAS_ROOM = "(used > 0 OR available > 0)"


def filesystem_totals(db: ReportDatabase) -> FilesystemTotals:
    """All filesystems whose usage is known, added up."""
    row = db.row(
        f"""
        SELECT count(*), count(DISTINCT machine_id), coalesce(sum(size), 0),
               coalesce(sum(used), 0), count(*) FILTER ({_PERCENT} >= 90)
        FROM filesystems WHERE {_USAGE} AND {_HAS_ROOM}
        """  # noqa: S608 - built of this module's constants
    )
    return FilesystemTotals(*map(int, row))


def filesystems(db: ReportDatabase, limit: int, total: int) -> Top[FilesystemLine]:
    """Filesystems, the fullest first."""
    found = db.rows(
        f"""
        WITH fullest AS (
            SELECT machine_id, device, left(type, {_TEXT}) AS type, left(label, {_TEXT}) AS label,
                   coalesce(size, used::HUGEINT + available::HUGEINT) AS bytes,
                   used, available, {_PERCENT} AS percent,
                   CASE WHEN inodes > 0 THEN 100 * inodes_used::DOUBLE / inodes::DOUBLE END
                       AS inodes_percent
            FROM filesystems WHERE {_USAGE} AND {_HAS_ROOM}
            ORDER BY percent DESC, used DESC, machine_id, device LIMIT ?
        ), places AS (
            SELECT machine_id, device, min(left(path, {_TEXT}), {_LISTED}) AS paths
            FROM mountpoints SEMI JOIN fullest USING (machine_id, device)
            GROUP BY machine_id, device
        )
        SELECT machine_id, left(device, {_TEXT}), type, label,
               list_sort(list_distinct(coalesce(paths, []))), bytes,
               used, available, percent, inodes_percent
        FROM fullest LEFT JOIN places USING (machine_id, device)
        ORDER BY percent DESC, used DESC, machine_id, device
        """,  # noqa: S608 - built of this module's constants
        (limit,),
    )
    return Top(tuple(FilesystemLine(*row) for row in found), total)


def systems(db: ReportDatabase, limit: int) -> Top[SystemLine]:
    """Operating systems, the most frequent first."""
    found = db.rows(
        f"""
        SELECT left(coalesce(product, distro, family::VARCHAR), {_TEXT}) AS name,
               left(architecture, {_TEXT}) AS architecture,
               left(min(support_end), {_TEXT}), count(*) AS roots, count(DISTINCT machine_id),
               count(*) OVER ()
        FROM operating_systems GROUP BY 1, 2 ORDER BY roots DESC, 1, 2 LIMIT ?
        """,  # noqa: S608 - built of this module's constants
        (limit,),
    )
    return Top(tuple(SystemLine(*row[:-1]) for row in found), found[0][-1] if found else 0)


def package_managers(db: ReportDatabase) -> tuple[PackageManagerLine, ...]:
    """What the package databases hold, by their kind; texts are counted by their hashes."""
    found = db.rows(
        """
        SELECT manager::VARCHAR, count(DISTINCT (machine_id, root)), count(*),
               count(DISTINCT hash(name)), count(DISTINCT hash(name, version))
        FROM packages WHERE status::VARCHAR = 'installed' GROUP BY 1 ORDER BY 1
        """
    )
    return tuple(PackageManagerLine(*row) for row in found)


def package_spread(db: ReportDatabase, limit: int) -> tuple[PackageSpread, ...]:
    """Packages installed in more than one version, those with the most versions first."""
    found = db.rows(
        f"""
        SELECT manager::VARCHAR, left(name, {_TEXT}),
               count(DISTINCT hash(version)) FILTER (version IS NOT NULL) AS versions,
               count(DISTINCT machine_id) AS machines
        FROM packages WHERE status::VARCHAR = 'installed' GROUP BY 1, 2
        HAVING versions > 1 ORDER BY versions DESC, machines DESC, 1, 2 LIMIT ?
        """,  # noqa: S608 - built of this module's constants
        (limit,),
    )
    return tuple(PackageSpread(*row) for row in found)
