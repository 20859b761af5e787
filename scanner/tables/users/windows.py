"""Local accounts of a Windows system, from its SAM hive."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import sam
from fleetscan.appliance.guest.readers.sam import Account
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.users.spec import PasswordState, User


def collect(root: Root) -> Iterator[User]:
    """One row an account.

    Raises:
        IncompleteError: the hive or an account cannot be read; raised after all rows.
    """
    problems = Problems()
    hive = sam.read(root, problems)
    ages = sam.password_ages(hive)
    for account in sam.accounts(hive, problems):
        yield _user(account, *ages)
    problems.finish()


def _user(account: Account, least: int | None, greatest: int | None) -> User:
    never = "password_never_expires" in account.flags
    return User(
        name=account.name,
        uid=account.rid,
        gid=account.group,
        comment=account.full_name or account.comment,
        home=account.home,
        password=_password(account),
        password_algorithm="nt" if account.has_password else None,
        password_changed=account.password_changed,
        password_min_days=least,
        password_max_days=None if never else greatest,
        expires=account.expires,
        sid=account.sid,
        flags=account.flags,
        last_login=account.last_login,
    )


def _password(account: Account) -> PasswordState:
    if "disabled" in account.flags:
        return "locked" if account.has_password else "none"
    return "set" if account.has_password else "empty"
