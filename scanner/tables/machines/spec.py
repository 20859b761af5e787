"""One row a machine and run: what became of it."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import (
    F64,
    IS_DIGEST,
    U8,
    U16,
    Choice,
    Origin,
    Scope,
    Timestamp,
    column,
    table,
)


class Outcome(Choice):
    """What became of a machine, the best first."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


class Stage(Choice):
    """How far the scan of a machine came, in the order of the stages."""

    SOURCE = "source"
    PREFLIGHT = "preflight"
    APPLIANCE = "appliance"
    DISCOVER = "discover"
    COLLECT = "collect"


@table(scope=Scope.MACHINE, origin=Origin.RUN)
class MachineRow:
    """What was scanned, and what became of it.

    Every machine of a run has exactly one row here, even if nothing of it could be read.
    """

    outcome: Outcome = column(
        "ok: everything requested was gathered; partial: some of it was, see coverage; failed: no "
        "operating system could be read, so no rule can pass."
    )
    error: str | None = column(
        "Why the outcome is not ok, in one line.",
        example="no operating system found on 1 disk",
    )
    error_kind: str | None = column("The error's class, stable enough to group by.")
    stage: Stage | None = column("Stage that the machine had reached when the error occurred.")
    source: str = column("The source that named the machine.", example="/srv/images")
    disks: U16 = column("Number of disks the machine has.")
    roots: U16 = column("Number of operating systems found on them.")
    started: Timestamp = column("When its scan began, or when it was found to be unchanged.")
    gathered: Timestamp | None = column(
        "When the scan began that gathered its facts: before `started` for an unchanged machine."
    )
    seconds: F64 = column("Total time of its scan.", unit="seconds")
    seconds_preflight: F64 | None = column("Time for preflight of its disks.", unit="seconds")
    seconds_appliance: F64 | None = column("Time until its appliance was ready.", unit="seconds")
    seconds_discover: F64 | None = column(
        "Time to find volumes, filesystems and roots.", unit="seconds"
    )
    seconds_collect: F64 | None = column("Time for all collectors.", unit="seconds")
    attempts: U8 = column("How often its scan was started in this run.")
    torn: bool = column(
        "Whether it was scanned while a running guest was using it (--live), so that rows may be "
        "inconsistent."
    )
    accelerator: Literal["kvm", "tcg", "none"] | None = column(
        "What ran the appliance; none for a plain directory; null when none was started."
    )
    appliance: str | None = column(
        "Content address of the appliance that read it.", unredacted=IS_DIGEST
    )
    confinement: tuple[str, ...] = column(
        "Layers of confinement that held for QEMU and qemu-img on this host: user, namespaces, "
        "root, seccomp, landlock, cgroup; see the threat model. Empty for a plain directory.",
        example="namespaces",
        unredacted="made by us",
    )
    identity: str | None = column(
        "Fingerprint of every file in the machine's backing chains, by which fleetscan recognises "
        "an unchanged machine; or of the `identity` that its inventory gives.",
        unredacted=IS_DIGEST,
    )
    facts_run: str = column(
        "The run whose tables hold this machine's facts: this one or, if it did not change, an "
        "earlier one; or a later one, which took over the facts of a run that was deleted.",
        unredacted="made by us",
    )
