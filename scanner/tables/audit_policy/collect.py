"""Audit policy of Windows, from its SECURITY hive."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.audit_policy import events
from fleetscan.scanner.tables.audit_policy.spec import AuditPolicy

_KEY = "Policy\\PolAdtEv"


def collect(root: Root) -> Iterator[AuditPolicy]:
    """One row a kind of event.

    Raises:
        NotApplicable: this is not Windows.
        IncompleteError: the hive cannot be read, or the policy in it; raised after all rows.
    """
    if not root.windows:
        raise NotApplicable("no Windows registry")
    problems = Problems()
    security = hives.read_system(root, "SECURITY", [Want(_KEY)], problems)
    key = security.find(_KEY)
    if key:
        try:
            yield from events.parse(key.data(""))
        except ValueError as error:
            problems.note(f"{hives.system_hive(root, 'SECURITY')}: {_KEY}: {error}")
    problems.finish()
