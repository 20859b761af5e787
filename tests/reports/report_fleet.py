"""Fleets of plain rows for report tests: fact views and results without a scan."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from fleetscan.appliance.ground.schema import Column, Kind, Scope, Table
from fleetscan.rules.results import AS_TEXT
from fleetscan.scanner.tables import load_tables

RUN = "20260301T020000Z-7f3a"
GENERATED = dt.datetime(2026, 3, 1, 6, 30, tzinfo=dt.UTC)
STARTED = int(dt.datetime(2026, 3, 1, 2, 0, tzinfo=dt.UTC).timestamp() * 1_000_000)
GIB = 1 << 30

NASTY = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "]]></style></title><b>bold",
    "\x1b[2J\x1b[31mred\x07",
    "evil\u202egpj.exe\u2066",
    "=cmd|' /C calc'!A0",
    "{{ 7*7 }}{% raw %}",
    "emoji \U0001f600 and \ufffe and \u0000",
    "\u05e9\u05dc\u05d5\u05dd \u200b",
)
"""Strings that a guest may choose to harm whoever reads a report."""

_ZERO: dict[Kind, object] = {
    Kind.STRING: "",
    Kind.BOOL: False,
    Kind.FLOAT64: 0.0,
    Kind.TIMESTAMP: STARTED,
    Kind.STRING_LIST: [],
}
_ARROW: dict[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.BOOL: pa.bool_(),
    Kind.UINT8: pa.uint8(),
    Kind.UINT16: pa.uint16(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.INT64: pa.int64(),
    Kind.FLOAT64: pa.float64(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.ENUM: pa.dictionary(pa.int32(), pa.string()),
    Kind.STRING_LIST: pa.list_(pa.string()),
}

Row = Mapping[str, object]


@dataclass(frozen=True)
class RuleStub:
    """The part of a rule that a report reads."""

    id: str
    title: str
    severity: str
    rationale: str = ""
    remediation: str = ""
    references: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failing: str | None = None


@dataclass
class Fleet:
    """Rows of one run, and the results of checking it.

    Rows may leave out columns: null where the table allows it, else a zero value.
    """

    facts: dict[str, list[Row]] = field(default_factory=dict)
    results: list[Row] = field(default_factory=list)
    rules: list[RuleStub] = field(default_factory=list)

    def add(self, table: str, machine_id: str, **columns: object) -> None:
        self.facts.setdefault(table, []).append({"machine_id": machine_id, **columns})

    def result(
        self, machine_id: str, rule_id: str, severity: str, state: str, **more: object
    ) -> None:
        evidence = more.get("evidence", [])
        row = {
            "run_id": RUN,
            "machine_id": machine_id,
            "root": "/dev/sda2",
            "pack": "linux-baseline",
            "rule_id": rule_id,
            "title": self.titles.get(rule_id, rule_id),
            "severity": severity,
            "state": state,
            "violations": len(evidence) if isinstance(evidence, list) else 0,
            "evidence": evidence,
        }
        self.results.append({**row, **more})

    @property
    def titles(self) -> dict[str, str]:
        return {rule.id: rule.title for rule in self.rules}

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection with one view a fact table."""
        connection = duckdb.connect()
        for name, table in load_tables().items():
            connection.register(name, _arrow(table, self.facts.get(name, [])))
        return connection

    def results_table(self) -> pa.Table:
        return pa.Table.from_pylist([dict(row) for row in self.results], schema=AS_TEXT)


def _arrow(table: Table, rows: Iterable[Row]) -> pa.Table:
    found = list(rows)
    root = [pa.field("root", pa.string())] if table.scope is Scope.ROOT else []
    fields: list[pa.Field[Any]] = [
        pa.field("run_id", pa.string()),
        pa.field("machine_id", pa.string()),
        *root,
    ]
    columns: list[Any] = [
        pa.array([row.get("run_id", RUN) for row in found], pa.string()),
        pa.array([row["machine_id"] for row in found], pa.string()),
    ]
    if root:
        columns.append(pa.array([row.get("root", "/dev/sda2") for row in found], pa.string()))
    for column in table.columns:
        fields.append(pa.field(column.name, _ARROW[column.kind]))
        columns.append(_column(column, found))
    return pa.table(columns, schema=pa.schema(fields))


