"""What a report says: typed values that every renderer shares.

:func:`build_report` turns one run's facts and results into a :class:`Report`. Lists that grow
with the fleet are :class:`Top` lists, the worst first, with the number there are in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from fleetscan.reports.states import Tally

T = TypeVar("T")


@dataclass(frozen=True)
class ReportLimits:
    """How many rows of each list a report holds.

    Attributes:
        machines: machines, the worst first.
        failed_machines: machines that could not be scanned.
        groups: groups of equal errors, waivers, and files that are no machines of their own.
        filesystems: filesystems, the fullest first.
        systems: operating systems, the most frequent first.
        packages: packages that differ most between roots.
        examples: failing machines shown with evidence, over all rules together.
        examples_per_rule: the most of them that one rule gets.
        evidence: offending rows shown of one result.
        evidence_characters: longest text taken of one offending row.
    """

    machines: int = 300
    failed_machines: int = 200
    groups: int = 100
    filesystems: int = 50
    systems: int = 30
    packages: int = 10
    examples: int = 1000
    examples_per_rule: int = 25
    evidence: int = 3
    evidence_characters: int = 600


@dataclass(frozen=True)
class Top(Generic[T]):
    """The first rows of a list, and how many there are in all."""

    rows: tuple[T, ...]
    total: int

    @property
    def omitted(self) -> int:
        """Rows that are not shown."""
        return self.total - len(self.rows)


@dataclass(frozen=True)
class RunSummary:
    """The run.

    Attributes:
        run_id: None when it holds no machine.
        started, finished: begin of its first and end of its last machine.
        sources: where its machines came from.
        accelerators: what ran the appliances.
        machine_seconds: scan times of all machines added up.
        reused: machines whose facts an earlier run had gathered.
        torn: machines read while a guest was using them.
        journals_ignored: filesystems whose journal could not be replayed.
    """

    run_id: str | None
    started: datetime | None
    finished: datetime | None
    sources: tuple[str, ...]
    accelerators: tuple[str, ...]
    machine_seconds: float
    reused: int
    torn: int
    journals_ignored: int


@dataclass(frozen=True)
class MachineCounts:
    """Machines by outcome, and what was found on them.

    Attributes:
        without_verdict: machines on which no rule passed, failed or was waived.
    """

    total: int
    ok: int
    partial: int
    failed: int
    disks: int
    roots: int
    with_roots: int
    without_verdict: int


@dataclass(frozen=True)
class SeverityLine:
    """Results of all rules of one severity.

    Attributes:
        rules: rules there are.
        failing_rules: those that fail somewhere.
        failing_machines: machines on which any of them fails.
    """

    severity: str
    rules: int
    failing_rules: int
    failing_machines: int
    tally: Tally


@dataclass(frozen=True)
class Example:
    """One failing check, with the rows that offend.

    Attributes:
        violations: offending rows there are; evidence has the first of them as JSON text.
        waiver: why it was waived, if that waiver has expired.
    """

    machine_id: str
    root: str | None
    violations: int
    evidence: tuple[str, ...]
    message: str | None
    waiver: str | None
    waiver_expires: str | None


@dataclass(frozen=True)
class UndecidedGroup:
    """Checks of one rule that have no verdict for the same reason."""

    state: str
    message: str | None
    checks: int
    machines: int
    example: str


@dataclass(frozen=True)
class RuleLine:
    """One rule over the whole fleet.

    Attributes:
        title: what must hold.
        failing: what is wrong where it fails.
    """

    id: str
    pack: str | None
    title: str
    failing: str
    severity: str
    rationale: str
    remediation: str
    references: Mapping[str, Sequence[str]]
    tally: Tally
    machines: int
    failing_machines: int
    undecided_machines: int
    violations: int
    examples: Top[Example]
    undecided: tuple[UndecidedGroup, ...]


@dataclass(frozen=True)
class MachineLine:
    """One machine.

    Attributes:
        systems: full names of its operating systems.
        hostnames: their static host names.
        failures: failing checks by severity.
    """

    machine_id: str
    outcome: str
    stage: str | None
    error_kind: str | None
    error: str | None
    seconds: float
    systems: tuple[str, ...]
    hostnames: tuple[str, ...]
    failures: Mapping[str, int]
    undecided: int
    passed: int


@dataclass(frozen=True)
class FailedMachine:
    """A machine on which no operating system could be read."""

    machine_id: str
    stage: str | None
    error_kind: str | None
    error: str | None


@dataclass(frozen=True)
class ErrorGroup:
    """Equal failures over the fleet.

    Attributes:
        what: the fact table, kind of error or kind of device that failed.
        count: failures.
        machines: machines they are on.
        example: one of these machines.
    """

    what: str
    error: str | None
    count: int
    machines: int
    example: str


@dataclass(frozen=True)
class LeftOutLine:
    """A file of a scanned folder that is not a machine itself.

    Attributes:
        why: what it is instead.
        machines: machines that it belongs to.
        failed: those on which no operating system could be read.
        example: one of the machines.
    """

    path: str
    why: str
    machines: int
    failed: int
    example: str


@dataclass(frozen=True)
class FilesystemLine:
    """One mounted filesystem.

    Attributes:
        mountpoints: where its roots mount it.
        size, used, available: bytes.
        percent: used space of what ordinary users can have, as df counts it: 0 to 100.
        inodes_percent: inodes in use; None where the filesystem makes them as needed.
    """

    machine_id: str
    device: str
    type: str
    label: str | None
    mountpoints: tuple[str, ...]
    size: int
    used: int
    available: int
    percent: float
    inodes_percent: float | None


@dataclass(frozen=True)
class FilesystemTotals:
    """All filesystems with known usage added up; sizes in bytes."""

    filesystems: int
    machines: int
    size: int
    used: int
    over_90: int


@dataclass(frozen=True)
class SystemLine:
    """Roots with the same operating system and architecture."""

    product: str
    architecture: str | None
    support_end: str | None
    roots: int
    machines: int


@dataclass(frozen=True)
class PackageManagerLine:
    """Installed packages in the databases of one package manager."""

    manager: str
    roots: int
    packages: int
    names: int
    versions: int


@dataclass(frozen=True)
class PackageSpread:
    """A package of which the fleet has several versions."""

    manager: str
    name: str
    versions: int
    machines: int


@dataclass(frozen=True)
class WaiverLine:
    """A waiver of one rule.

    Attributes:
        expires: its last day, YYYY-MM-DD.
        in_force: checks it waives.
        expired: checks that fail again because it has expired.
    """

    rule_id: str
    title: str
    severity: str
    waiver: str
    expires: str | None
    in_force: int
    expired: int
    machines: int


@dataclass(frozen=True)
class Report:
    """Everything that a report says about one run.

    Attributes:
        checked: whether rules have been evaluated at all.
        severities: one row a severity, the gravest first.
        rules: all rules, the most severe and most often failed first.
        coverage: collectors' outcomes: how many tables of roots and machines are of each status.
        device_errors: disks, volumes, filesystems and mounts that could not be opened.
        left_out: images that are no machines of their own, those of the most machines first.
        problems: sections that could not be computed, and why; theirs are empty then.
    """

    title: str
    generated: datetime
    run: RunSummary
    machines: MachineCounts
    checked: bool
    tally: Tally
    severities: tuple[SeverityLine, ...]
    rules: tuple[RuleLine, ...]
    machine_rows: Top[MachineLine]
    failure_kinds: Top[ErrorGroup]
    failed_machines: Top[FailedMachine]
    coverage: Mapping[str, int]
    coverage_errors: Top[ErrorGroup]
    device_errors: Top[ErrorGroup]
    left_out: Top[LeftOutLine]
    filesystem_totals: FilesystemTotals
    filesystems: Top[FilesystemLine]
    systems: Top[SystemLine]
    package_managers: tuple[PackageManagerLine, ...]
    package_spread: tuple[PackageSpread, ...]
    waivers: Top[WaiverLine]
    problems: Mapping[str, str] = field(default_factory=dict)
