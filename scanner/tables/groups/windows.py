"""Local groups of a Windows system, from its SAM hive."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import sam
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.groups.spec import Group


def collect(root: Root) -> Iterator[Group]:
    """One row a local group; members that are not local accounts are given by their SID.

    Raises:
        IncompleteError: the hive, an account or a group cannot be read; raised after all rows.
    """
    problems = Problems()
    hive = sam.read(root, problems)
    names = {account.sid: account.name for account in sam.accounts(hive, problems)}
    for alias in sam.aliases(hive, problems):
        yield Group(
            name=alias.name,
            gid=alias.rid,
            members=tuple(names.get(member, member) for member in alias.members),
            administrators=(),
            sid=alias.sid,
        )
    problems.finish()