def _column(column: Column, rows: Iterable[Row]) -> Any:
    default = None if column.nullable else _ZERO.get(column.kind, 0)
    if column.kind is Kind.ENUM and not column.nullable:
        default = column.values[0]
    values = [row.get(column.name, default) for row in rows]
    if column.kind is Kind.ENUM:
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, _ARROW[column.kind])


def machine(fleet: Fleet, machine_id: str, outcome: str = "ok", **more: object) -> None:
    """A machine with its ``machines`` row."""
    columns = {"source": "/srv/images", "disks": 1, "roots": 1, "seconds": 2.5, "facts_run": RUN}
    fleet.add("machines", machine_id, **{**columns, "outcome": outcome, "attempts": 1, **more})


def filesystem(fleet: Fleet, machine_id: str, path: str, used: int, available: int) -> None:
    """A mounted ext4 filesystem; sizes in bytes."""
    device = f"/dev/vg0{path.replace('/', '-')}"
    fleet.add(
        "filesystems",
        machine_id,
        device=device,
        type="ext4",
        usage="filesystem",
        mounted=True,
        size=used + available,
        used=used,
        free=available,
        available=available,
        inodes=1000,
        inodes_used=250,
        journal="clean",
    )
    fleet.add("mountpoints", machine_id, device=device, path=path, mounted=True)


def small_fleet() -> Fleet:
    """Four machines whose numbers are counted by hand in the tests.

    a: fully scanned, fails a critical and a low rule, 95 % full; b: fully scanned, all pass;
    c: packages could not be read; d: no operating system.
    """
    fleet = Fleet()
    for name in "ab":
        machine(fleet, name)
    machine(fleet, "c", "partial", error="packages: database locked", stage="collect", disks=2)
    machine(
        fleet,
        "d",
        "failed",
        error="no operating system found on 1 disk",
        error_kind="NoRoot",
        stage="discover",
        roots=0,
        seconds=1.0,
    )
    for name, product in (("a", "Debian 12"), ("b", "Debian 12"), ("c", "Fedora 41")):
        fleet.add(
            "operating_systems",
            name,
            family="linux",
            product=product,
            architecture="x86_64",
            hostname=f"host-{name}",
        )
        fleet.add("coverage", name, root="/dev/sda2", table_name="users", status="ok")
        fleet.add(
            "coverage",
            name,
            root="/dev/sda2",
            table_name="packages",
            status="failed" if name == "c" else "ok",
            error="database locked" if name == "c" else None,
        )
    for name in "abd":
        fleet.add("left_out", name, path="/srv/golden.img", why="base", named_by=f"/srv/{name}")
    filesystem(fleet, "a", "/", 95 * GIB, 5 * GIB)
    filesystem(fleet, "b", "/", 10 * GIB, 30 * GIB)
    for name, version in (("a", "1.0"), ("b", "2.0")):
        fleet.add(
            "packages", name, manager="dpkg", name="openssl", version=version, status="installed"
        )
        fleet.add("packages", name, manager="dpkg", name="bash", version="5", status="installed")
    _small_results(fleet)
    return fleet


