from __future__ import annotations

import dataclasses
import datetime as dt

import pyarrow as pa
import pytest

from fleetscan.reports.compose import build_report
from fleetscan.reports.contents import Report, ReportLimits, RuleLine
from fleetscan.reports.report_database import RESULTS, attached
from fleetscan.reports.states import RuleText
from fleetscan.rules.load import load_packs
from fleetscan.rules.results import AS_TEXT, SCHEMA
from tests.reports.report_fleet import GENERATED, GIB, RUN, Fleet, machine, rich_fleet, small_fleet


def report_on(fleet: Fleet, limits: ReportLimits | None = None, *, checked: bool = True) -> Report:
    results = fleet.results_table() if checked else None
    with attached(fleet.connect(), results) as db:
        return build_report(
            db, checked=checked, rules=fleet.rules, generated=GENERATED, limits=limits
        )


@pytest.fixture(scope="module")
def small() -> Report:
    return report_on(small_fleet())


def rule(report: Report, rule_id: str) -> RuleLine:
    return next(row for row in report.rules if row.id == rule_id)


def test_machines_are_counted_by_outcome_and_by_what_was_found(small: Report) -> None:
    assert dataclasses.astuple(small.machines) == (4, 2, 1, 1, 5, 3, 3, 1)


def test_run_spans_from_its_first_machine_to_the_end_of_its_last(small: Report) -> None:
    assert small.run.run_id == RUN
    assert small.run.started == dt.datetime(2026, 3, 1, 2, 0, tzinfo=dt.UTC)
    assert small.run.finished == dt.datetime(2026, 3, 1, 2, 0, 2, 500_000, tzinfo=dt.UTC)
    assert small.run.machine_seconds == 8.5


def test_only_verdicts_are_in_the_denominator_of_the_share_passed(small: Report) -> None:
    assert (small.tally["pass"], small.tally["fail"], small.tally["waived"]) == (4, 2, 1)
    assert small.tally.decided == 7
    assert small.tally.undecided == 4
    assert small.tally.total == 12


def test_severities_count_rules_machines_and_states(small: Report) -> None:
    by_name = {row.severity: row for row in small.severities}
    assert list(by_name) == ["critical", "high", "medium", "low", "info"]
    critical = by_name["critical"]
    assert (critical.rules, critical.failing_rules, critical.failing_machines) == (1, 1, 1)
    assert critical.tally.present == [("fail", 1), ("error", 1), ("pass", 2)]
    assert by_name["medium"].tally.total == 0


def test_rules_come_gravest_first_and_those_without_results_are_listed(small: Report) -> None:
    assert [row.id for row in small.rules] == ["shadow-mode", "no-telnet", "motd", "never-run"]
    assert rule(small, "never-run").tally.total == 0


def test_a_rule_has_its_text_and_its_affected_machines(small: Report) -> None:
    row = rule(small, "shadow-mode")
    assert row.remediation == "chmod 640 /etc/shadow"
    assert row.references == {"CIS": ["7.1.5"], "Web": ["https://example.org/shadow"]}
    assert (row.machines, row.failing_machines, row.undecided_machines) == (4, 1, 1)
    assert row.violations == 3
    assert row.examples.rows[0].machine_id == "a"
    assert row.examples.total == 1


def test_missing_verdicts_are_grouped_by_their_reason(small: Report) -> None:
    groups = {(group.state, group.message): group for group in rule(small, "no-telnet").undecided}
    assert set(groups) == {
        ("unknown", "packages: database locked"),
        ("error", "no operating system found"),
    }
    assert groups["unknown", "packages: database locked"].example == "c"


def test_an_expired_waiver_is_reported_with_the_failure_it_no_longer_covers(small: Report) -> None:
    found = rule(small, "motd").examples.rows[0]
    assert found.waiver == "decommissioned in May"
    assert found.waiver_expires == "2026-02-01"


def test_waivers_in_force_and_expired_are_distinguished(small: Report) -> None:
    rows = [(row.expires, row.in_force, row.expired) for row in small.waivers.rows]
    assert rows == [("2026-06-01", 1, 0), ("2026-02-01", 0, 1)]


def test_machines_come_with_the_gravest_failures_first(small: Report) -> None:
    assert [row.machine_id for row in small.machine_rows.rows] == ["a", "d", "c", "b"]
    first = small.machine_rows.rows[0]
    assert first.failures == {"critical": 1, "high": 0, "medium": 0, "low": 1, "info": 0}
    assert first.systems == ("Debian 12",)
    assert first.hostnames == ("host-a",)
    assert small.machine_rows.rows[1].undecided == 3


def test_failed_machines_come_with_stage_and_error(small: Report) -> None:
    assert small.failed_machines.total == 1
    found = small.failed_machines.rows[0]
    assert (found.machine_id, found.stage, found.error_kind) == ("d", "discover", "NoRoot")
    assert found.error == "no operating system found on 1 disk"


def test_failed_tables_are_grouped_by_table_and_error(small: Report) -> None:
    assert small.coverage == {"ok": 5, "empty": 0, "not_applicable": 0, "failed": 1}
    group = small.coverage_errors.rows[0]
    assert (group.what, group.error, group.machines) == ("packages", "database locked", 1)


