"""One row a local account."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import I64, IS_NAME, IS_PATH, U32, Timestamp, column, table

PasswordState = Literal["set", "empty", "locked", "none", "unknown"]
Algorithm = Literal[
    "yescrypt",
    "gost-yescrypt",
    "scrypt",
    "bcrypt",
    "sha512",
    "sha256",
    "sha1",
    "sunmd5",
    "md5",
    "nt",
    "bsdicrypt",
    "des",
    "unknown",
]


@table()
class User:
    """Local accounts with the state of their passwords, never the hashes.

    Windows: the accounts of its SAM database; a disabled account's password counts as locked.
    """

    name: str = column("Login name.", example="root", unredacted=IS_NAME)
    uid: U32 = column("Numeric id; Windows: the last part of its SID.")
    gid: U32 = column("Numeric id of the primary group.")
    comment: str | None = column("GECOS field; Windows: the full name, or else the description.")
    home: str | None = column("Home directory.", unredacted=IS_PATH)
    shell: str | None = column(
        "Login shell; an empty field means /bin/sh and is stored as /bin/sh; null on Windows.",
        unredacted=IS_PATH,
        default=None,
    )
    password: PasswordState = column(
        "set: a password works; empty: logs in without one; locked: a password exists but is "
        "locked; none: no password can match; unknown: the shadow file could not be read or "
        "lacks the account."
    )
    password_algorithm: Algorithm | None = column(
        "Hash algorithm, from its crypt(5) prefix; unknown for a prefix that crypt(5) does not "
        "list; null if there is no hash.",
        example="yescrypt",
    )
    password_changed: Timestamp | None = column(
        "Day of the last password change; 1970-01-01 means that the next login must change it. "
        "Windows: the exact time."
    )
    password_min_days: I64 | None = column("Days before it may be changed.", unit="days")
    password_max_days: I64 | None = column("Days after which it must be changed.", unit="days")
    password_warn_days: I64 | None = column(
        "Days of warning before that.", unit="days", default=None
    )
    password_inactive_days: I64 | None = column(
        "Days after expiry until the account closes.", unit="days", default=None
    )
    expires: Timestamp | None = column("Day on which the account expires.")
    sid: str | None = column(
        "Windows: security identifier.", example="S-1-5-21-1-2-3-1001", default=None
    )
    flags: tuple[str, ...] = column(
        "Windows: account flags, such as disabled, locked_out, password_not_required, "
        "password_never_expires.",
        example="password_never_expires",
    )
    last_login: Timestamp | None = column(
        "Last recorded login, from lastlog, lastlog2 or the end of wtmp, or from the Windows "
        "registry. Null if none is recorded."
    )
    last_login_from: str | None = column(
        "Host that it came from, or otherwise its terminal.", example="10.0.0.17", default=None
    )