def _small_results(fleet: Fleet) -> None:
    fleet.rules = [
        RuleStub(
            "shadow-mode",
            "Password hashes are readable by root alone",
            "critical",
            "Hashes can be cracked offline.",
            "chmod 640 /etc/shadow",
            {"CIS": ["7.1.5"], "Web": ["https://example.org/shadow"]},
        ),
        RuleStub("no-telnet", "No telnet server is installed", "high"),
        RuleStub("motd", "A message of the day is shown", "low"),
        RuleStub("never-run", "A rule without results", "info"),
    ]
    shadow = [json.dumps({"machine_id": "a", "path": "/etc/shadow", "mode": 438})]
    fleet.result("a", "shadow-mode", "critical", "fail", evidence=shadow, violations=3)
    fleet.result("b", "shadow-mode", "critical", "pass")
    fleet.result("c", "shadow-mode", "critical", "pass")
    for name, state in (("a", "pass"), ("b", "pass"), ("c", "unknown")):
        why = "packages: database locked" if state == "unknown" else None
        fleet.result(name, "no-telnet", "high", state, message=why)
    waiver = {"waiver_justification": "decommissioned in May"}
    fleet.result(
        "a", "motd", "low", "fail", violations=1, waiver_expires=dt.date(2026, 2, 1), **waiver
    )
    fleet.result("b", "motd", "low", "waived", waiver_expires=dt.date(2026, 6, 1), **waiver)
    fleet.result("c", "motd", "low", "notapplicable")
    for rule, severity in (("shadow-mode", "critical"), ("no-telnet", "high"), ("motd", "low")):
        fleet.result("d", rule, severity, "error", root=None, message="no operating system found")


_SYSTEMS = (
    ("Debian GNU/Linux 12 (bookworm)", "debian", "dpkg", None),
    ("Debian GNU/Linux 13 (trixie)", "debian", "dpkg", None),
    ("Ubuntu 24.04.2 LTS", "ubuntu", "dpkg", "2029-05-31"),
    ("Rocky Linux 9.5 (Blue Onyx)", "rocky", "rpm", "2032-05-31"),
    ("Fedora Linux 41 (Server Edition)", "fedora", "rpm", "2025-12-15"),
    ("openSUSE Leap 15.6", "opensuse-leap", "rpm", None),
    ("CentOS Linux 7 (Core)", "centos", "rpm", "2024-06-30"),
    ("Alpine Linux v3.21", "alpine", "dpkg", None),
    ("Debian GNU/Linux 8 (jessie)", "debian", "dpkg", None),
)
_RULES = (
    ("accounts-without-password", "No account can log in without a password", "critical"),
    ("extra-uid-0", "Only root has user id 0", "critical"),
    ("shadow-permissions", "Password hashes are readable by root alone", "high"),
    ("sshd-root-login", "SSH refuses passwords for root", "high"),
    ("end-of-life", "The operating system still gets security updates", "high"),
    ("setuid-outside-packages", "Set-user-id programs all belong to known packages", "high"),
    ("world-writable-without-sticky", "World-writable directories have the sticky bit", "medium"),
    ("telnet-absent", "Packages with clear-text logins are absent", "medium"),
    ("filesystem-nearly-full", "Filesystems keep at least a tenth of their space free", "medium"),
    ("cron-writable", "Scheduled tasks are writable by root alone", "medium"),
    ("home-permissions", "Home directories are closed to others", "low"),
    ("umask", "New files are closed to others", "low"),
    ("motd-banner", "A login banner is configured", "info"),
)


def rich_fleet(size: int = 46) -> Fleet:
    """Many machines of many kinds, some hostile, in the proportions of a real fleet."""
    fleet = Fleet()
    fleet.rules = [_rule(*parts) for parts in _RULES]
    for number in range(size):
        name = f"rack{number % 7}/vm-{number:05d}.qcow2"
        if number < len(NASTY):
            name = NASTY[number]
        if number % 17 == 16:
            _failed_machine(fleet, name, number)
        else:
            _scanned_machine(fleet, name, number)
    return fleet


def _rule(rule_id: str, title: str, severity: str) -> RuleStub:
    return RuleStub(
        rule_id,
        title,
        severity,
        "Whoever can read or change what this rule protects can act as another user, and what "
        "they do is then logged under that user's name.",
        "Correct the entries that are listed below, then scan the machine again:\nchmod o-w PATH",
        {"CIS": ["5.4.2.1", "5.4.2.4"], "NIST": ["AC-6"], "Web": ["https://example.org/rules"]},
    )


