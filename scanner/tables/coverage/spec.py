"""One row a machine, root and table: whether it could be looked at."""

from __future__ import annotations

from typing import Literal

from scanner.schema import F64, IS_DEVICE, IS_PATH, U64, Origin, Scope, column, table


@table(scope=Scope.MACHINE, origin=Origin.HOST)
class Coverage:
    """What could be looked at, so that "nothing there" and "could not look" differ.

    A rule over a table whose status is not ok for a machine gives unknown, never pass; unless
    ``unread`` says that no file which the rule looks at is among those that could not be read.
    """

    root: str | None = column(
        "The root that was looked at; null for tables about the whole machine.",
        unredacted=IS_DEVICE,
    )
    table_name: str = column("The fact table.", example="packages", unredacted="one of our tables")
    status: Literal["ok", "not_applicable", "failed", "empty"] = column(
        "ok: rows were gathered; empty: looked, and there are none; not_applicable: this root "
        "has nothing that the table describes; failed: could not look, or not to the end."
    )
    rows: U64 = column("Rows gathered; those of a failed table are kept as well.")
    seconds: F64 = column("Time the collector took.", unit="seconds")
    error: str | None = column("Why the status is failed or not_applicable.")
    unread: tuple[str, ...] | None = column(
        "Files that could not be read, or not to their ends, where their rows are all that a "
        "failed table lacks; with a slash at its end, a directory of whose files the same holds, "
        "such as a mountpoint that nothing could be mounted on. Null where more may lack.",
        example="/etc/pam.d/common-auth",
        unredacted=IS_PATH,
    )
