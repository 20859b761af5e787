"""Last logins: binary records of lastlog and wtmp, and lastlog2's database."""

from __future__ import annotations

import json
import sqlite3
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.users import logins
from tests.scanner.tables.run_case import run

ACCOUNTS = (("root", 0), ("alice", 1000))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("etc", "var/log", "var/lib/lastlog"):
        (tmp_path / folder).mkdir(parents=True)
    passwd = "".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in ACCOUNTS)
    (tmp_path / "etc/passwd").write_text(passwd)
    return tmp_path


def _lastlog(tree: Path, uid: int, seconds: int, line: bytes, host: bytes) -> None:
    with (tree / "var/log/lastlog").open("wb") as stream:
        stream.seek(uid * 292)
        stream.write(struct.pack("<I32s256s", seconds, line, host))


def _utmp(kind: int, user: bytes, line: bytes, host: bytes, seconds: int) -> bytes:
    fields = (kind, 7, line, b"", user, host, 0, 0, seconds, 0)
    return struct.pack("<hxxi32s4s32s256shhxxxxii36x", *fields)


def _logins(tree: Path) -> dict[str, tuple[int, str | None]]:
    rows = map(json.loads, run("users", tree).rows)
    return {
        row["name"]: (row["last_login"], row.get("last_login_from"))
        for row in rows
        if "last_login" in row
    }


def test_lastlog_is_read_by_the_account_s_number(tree: Path) -> None:
    _lastlog(tree, 1000, 1_700_000_000, b"pts/0", b"10.0.0.7")
    assert _logins(tree) == {"alice": (1_700_000_000_000_000, "10.0.0.7")}


def test_latest_of_several_records_counts(tree: Path) -> None:
    _lastlog(tree, 0, 1_700_000_000, b"tty1", b"")
    wtmp = _utmp(7, b"root", b"tty2", b"", 1_700_000_500) + _utmp(
        8, b"root", b"", b"", 1_800_000_000
    )
    (tree / "var/log/wtmp").write_bytes(wtmp)
    assert _logins(tree) == {"root": (1_700_000_500_000_000, "tty2")}


def test_lastlog2_is_read(tree: Path) -> None:
    with sqlite3.connect(tree / "var/lib/lastlog/lastlog2.db") as database:
        database.execute(
            "CREATE TABLE Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT, RemoteHost TEXT,"
            " Service TEXT) STRICT"
        )
        values = [("alice", 1_750_000_000, "ssh", "::1", "sshd"), ("root", 0, "", "", "")]
        database.executemany("INSERT INTO Lastlog2 VALUES (?, ?, ?, ?, ?)", values)
    database.close()
    assert _logins(tree) == {"alice": (1_750_000_000_000_000, "::1")}


@pytest.mark.parametrize("path", [logins.LASTLOG2, logins.WTMP])
def test_damaged_record_file_is_a_failure_and_accounts_are_told(path: str, tree: Path) -> None:
    (tree / path.lstrip("/")).write_bytes(b"damaged")
    outcome = run("users", tree)
    assert len(outcome.rows) == len(ACCOUNTS)
    assert outcome.error.startswith(f"IncompleteError: {path}: ")


@settings(deadline=None)  # writes files, which is as slow as the machine is busy
@given(st.binary(max_size=1200))
def test_any_bytes_give_logins_or_problems(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "var/log").mkdir(parents=True)
        for name in ("lastlog", "wtmp"):
            (Path(folder) / "var/log" / name).write_bytes(data)
        with Root("test", folder) as root:
            found = logins.last_logins(root, ACCOUNTS, Problems())
    assert all(login.seconds > 0 for login in found.values())
