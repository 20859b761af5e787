"""When accounts last logged in: lastlog(5), wtmp(5) and Debian 13's lastlog2.

Sources: struct lastlog and struct utmp of glibc's bits/utmp.h on x86-64, which 64-bit ARM shares;
lastlog2.c of util-linux 2.41.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.root import Root

LASTLOG, WTMP, LASTLOG2 = "/var/log/lastlog", "/var/log/wtmp", "/var/lib/lastlog/lastlog2.db"

_LASTLOG = struct.Struct("<I32s256s")
_UTMP = struct.Struct("<hxxi32s4s32s256s4xiii36x")
_USER_PROCESS = 7  # utmp(5): a login
_WTMP_TAIL = 2048 * _UTMP.size  # bytes; older logins are in lastlog or nowhere
_QUERY = "SELECT Name, Time, RemoteHost, TTY FROM Lastlog2 LIMIT 100000"
_SECONDS_MAX = 2**32


@dataclass(frozen=True)
class Login:
    """A login: seconds since 1970, and the host it came from, or else its terminal."""

    seconds: int
    source: str | None


def last_logins(
    root: Root, accounts: Iterable[tuple[str, int]], problems: Problems
) -> dict[str, Login]:
    """Each account's last login, as far as any of the three files says.

    Args:
        root: the system.
        accounts: names and numbers.
        problems: gets a message for a file that cannot be read.
    """
    found: dict[str, Login] = {}
    sources = (_from_lastlog(root, accounts), _from_wtmp(root), _from_lastlog2(root, problems))
    for path, logins in zip((LASTLOG, WTMP, LASTLOG2), sources, strict=True):
        try:
            for name, login in logins:
                if name not in found or found[name].seconds < login.seconds:
                    found[name] = login
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.note(f"{path}: {reason(error)}")
    return found


def _from_lastlog(root: Root, accounts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, Login]]:
    with root.open(LASTLOG) as stream:
        for name, uid in accounts:
            # The file is as long as the largest number that ever logged in, but sparse.
            record = os.pread(stream.fileno(), _LASTLOG.size, uid * _LASTLOG.size)
            if len(record) == _LASTLOG.size:
                seconds, line, host = _LASTLOG.unpack(record)
                if seconds:
                    yield name, Login(seconds, _text(host) or _text(line))


def _from_wtmp(root: Root) -> Iterator[tuple[str, Login]]:
    with root.open(WTMP) as stream:
        size = os.fstat(stream.fileno()).st_size
        whole = size - size % _UTMP.size
        start = max(0, whole - _WTMP_TAIL)
        data = os.pread(stream.fileno(), whole - start, start)
    for record in _UTMP.iter_unpack(data[: len(data) - len(data) % _UTMP.size]):
        kind, _, line, _, user, host, _, seconds, _ = record
        name = _text(user)
        if kind == _USER_PROCESS and name and seconds > 0:
            yield name, Login(seconds, _text(host) or _text(line))
    if size % _UTMP.size:
        raise ValueError("its last record is cut off")


def _from_lastlog2(root: Root, problems: Problems) -> Iterator[tuple[str, Login]]:
    if not root.is_file(LASTLOG2):
        return
    for name, seconds, host, line in sqlite.select(root, LASTLOG2, _QUERY, problems):
        if isinstance(name, str) and isinstance(seconds, int) and 0 < seconds < _SECONDS_MAX:
            yield name, Login(seconds, sqlite.text(host) or sqlite.text(line) or None)


def _text(field: bytes) -> str | None:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape") or None
