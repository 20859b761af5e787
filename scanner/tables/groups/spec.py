"""One row a local group."""

from __future__ import annotations

from scanner.schema import U32, column, table


@table()
class Group:
    """Local groups and their members."""

    name: str = column("Group name.", example="sudo")
    gid: U32 = column("Numeric id; Windows: the last part of its SID.")
    members: tuple[str, ...] = column(
        "Accounts listed as members; those with it as primary group are not listed. "
        "Windows: names of local accounts, SIDs of others."
    )
    administrators: tuple[str, ...] = column("Accounts that may change the membership.")
    sid: str | None = column("Windows: security identifier.", example="S-1-5-32-544")
