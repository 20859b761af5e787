"""One row a local group."""

from __future__ import annotations

from scanner.schema import U32, column, table


@table()
class Group:
    """Local groups and their members."""

    name: str = column("Group name.", example="sudo")
    gid: U32 = column("Numeric id.")
    members: tuple[str, ...] = column(
        "Accounts listed as members; those with it as primary group are not listed."
    )
    administrators: tuple[str, ...] = column("Accounts that may change the membership.")
