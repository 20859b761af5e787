"""The value in which Windows keeps its audit policy, PolAdtEv.

Sources: Microsoft's article 246120 for the form until Server 2003. That since Vista is not
documented: a head with the number of categories and where their sizes stand, then two bytes a
subcategory. The order of subcategories is that of the readers auditpol of RegRipper and of
dissect.target; a genuine Windows' defaults agree with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import get_args

from fleetscan.scanner.tables.audit_policy.spec import AuditPolicy, Category

_CATEGORIES: tuple[Category, ...] = get_args(Category)
_SUCCESS, _FAILURE = 1, 2

_OLD_FORM = (32, 44)  # lengths in bytes: Windows NT 4.0, and from 2000 to 2003
_HEAD = struct.Struct("<4xHxxH")  # number of categories, where their sizes stand
_VALUES_AT = 12
_LIMIT = 256  # subcategories

_NAMES: dict[Category, tuple[str, ...]] = {
    "system": (
        "Security State Change",
        "Security System Extension",
        "System Integrity",
        "IPsec Driver",
        "Other System Events",
    ),
    "logon/logoff": (
        "Logon",
        "Logoff",
        "Account Lockout",
        "IPsec Main Mode",
        "Special Logon",
        "IPsec Quick Mode",
        "IPsec Extended Mode",
        "Other Logon/Logoff Events",
        "Network Policy Server",
        "User / Device Claims",
        "Group Membership",
    ),
    "object access": (
        "File System",
        "Registry",
        "Kernel Object",
        "SAM",
        "Other Object Access Events",
        "Certification Services",
        "Application Generated",
        "Handle Manipulation",
        "File Share",
        "Filtering Platform Packet Drop",
        "Filtering Platform Connection",
        "Detailed File Share",
        "Removable Storage",
        "Central Policy Staging",
    ),
    "privilege use": (
        "Sensitive Privilege Use",
        "Non Sensitive Privilege Use",
        "Other Privilege Use Events",
    ),
    "detailed tracking": (
        "Process Creation",
        "Process Termination",
        "DPAPI Activity",
        "RPC Events",
        "Plug and Play Events",
        "Token Right Adjusted Events",
    ),
    "policy change": (
        "Audit Policy Change",
        "Authentication Policy Change",
        "Authorization Policy Change",
        "MPSSVC Rule-Level Policy Change",
        "Filtering Platform Policy Change",
        "Other Policy Change Events",
    ),
    "account management": (
        "User Account Management",
        "Computer Account Management",
        "Security Group Management",
        "Distribution Group Management",
        "Application Group Management",
        "Other Account Management Events",
    ),
    "ds access": (
        "Directory Service Access",
        "Directory Service Changes",
        "Directory Service Replication",
        "Detailed Directory Service Replication",
    ),
    "account logon": (
        "Credential Validation",
        "Kerberos Service Ticket Operations",
        "Other Account Logon Events",
        "Kerberos Authentication Service",
    ),
}


def parse(data: bytes) -> Iterator[AuditPolicy]:
    """What is audited, by category.

    Args:
        data: the value.

    Raises:
        ValueError: it is malformed.
    """
    try:
        yield from _old(data) if len(data) in _OLD_FORM else _new(data)
    except struct.error as error:
        raise ValueError("is cut off") from error


def _old(data: bytes) -> Iterator[AuditPolicy]:
    """A byte that turns auditing on, then four bytes a category and the number of these."""
    (count,) = struct.unpack_from("<I", data, len(data) - 4)
    if 4 + 4 * count > len(data) - 4:
        raise ValueError(f"has {count} categories")
    for category, value in zip(
        _CATEGORIES, struct.unpack_from(f"<{count}I", data, 4), strict=False
    ):
        yield _row(category, None, value if data[0] else 0)


def _new(data: bytes) -> Iterator[AuditPolicy]:
    categories, sizes_at = _HEAD.unpack_from(data)
    if categories > len(_CATEGORIES):
        raise ValueError(f"has {categories} categories")
    sizes = struct.unpack_from(f"<{categories}H", data, sizes_at)
    if sum(sizes) > _LIMIT:
        raise ValueError(f"has {sum(sizes)} subcategories")
    values = iter(struct.unpack_from(f"<{sum(sizes)}H", data, _VALUES_AT))
    for category, size in zip(_CATEGORIES, sizes, strict=False):
        names = _NAMES[category]
        for number in range(size):
            name = names[number] if number < len(names) else f"number {number + 1}"
            yield _row(category, name, next(values))


def _row(category: Category, subcategory: str | None, value: int) -> AuditPolicy:
    return AuditPolicy(
        category=category,
        subcategory=subcategory,
        success=bool(value & _SUCCESS),
        failure=bool(value & _FAILURE),
    )
