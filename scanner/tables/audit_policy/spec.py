"""One row a kind of event that Windows may audit."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import column, table

Category = Literal[
    "system",
    "logon/logoff",
    "object access",
    "privilege use",
    "detailed tracking",
    "policy change",
    "account management",
    "ds access",
    "account logon",
]


@table()
class AuditPolicy:
    """Audit policy of Windows: which events its security log records.

    This is the policy in force when the system last ran, as ``auditpol /get /category:*`` shows it,
    wherever it was set. Windows XP and Server 2003 have only categories.
    """

    category: Category = column("Category of the events.")
    subcategory: str | None = column(
        "Kind of the events, as auditpol names it in English; null for a whole category.",
        example="Special Logon",
    )
    success: bool = column("Whether successes are recorded.")
    failure: bool = column("Whether failures are recorded.")
