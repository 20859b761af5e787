"""One row a local group."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import IS_NAME, U32, column, table


@table()
class Group:
    """Local groups and their members."""

    name: str = column("Group name.", example="sudo", unredacted=IS_NAME)
    gid: U32 = column("Numeric id; Windows: the last part of its SID.")
    members: tuple[str, ...] = column(
        "Accounts listed as members; accounts that have it as their primary group are not "
        "included. Windows: names of local accounts, SIDs of others.",
        unredacted=IS_NAME,
    )
    administrators: tuple[str, ...] = column(
        "Accounts that may change the membership.", unredacted=IS_NAME
    )
    sid: str | None = column("Windows: security identifier.", example="S-1-5-32-544", default=None)