def test_devices_that_could_not_be_opened_are_grouped() -> None:
    fleet = Fleet()
    for name in ("x", "y"):
        machine(fleet, name)
        fleet.add("volumes", name, kind="luks", name="secret", active=False)
        fleet.add("disks", name, path="p", error="no such file" if name == "x" else None)
        fleet.add(
            "filesystems",
            name,
            device="/dev/sda1",
            type="xfs",
            usage="filesystem",
            mounted=False,
            error="bad superblock",
        )
    groups = report_on(fleet, checked=False).device_errors
    assert [(row.what, row.error, row.machines) for row in groups.rows] == [
        ("filesystem", "bad superblock", 2),
        ("volume", "not active", 2),
        ("disk", "no such file", 1),
    ]


def test_filesystems_come_fullest_first_with_their_mountpoints(small: Report) -> None:
    first, second = small.filesystems.rows
    assert (first.machine_id, first.percent, first.mountpoints) == ("a", 95.0, ("/",))
    assert second.percent == 25.0
    assert first.inodes_percent == 25.0
    totals = small.filesystem_totals
    assert (totals.filesystems, totals.size, totals.used) == (2, 140 * GIB, 105 * GIB)
    assert totals.over_90 == 1


def test_filesystems_without_usage_or_of_no_size_are_left_out() -> None:
    fleet = Fleet()
    machine(fleet, "x")
    empty = {"used": 0, "available": 0, "size": 0}
    fleet.add("filesystems", "x", device="/dev/sr0", type="iso9660", usage="filesystem", **empty)
    fleet.add("filesystems", "x", device="/dev/sda2", type="swap", usage="swap")
    report = report_on(fleet, checked=False)
    assert report.filesystems.rows == ()
    assert report.filesystem_totals.filesystems == 0


def test_inventory_counts_systems_and_packages(small: Report) -> None:
    systems = [(row.product, row.roots, row.machines) for row in small.systems.rows]
    assert systems == [("Debian 12", 2, 2), ("Fedora 41", 1, 1)]
    assert [dataclasses.astuple(row) for row in small.package_managers] == [("dpkg", 2, 4, 2, 3)]
    assert [(row.name, row.versions) for row in small.package_spread] == [("openssl", 2)]


def test_lists_are_cut_at_their_limit_and_know_their_total() -> None:
    limits = ReportLimits(machines=5, filesystems=3, systems=2, examples=20, evidence=1)
    report = report_on(rich_fleet(), limits)
    assert len(report.machine_rows.rows) == 5
    assert report.machine_rows.omitted == 41
    assert (len(report.filesystems.rows), report.filesystems.total) == (3, 88)
    assert len(report.systems.rows) == 2
    assert report.systems.total > 2
    failing = [row for row in report.rules if row.tally["fail"]]
    assert sum(len(row.examples.rows) for row in failing) <= 20
    assert all(len(found.evidence) <= 1 for row in failing for found in row.examples.rows)


def test_a_machine_of_two_systems_counts_once_as_affected() -> None:
    fleet = Fleet()
    machine(fleet, "twin", roots=2)
    for root in ("/dev/sda2", "/dev/sda3"):
        fleet.result("twin", "r", "high", "fail", root=root, violations=1)
    row = report_on(fleet).rules[0]
    assert (row.tally["fail"], row.failing_machines) == (2, 1)


def test_an_empty_run_makes_an_empty_report() -> None:
    report = report_on(Fleet(), checked=False)
    assert report.run.run_id is None
    assert report.machines.total == 0
    assert report.tally.total == 0


def test_an_unchecked_run_lists_no_rules() -> None:
    report = report_on(small_fleet(), checked=False)
    assert report.rules == ()
    assert report.machine_rows.total == 4


def test_results_with_dictionary_columns_and_dates_are_taken() -> None:
    fleet = small_fleet()
    table = fleet.results_table()
    for number, field in enumerate(table.schema):
        column = table.column(field.name)
        if field.name in ("state", "severity", "rule_id", "pack", "run_id", "title"):
            table = table.set_column(number, field.name, column.dictionary_encode())
        if field.name == "waiver_expires":
            table = table.set_column(number, field.name, column.cast(pa.date32()))
    with attached(fleet.connect(), table) as db:
        report = build_report(db, checked=True, rules=fleet.rules, generated=GENERATED)
    assert report.tally == report_on(fleet).tally
    assert report.waivers == report_on(fleet).waivers


def test_shipped_rules_and_the_results_of_checks_fit_what_a_report_reads() -> None:
    texts: list[RuleText] = [rule for pack in load_packs() for rule in pack.rules]
    assert texts
    assert set(SCHEMA.names) == set(AS_TEXT.names)
    fleet = small_fleet()
    with attached(fleet.connect(), SCHEMA.empty_table()) as db:
        report = build_report(db, checked=True, rules=texts, generated=GENERATED)
    assert {row.id for row in report.rules} == {text.id for text in texts}


def test_the_connection_is_left_as_it_was() -> None:
    fleet = small_fleet()
    connection = fleet.connect()
    with attached(connection, fleet.results_table()):
        pass
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
    assert RESULTS not in {row[0] for row in views.fetchall()}


def test_results_that_lack_a_column_are_refused() -> None:
    table = small_fleet().results_table().drop_columns(["state"])
    with pytest.raises(KeyError, match="state"), attached(Fleet().connect(), table):
        pass
