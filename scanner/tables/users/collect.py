"""Local accounts, from passwd(5) and shadow(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND, NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.users import logins, windows
from fleetscan.scanner.tables.users.spec import Algorithm, PasswordState, User

ACCOUNTS = "/etc/passwd"
SHADOW = "/etc/shadow"

# Hash prefixes of crypt(5) in libxcrypt; SunMD5 has two forms, "$md5$" and "$md5,rounds=".
_PREFIXES: tuple[tuple[str, Algorithm], ...] = (
    ("$y$", "yescrypt"),
    ("$gy$", "gost-yescrypt"),
    ("$7$", "scrypt"),
    ("$2a$", "bcrypt"),
    ("$2b$", "bcrypt"),
    ("$2x$", "bcrypt"),
    ("$2y$", "bcrypt"),
    ("$6$", "sha512"),
    ("$5$", "sha256"),
    ("$sha1", "sha1"),
    ("$md5", "sunmd5"),
    ("$1$", "md5"),
    ("$3$", "nt"),
    ("$", "unknown"),
)
_BSDICRYPT = re.compile(r"_[./0-9A-Za-z]{19}")
_DES = re.compile(r"[./0-9A-Za-z]{13}")
_OTHER_HASH = re.compile(r"[./0-9A-Za-z]{14,}")

_SECONDS_A_DAY = 86400
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_LAST_DAY = 2_932_896  # 9999-12-31: later days, used as "never", are given as that one


@dataclass(frozen=True)
class Shadow:
    """One entry of shadow(5); numbers are days, None where the field is empty or negative."""

    password: str
    changed: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    warning: int | None = None
    inactive: int | None = None
    expires: int | None = None


def collect(root: Root) -> Iterator[User]:
    """One row an entry of /etc/passwd, or an account of Windows.

    Raises:
        NotApplicable: there is no /etc/passwd.
        OSError: /etc/passwd cannot be read.
        IncompleteError: entries are malformed or /etc/shadow cannot be read; raised after all rows.
    """
    if root.windows:
        yield from windows.collect(root)
        return
    text = root.try_text(ACCOUNTS)
    if text is None:
        raise NotApplicable(f"no {ACCOUNTS}")
    problems = Problems()
    shadow: dict[str, Shadow] = {}
    try:
        shadow = parse_shadow(root.try_text(SHADOW) or "", problems)
    except OSError as error:
        problems.note(f"{SHADOW}: {reason(error)}")
    accounts = [(fields[0], int(fields[2])) for fields in _accounts(text, [])]
    last = logins.last_logins(root, accounts, problems)
    yield from parse_passwd(text, shadow, problems, last)
    problems.finish()


def parse_passwd(
    text: str,
    shadow: Mapping[str, Shadow],
    problems: Problems,
    last_logins: Mapping[str, logins.Login] = MappingProxyType({}),
) -> Iterator[User]:
    """Rows of passwd(5) text, in its order.

    Args:
        text: the file's content.
        shadow: entries of shadow(5) by login name.
        problems: gets a message when entries are malformed.
        last_logins: last logins by login name.
    """
    problems.extend(colonfile.damage(ACCOUNTS, text, colons=6))
    malformed: list[int] = []
    for fields in _accounts(text, malformed):
        yield _user(fields, shadow.get(fields[0]), last_logins.get(fields[0]))
    if malformed:
        problems.note(colonfile.malformed(ACCOUNTS, malformed))


def _accounts(text: str, malformed: list[int]) -> Iterator[list[str]]:
    for number, fields in colonfile.records(text):
        # glibc lets trailing fields be missing, and a shell contain colons.
        if len(fields) < 4 or not fields[0] or not all(map(colonfile.is_id, fields[2:4])):
            malformed.append(number)
        else:
            yield fields + [""] * 3


def _user(fields: list[str], shadow: Shadow | None, login: logins.Login | None) -> User:
    if fields[1] == "x":
        state, algorithm = password_state(shadow.password) if shadow else ("unknown", None)
    else:
        state, algorithm = password_state(fields[1])
    aging = shadow or Shadow("")
    return User(
        name=fields[0],
        uid=int(fields[2]),
        gid=int(fields[3]),
        comment=fields[4] or None,
        home=fields[5] or None,
        shell=":".join(fields[6:]).rstrip(":") or "/bin/sh",
        password=state,
        password_algorithm=algorithm,
        password_changed=_midnight(aging.changed),
        password_min_days=aging.minimum,
        password_max_days=aging.maximum,
        password_warn_days=aging.warning,
        password_inactive_days=aging.inactive,
        expires=_midnight(aging.expires),
        flags=(),
        last_login=login.seconds * MICROSECOND if login else None,
        last_login_from=login.source if login else None,
    )


def parse_shadow(text: str, problems: Problems) -> dict[str, Shadow]:
    """Entries of shadow(5) text by login name; the first entry of a name counts.

    Args:
        text: the file's content.
        problems: gets a message when entries are malformed.
    """
    problems.extend(colonfile.damage(SHADOW, text, colons=8))
    entries: dict[str, Shadow] = {}
    malformed = []
    for number, fields in colonfile.records(text):
        days = [field.strip() for field in fields[2:8]]
        if not _is_whole(fields) or not fields[0] or not all(map(_is_days, days)):
            malformed.append(number)
            continue
        entries.setdefault(fields[0], Shadow(fields[1], *map(_days, days)))
    if malformed:
        problems.note(colonfile.malformed(SHADOW, malformed))
    return entries


def _is_whole(fields: Sequence[str]) -> bool:
    """Whether an entry of shadow(5) has as many fields as glibc's sgetspent(3) accepts.

    Of one that lost a colon, each number would be taken for another: nine fields, eight where the
    last of them is not empty, or the five of the old form, which may end in a colon.
    """
    count = len(fields)
    if count in (5, 8):
        return bool(fields[-1])
    return count == 9 or (count == 6 and not fields[5])


def password_state(field: str) -> tuple[PasswordState, Algorithm | None]:
    """What a password field of passwd(5) or shadow(5) lets its account do.

    Returns:
        The state, and the hash's algorithm where there is a hash.
    """
    if not field:
        return "empty", None
    algorithm = hash_algorithm(field.lstrip("!"))
    if algorithm is None:
        return "none", None
    # passwd -l and usermod -L put "!" before the hash.
    return ("locked" if field.startswith("!") else "set"), algorithm


def hash_algorithm(text: str) -> Algorithm | None:
    """The algorithm of a crypt(5) hash; None for text that no password hashes to."""
    for prefix, algorithm in _PREFIXES:
        if text.startswith(prefix):
            return algorithm
    if _DES.fullmatch(text):
        return "des"
    if _BSDICRYPT.fullmatch(text):
        return "bsdicrypt"
    return "unknown" if _OTHER_HASH.fullmatch(text) else None


def _is_days(field: str) -> bool:
    return not field or _NUMBER.fullmatch(field) is not None


def _days(field: str) -> int | None:
    # Negative numbers switch the limit off, as an empty field does.
    return int(field) if field and not field.startswith("-") else None


def _midnight(days: int | None) -> int | None:
    return None if days is None else min(days, _LAST_DAY) * _SECONDS_A_DAY * MICROSECOND
