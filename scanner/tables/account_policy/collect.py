"""Password and lockout policy of a Windows system."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import hives, sam
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.account_policy.spec import AccountPolicy

_COMPLEX, _LOCK_ADMINISTRATORS, _REVERSIBLE = 0x01, 0x08, 0x10  # [MS-SAMR] 2.2.3.10


def collect(root: Root) -> Iterator[AccountPolicy]:
    """One row.

    Raises:
        NotApplicable: this is not Windows.
        IncompleteError: the hive cannot be read, or has no policy; raised after the row.
    """
    if not root.windows:
        raise NotApplicable("no Windows registry")
    problems = Problems()
    policy = sam.policy(sam.read(root, problems))
    if policy:
        yield describe(policy)
    elif not problems:
        problems.note(f"{hives.system_hive(root, 'SAM')}: has no account policy")
    problems.finish()


def describe(policy: sam.SamPolicy) -> AccountPolicy:
    """The policy's row."""
    return AccountPolicy(
        password_min_length=policy.min_length,
        password_history=policy.history,
        password_complexity=bool(policy.properties & _COMPLEX),
        password_reversible=bool(policy.properties & _REVERSIBLE),
        password_min_days=sam.days(policy.min_age) or None,
        password_max_days=sam.days(policy.max_age),
        lockout_threshold=policy.threshold,
        lockout_duration=sam.minutes(policy.lockout),
        lockout_window=sam.minutes(policy.window),
        lockout_of_administrators=bool(policy.properties & _LOCK_ADMINISTRATORS),
    )