_FAILURES = (
    ("preflight", "PreflightError", "disk 0: qcow2 header is cut off after 72 bytes"),
    ("discover", "NoRootError", "no operating system found on 1 disk"),
    ("discover", "EncryptedError", "LUKS volume /dev/sda3 has no key"),
    ("appliance", "DeadlineError", "the appliance did not answer within 600 seconds"),
)


def _failed_machine(fleet: Fleet, name: str, number: int) -> None:
    stage, kind, error = _FAILURES[number // 17 % len(_FAILURES)]
    machine(fleet, name, "failed", stage=stage, error_kind=kind, error=error, roots=0)
    fleet.add("disks", name, disk=0, path=name, error=error if stage == "preflight" else None)
    for rule in fleet.rules:
        fleet.result(name, rule.id, rule.severity, "error", root=None, message=error)


def _scanned_machine(fleet: Fleet, name: str, number: int) -> None:
    product, distro, manager, support_end = _SYSTEMS[(number * number) % 23 % len(_SYSTEMS)]
    partial = number % 11 == 3
    error = "packages: rpm database is damaged: page 12 has a bad checksum"
    machine(
        fleet,
        name,
        "partial" if partial else "ok",
        seconds=1.2 + number % 9,
        started=STARTED + number * 600_000,
        torn=number % 31 == 5,
        error=error if partial else None,
        stage="collect" if partial else None,
    )
    fleet.add(
        "operating_systems",
        name,
        family="linux",
        product=product,
        distro=distro,
        architecture="aarch64" if number % 13 == 0 else "x86_64",
        support_end=support_end,
        hostname=NASTY[number] if number < len(NASTY) else f"vm{number}",
    )
    if number < len(NASTY):
        fleet.add("left_out", name, path=f"/srv/{NASTY[number]}", named_by=NASTY[number])
    for table in ("users", "services", "files", "packages"):
        failed = partial and table == "packages"
        fleet.add(
            "coverage",
            name,
            root="/dev/sda2",
            table_name=table,
            status="failed" if failed else "ok",
            error=error if failed else None,
        )
    filesystem(fleet, name, "/", (8 + number * 37 % 90) * GIB, (3 + number * 13 % 60) * GIB)
    filesystem(fleet, name, "/var", (200 + number * 7 % 31) * GIB, (1 + number * 29 % 400) * GIB)
    for package in ("openssl", "bash", "openssh-server"):
        fleet.add(
            "packages",
            name,
            manager=manager,
            name=package,
            status="installed",
            version=f"{number % 5}.{len(package)}",
        )
    for index, rule in enumerate(fleet.rules):
        _rich_result(fleet, name, number, index, rule, partial)


def _rich_result(
    fleet: Fleet, name: str, number: int, index: int, rule: RuleStub, partial: bool
) -> None:
    key = (number * 31 + index * 17) % 29
    if partial and rule.id in ("telnet-absent", "end-of-life"):
        message = "packages of this machine could not be read"
        fleet.result(name, rule.id, rule.severity, "unknown", message=message)
    elif rule.id == "umask" and key == 2:
        fleet.result(name, rule.id, rule.severity, "notapplicable")
    elif rule.id == "home-permissions" and key < 4:
        fleet.result(
            name,
            rule.id,
            rule.severity,
            "waived" if key else "fail",
            violations=2,
            waiver_justification="Shared lab machines; users are told not to keep secrets there.",
            waiver_expires=dt.date(2026, 12, 31) if key else dt.date(2026, 2, 1),
        )
    elif key < index % 5 + (1 if index else 0) and rule.severity != "info":
        fleet.result(
            name,
            rule.id,
            rule.severity,
            "fail",
            violations=key + 3 + 1000 * (number == 2),
            evidence=[_evidence(number, line) for line in range(key + 3)],
        )
    else:
        fleet.result(name, rule.id, rule.severity, "pass")


def _evidence(number: int, line: int) -> str:
    odd = NASTY[(number + line) % len(NASTY)] if number < 2 * len(NASTY) else "report.txt"
    long = "x" * 5000 if number == 5 else ""
    return json.dumps({"path": f"/srv/share/{line}/{odd}{long}", "owner": "www-data", "mode": 511})
