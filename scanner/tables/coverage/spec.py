"""One row a machine, root and table: whether it could be looked at."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import (
    F64,
    IS_DEVICE,
    IS_PATH,
    U64,
    Choice,
    Origin,
    Scope,
    column,
    table,
)


class CoverageStatus(Choice):
    """Whether a table could be looked at."""

    OK = "ok"
    EMPTY = "empty"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"


@table(scope=Scope.MACHINE, origin=Origin.HOST)
class Coverage:
    """What could be inspected, so that "nothing there" and "could not look" differ.

    If a table's status for a machine is failed, rules that read the table give unknown, never pass,
    unless ``unread`` shows that none of the files they need is among those that could not be read.
    """

    root: str | None = column(
        "The root that was inspected; null for tables about the whole machine.",
        unredacted=IS_DEVICE,
    )
    table_name: str = column("The fact table.", example="packages", unredacted="one of our tables")
    status: CoverageStatus = column(
        "ok: rows were gathered; empty: fleetscan looked, and there are none; not_applicable: "
        "this root has nothing that the table describes; failed: fleetscan could not look, or not "
        "to the end."
    )
    rows: U64 = column("Rows gathered; rows of a failed table are kept too.")
    seconds: F64 = column("Time the collector took.", unit="seconds")
    error: str | None = column("Why the status is failed or not_applicable.")
    unread: tuple[str, ...] | None = column(
        "Files that could not be read in full, if a failed table lacks only their rows. A name "
        "that ends in a slash is a directory whose files could not be read, such as a mountpoint "
        "where mounting failed. Null if more may be missing.",
        example="/etc/pam.d/common-auth",
        unredacted=IS_PATH,
    )
