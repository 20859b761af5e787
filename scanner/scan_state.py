"""What is known of one machine so far, and the rows about its scan that are made of it.

However a scan ends, and at whatever stage: the machine has one row of its own, and coverage says
of every table whether it could be looked at.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fleetscan.appliance.ground.errors import FleetscanError, PreflightError
from fleetscan.appliance.ground.schema import MICROSECOND, Origin, Scope, microseconds
from fleetscan.appliance.qemu_args import RanBy
from fleetscan.scanner.disk import Disk as SourceDisk
from fleetscan.scanner.preflight import DiskPlan
from fleetscan.scanner.preflight.image import Snapshot
from fleetscan.scanner.preflight.plan import identity_of_token
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from fleetscan.scanner.tables.disk_snapshots.spec import DiskSnapshot
from fleetscan.scanner.tables.disks.spec import DiskRow
from fleetscan.scanner.tables.left_out.spec import LeftOutRow
from fleetscan.scanner.tables.machines.spec import MachineRow, Outcome, Stage

NOT_REACHED = "not reached: "
"""How coverage says that the scan ended before a table."""

_TEXT = 500  # characters of an error that a row keeps
_WARNINGS = 3  # that stand beside the reason why facts are incomplete


@dataclass(frozen=True)
class MachineSummary:
    """What became of one machine: the gist of its ``machines`` row."""

    machine_id: str
    outcome: Outcome
    error: str | None
    roots: int
    seconds: float


@dataclass
class ScanState:
    """What is known of a machine so far.

    Attributes:
        machine: the machine.
        stage: how far its scan came; None when nobody knows.
        error: what ended the scan early.
        error_kind: what kind of error that is, when its class does not say.
        seconds: time that each stage took.
        disks: a row for each of its disks.
        snapshots: a row for each snapshot inside one of them.
        plans: how the disks that can be opened are opened, by their place on the machine.
        unfit: fingerprints of the disks whose content alone keeps them closed, likewise.
        coverage: a row for each table that was looked at.
        roots: the operating systems found.
        warnings: what could not be opened, a line each.
        ran_by: what ran the appliance.
        appliance: content address of the appliance and its agent.
        confinement: the layers of confinement that held.
    """

    machine: Machine
    stage: Stage | None = Stage.SOURCE
    error: FleetscanError | None = None
    error_kind: str | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)
    disks: list[DiskRow] = field(default_factory=list)
    snapshots: list[DiskSnapshot] = field(default_factory=list)
    plans: dict[int, DiskPlan] = field(default_factory=dict)
    unfit: dict[int, str] = field(default_factory=dict)
    coverage: list[Coverage] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ran_by: RanBy | None = None
    appliance: str | None = None
    confinement: tuple[str, ...] = ()

    @contextlib.contextmanager
    def at(self, stage: Stage) -> Iterator[None]:
        """Note that the scan is at a stage, and how long that takes."""
        self.stage = stage
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = time.monotonic() - begun

    def add_disk(
        self, disk: SourceDisk, plan: DiskPlan | None = None, error: FleetscanError | None = None
    ) -> None:
        """Note what preflight said of the machine's next disk: how to open it, or why not."""
        index = len(self.disks)
        if plan is not None:
            self.plans[index] = plan
        if isinstance(error, PreflightError) and error.identity is not None:
            self.unfit[index] = error.identity
        top = plan.layers[0] if plan else None
        row = DiskRow(
            disk=index,
            device=None,
            path=disk.path,
            member=disk.member,
            format=top.format if top else None,  # type: ignore[arg-type] # one of the formats
            virtual_size=plan.virtual_size if plan else None,
            file_size=top.size if top else None,
            allocated=plan.allocated if plan else None,
            cluster_size=plan.cluster_size if plan else None,
            sector_size=plan.sector_size if plan else None,
            mark=plan.mark if plan else None,
            encryption="luks" if plan and plan.encrypted else None,
            backing_chain=plan.backing_chain if plan else (),
            extents=plan.extent_files if plan else (),
            error=_shortened(error),
        )
        self.disks.append(row)
        if plan is not None:
            self.snapshots += [_snapshot_row(index, snapshot) for snapshot in plan.snapshots]

    def close_disk(self, index: int, error: FleetscanError) -> None:
        """Note that a disk stays closed for all that is known of it."""
        self.disks[index] = replace(self.disks[index], error=_shortened(error))
        self.warnings.append(error.told)
        del self.plans[index]

    def name_disk(self, index: int, device: str) -> None:
        """Note a disk's name inside the appliance."""
        self.disks[index] = replace(self.disks[index], device=device)

    def cover(
        self,
        table: str,
        root: str | None,
        status: CoverageStatus,
        *,
        rows: int = 0,
        seconds: float = 0.0,
        error: str | None = None,
        unread: tuple[str, ...] | None = None,
    ) -> None:
        """Note whether a table could be inspected."""
        row = Coverage(
            root=root,
            table_name=table,
            status=status,
            rows=rows,
            seconds=seconds,
            error=error[:_TEXT] if error else None,
            unread=unread,
        )
        self.coverage.append(row)

    def cover_unreached(self) -> None:
        """Note of every table that the scan did not come to that it could not be looked at."""
        if self.error is None:
            return
        reached = {(row.table_name, row.root) for row in self.coverage}
        for table in load_tables().values():
            if table.origin is Origin.GUEST or table.scope is Scope.ROOT:
                per_root = table.scope is Scope.ROOT and self.roots
                roots: list[str | None] = list(self.roots) if per_root else [None]
                for root in roots:
                    if (table.name, root) not in reached:
                        reason = f"{NOT_REACHED}{self.error}"
                        self.cover(table.name, root, CoverageStatus.FAILED, error=reason)

    def left_out_rows(self) -> list[LeftOutRow]:
        """A row for each file of the source that is not a machine because of this one."""
        return [
            LeftOutRow(path=file.path, why=file.why, named_by=file.named_by)
            for file in self.machine.left_out
        ]

    def machine_row(
        self, *, started: float, seconds: float, attempt: int, run_id: str
    ) -> MachineRow:
        """The machine's own row.

        Args:
            started: when its scan began, in seconds since 1970 UTC.
            seconds: how long it took.
            attempt: how often this run has tried it.
            run_id: the run that holds its facts.
        """
        outcome, error = self._outcome()
        return MachineRow(
            outcome=outcome,
            error=error[:_TEXT] if error else None,
            error_kind=self._kind(outcome),
            stage=self._stage(outcome),
            source=self.machine.source,
            disks=len(self.machine.disks),
            roots=len(self.roots),
            started=int(started * MICROSECOND),
            gathered=int(started * MICROSECOND),
            seconds=seconds,
            seconds_preflight=self.seconds.get(Stage.PREFLIGHT),
            seconds_appliance=self.seconds.get(Stage.APPLIANCE),
            seconds_discover=self.seconds.get(Stage.DISCOVER),
            seconds_collect=self.seconds.get(Stage.COLLECT),
            attempts=attempt,
            torn=any(plan.in_use for plan in self.plans.values()),
            accelerator=self.ran_by,
            appliance=self.appliance,
            confinement=self.confinement,
            identity=self._identity(),
            facts_run=run_id,
        )

    def _outcome(self) -> tuple[Outcome, str | None]:
        if not self.roots:
            return Outcome.FAILED, self.error.told if self.error else self._no_system()
        if self.error is not None:
            return Outcome.PARTIAL, self.error.told
        failed = [row for row in self.coverage if row.status is CoverageStatus.FAILED]
        if failed:
            names = ", ".join(dict.fromkeys(row.table_name for row in failed))
            reason = next((row.error for row in failed if row.error), "no reason given")
            more = [text for text in self.warnings if text not in reason]
            return Outcome.PARTIAL, "; ".join(
                [f"incomplete: {names} ({reason})", *more[:_WARNINGS]]
            )
        if self.warnings:
            return Outcome.PARTIAL, self.warnings[0]
        return Outcome.OK, None

    def _stage(self, outcome: Outcome) -> Stage | None:
        if outcome is Outcome.OK:
            return None
        # A scan that found no system still ran to its end, for the tables of the machine.
        missed = self.error is None and not self.roots
        return Stage.DISCOVER if missed else self.stage

    def _no_system(self) -> str:
        count = len(self.machine.disks)
        disks = "1 disk" if count == 1 else f"{count} disks"
        why = f": {'; '.join(self.warnings)}" if self.warnings else ""
        return f"no operating system found on {disks}{why}"

    def _kind(self, outcome: Outcome) -> str | None:
        if self.error is not None:
            return self.error_kind or type(self.error).__name__
        if outcome is Outcome.OK:
            return None
        return "IncompleteFacts" if self.roots else "NoOperatingSystem"

    def _identity(self) -> str | None:
        plans = [self.plans.get(index) for index in range(len(self.machine.disks))]
        if self.machine.identity is not None:
            whole = all(plan is not None and not plan.in_use for plan in plans)
            return identity_of_token(self.machine.identity) if whole else None
        found = (plan.identity if plan else self.unfit.get(i) for i, plan in enumerate(plans))
        identities = [identity for identity in found if identity]
        return ":".join(identities) if identities and len(identities) == len(plans) else None


def _snapshot_row(disk: int, snapshot: Snapshot) -> DiskSnapshot:
    return DiskSnapshot(
        disk=disk,
        snapshot_id=os.fsdecode(snapshot.id),
        name=os.fsdecode(snapshot.name),
        created=microseconds(snapshot.created_ns),
        virtual_size=snapshot.virtual_size,
        state_size=snapshot.state_size,
    )


def _shortened(error: FleetscanError | None) -> str | None:
    return error.told[:_TEXT] if error else None
