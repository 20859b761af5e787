"""Accounts and groups of a Windows system, from the values of its SAM hive.

Of passwords we report only whether there is one: hashes are never decoded.

Sources of the layouts: sam.h and libsam.c of chntpw (F, V and C, of accounts), the structure
DOMAIN_ACCOUNT_F that readers such as impacket know (the account database's F), and Microsoft's
[MS-SAMR] 2.2.1.12 (account flags) and [MS-DTYP] 2.4.2 (SIDs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.root import Root

_DOMAINS = "SAM\\Domains"
_ACCOUNT = f"{_DOMAINS}\\Account"
_BUILTIN = f"{_DOMAINS}\\Builtin"
_BUILTIN_SID = "S-1-5-32"

_SID_HEAD = 8
_SID_LIMIT = 15  # sub-authorities, [MS-DTYP] 2.4.2.2
_MACHINE_SID = 24  # bytes of a SID with four sub-authorities

# V: seventeen entries of offset, length and a third number, then what they point at.
_V_DATA = 17 * 12
_NAME, _FULL_NAME, _COMMENT, _HOME, _NT_HASH = 1, 2, 3, 6, 14
# Lengths of an NT hash's entry without a hash in it: none at all, the head of one encrypted with
# RC4, and of one encrypted with AES (Windows 10 1607 and later).
_NO_HASH = (0, 4, 24)

# The account database's F: greatest and least age of a password, how long a lock and the count
# of failures last, in negative units of 100 ns; what passwords must be, length, history, failures.
_POLICY = struct.Struct("<24xqq8xqq12xIHHH")
_AGES = struct.Struct("<24xqq")
_NEVER = -(1 << 63)
_MINUTE = 60 * 10_000_000
_DAY = 86_400 * 10_000_000
_GREATEST = (1 << 32) - 1  # what is longer is for ever

_F = struct.Struct("<8xQ8xQQ8xIIH")  # last log-in, password's and account's times, ids, flags
_C = struct.Struct("<I12xII4xII4xIII")  # id, name, comment, members
_C_DATA = 0x34

FLAGS = (
    *("disabled", "home_required", "password_not_required", "temporary_duplicate", "normal"),
    *("mns_logon", "interdomain_trust", "workstation_trust", "server_trust"),
    *("password_never_expires", "locked_out", "reversible_encryption", "smartcard_required"),
    *("trusted_for_delegation", "not_delegated", "des_only", "no_preauthentication"),
)
"""Account flags by bit, from the lowest: [MS-SAMR]'s USER_* codes."""


@dataclass(frozen=True)
class Account:
    """A local account; times are microseconds since 1970.

    Attributes:
        rid: its number, the last part of its SID.
        group: the number of its primary group.
        flags: names of its flags.
        has_password: whether a password hash is on record.
    """

    rid: int
    group: int
    sid: str | None
    name: str
    full_name: str | None
    comment: str | None
    home: str | None
    flags: tuple[str, ...]
    has_password: bool
    last_login: int | None
    password_changed: int | None
    expires: int | None


@dataclass(frozen=True)
class Alias:
    """A local group, and the SIDs of its members."""

    rid: int
    sid: str | None
    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class SamPolicy:
    """The account database's own settings; times are negative, in units of 100 ns.

    Attributes:
        lockout: how long an account is locked.
        window: how long failed log-ins are counted.
        properties: bits of [MS-SAMR] 2.2.3.10.
        threshold: failed log-ins that lock an account.
    """

    max_age: int
    min_age: int
    lockout: int
    window: int
    properties: int
    min_length: int
    history: int
    threshold: int


def read(root: Root, problems: Problems) -> HiveKey:
    """The hive's keys that :func:`accounts` and :func:`aliases` take."""
    wanted = [
        Want(_ACCOUNT),
        Want(f"{_ACCOUNT}\\Users", 1),
        Want(f"{_ACCOUNT}\\Aliases", 1),
        Want(f"{_BUILTIN}\\Aliases", 1),
    ]
    return hives.read_system(root, "SAM", wanted, problems)


def accounts(sam: HiveKey, problems: Problems) -> Iterator[Account]:
    """The accounts, by number.

    Args:
        sam: the hive.
        problems: gets a message for each that cannot be decoded.
    """
    domain = machine_sid(sam)
    for key in _numbered(sam, f"{_ACCOUNT}\\Users"):
        try:
            yield _account(key, domain)
        except (struct.error, ValueError) as error:
            problems.note(f"account {key.name}: {error}")


