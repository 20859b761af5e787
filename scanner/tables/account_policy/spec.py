"""One row a Windows: what it asks of passwords, and when it locks accounts."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import U16, U32, column, table


@table()
class AccountPolicy:
    """Password and lockout policy of Windows for its local accounts, from its SAM hive.

    This is the policy in force, wherever it was set; a domain's policy is on its controllers. For
    Unix systems, ``users`` has the ages of passwords and ``config`` has PAM's requirements.
    """

    password_min_length: U16 = column("Characters that a password must have.", example="14")
    password_history: U16 = column("Former passwords that may not be used again.", example="24")
    password_complexity: bool = column(
        "Whether a password must contain several kinds of characters."
    )
    password_reversible: bool = column(
        "Whether passwords are stored in a form that can be decrypted."
    )
    password_min_days: U32 | None = column(
        "Days before a password may be changed; null for none.", unit="days"
    )
    password_max_days: U32 | None = column(
        "Days after which a password must be changed; null for never.", unit="days"
    )
    lockout_threshold: U16 = column(
        "Failed log-ins after which an account is locked; 0 for never.", example="5"
    )
    lockout_duration: U32 | None = column(
        "How long it stays locked; null until somebody unlocks it.", unit="minutes"
    )
    lockout_window: U32 | None = column(
        "How long failed log-ins are counted; null forever.", unit="minutes"
    )
    lockout_of_administrators: bool = column("Whether the built-in administrator is locked too.")