def aliases(sam: HiveKey, problems: Problems) -> Iterator[Alias]:
    """The local groups, those that come with Windows first.

    Args:
        sam: the hive.
        problems: gets a message for each that cannot be decoded.
    """
    for path, domain in ((_BUILTIN, _BUILTIN_SID), (_ACCOUNT, machine_sid(sam))):
        for key in _numbered(sam, f"{path}\\Aliases"):
            try:
                yield _alias(key.data("C"), domain)
            except (struct.error, ValueError) as error:
                problems.note(f"group {key.name}: {error}")


def password_ages(sam: HiveKey) -> tuple[int | None, int | None]:
    """Days before a password may, and after which it must be changed; None for no such limit."""
    key = sam.find(_ACCOUNT)
    try:
        greatest, least = _AGES.unpack_from(key.data("F") if key else b"")
    except struct.error:
        return None, None
    return days(least), days(greatest)


def policy(sam: HiveKey) -> SamPolicy | None:
    """What is asked of passwords and log-ins; None when the hive does not say."""
    key = sam.find(_ACCOUNT)
    try:
        return SamPolicy(*_POLICY.unpack_from(key.data("F") if key else b""))
    except struct.error:
        return None


def days(age: int) -> int | None:
    """Whole days of a negative time; None for ever."""
    return _units(age, _DAY)


def minutes(age: int) -> int | None:
    """Whole minutes of a negative time; None for ever."""
    return _units(age, _MINUTE)


def _units(age: int, unit: int) -> int | None:
    count = -age // unit
    return count if _NEVER < age <= 0 and count <= _GREATEST else None


def machine_sid(sam: HiveKey) -> str | None:
    """The SID that those of local accounts begin with; it ends the account database's V."""
    key = sam.find(_ACCOUNT)
    data = key.data("V")[-_MACHINE_SID:] if key else b""
    try:
        return sid(data)[0]
    except ValueError:
        return None


def sid(data: bytes) -> tuple[str, int]:
    """A SID as text, from the start of some bytes, and how many it took.

    Raises:
        ValueError: there is none.
    """
    count = data[1] if len(data) >= _SID_HEAD else 0
    length = _SID_HEAD + 4 * count
    if not 0 < count <= _SID_LIMIT or data[0] != 1 or len(data) < length:
        raise ValueError("a SID is malformed")
    authority = int.from_bytes(data[2:_SID_HEAD], "big")
    parts = struct.unpack_from(f"<{count}I", data, _SID_HEAD)
    return "-".join(map(str, ("S-1", authority, *parts))), length


def _numbered(sam: HiveKey, path: str) -> list[HiveKey]:
    """The keys below a path that are named by a number, eight hex digits; by that number."""
    return sorted(
        (key for key in sam.below(path) if _rid(key.name) is not None), key=lambda key: key.name
    )


def _rid(name: str) -> int | None:
    try:
        return int(name, 16) if len(name) == 8 else None
    except ValueError:
        return None


def _account(key: HiveKey, domain: str | None) -> Account:
    login, changed, expires, rid, group, bits = _F.unpack_from(key.data("F"))
    data = key.data("V")
    return Account(
        rid=rid,
        group=group,
        sid=f"{domain}-{rid}" if domain else None,
        name=_entry(data, _NAME),
        full_name=_entry(data, _FULL_NAME) or None,
        comment=_entry(data, _COMMENT) or None,
        home=_entry(data, _HOME) or None,
        flags=tuple(name for bit, name in enumerate(FLAGS) if bits & 1 << bit),
        has_password=struct.unpack_from("<I", data, 12 * _NT_HASH + 4)[0] not in _NO_HASH,
        last_login=hives.filetime(login),
        password_changed=hives.filetime(changed),
        expires=hives.filetime(expires),
    )


def _entry(data: bytes, number: int) -> str:
    offset, length = struct.unpack_from("<II", data, 12 * number)
    return _text(data, _V_DATA + offset, length)


def _text(data: bytes, start: int, length: int) -> str:
    if start + length > len(data):
        raise ValueError("a string extends beyond its value")
    return hives.utf16(data[start : start + length])


def _alias(data: bytes, domain: str | None) -> Alias:
    rid, name_at, name_length, _, _, at, length, count = _C.unpack_from(data)
    members = []
    rest = data[_C_DATA + at :][:length]
    for _ in range(min(count, len(rest) // _SID_HEAD)):
        text, taken = sid(rest)
        members.append(text)
        rest = rest[taken:]
    return Alias(
        rid=rid,
        sid=f"{domain}-{rid}" if domain else None,
        name=_text(data, _C_DATA + name_at, name_length),
        members=tuple(members),
    )
