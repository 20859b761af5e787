"""rpm databases: finding and checking them, with a librpm of the test's own.

The real librpm reads the real databases in test_cases.py.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import IncompleteError
from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.collect import collect
from fleetscan.scanner.tables.packages.managers import rpmdb
from fleetscan.scanner.tables.packages.purl import Distribution
from tests.scanner.tables.run_case import REPOSITORY

Header = dict[str, Any]  # Any: as librpm's binding gives it

ROCKY = Distribution("rocky", "9.4")

PLAIN: Header = {
    **dict.fromkeys(rpmdb.TAGS),
    "name": "openssl",
    "version": "3.0.7",
    "release": "24.el9",
    "arch": "x86_64",
}
NDB_HEADER = b"RpmP" + bytes(8) + struct.pack("<I", 1) + bytes(16)


Librpm = Callable[[list[Header]], None]
"""Installs a librpm that knows these headers, each by the name of its package."""


@pytest.fixture
def librpm(monkeypatch: pytest.MonkeyPatch) -> Librpm:
    def install(headers: list[Header]) -> None:
        known = {f"{header['name']}".encode(): header for header in headers}
        error = type("error", (Exception,), {})

        def parse(blob: bytes) -> Header:
            if blob not in known:
                raise error("bad header")
            return known[blob]

        monkeypatch.setitem(sys.modules, "rpm", SimpleNamespace(hdr=parse, error=error))

    return install


def _tree(top: Path, path: str, content: bytes) -> Path:
    file = top / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _sqlite(path: Path, *blobs: bytes | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
    connection.executemany("INSERT INTO Packages VALUES (?, ?)", enumerate(blobs))
    connection.commit()
    connection.close()


def _collect(top: Path) -> tuple[list[str], str]:
    names: list[str] = []
    with Root("r", str(top)) as root:
        try:
            names.extend(row.name for row in collect(root))
        except IncompleteError as error:
            return names, str(error)
    return names, ""


def test_header_becomes_a_row() -> None:
    row = rpmdb.from_header(
        {
            **PLAIN,
            "epoch": 1,
            "sourcerpm": "openssl-libs-extra-3.0.7-24.el9.src.rpm",
            "vendor": "Red Hat, Inc.",
            "longsize": 2**33,
            "installtime": 1_700_000_000,
        },
        ROCKY,
    )
    assert (row.version, row.epoch, row.upstream_version) == ("1:3.0.7-24.el9", 1, "3.0.7")
    assert (row.source_name, row.source_version) == ("openssl-libs-extra", "3.0.7-24.el9")
    assert row.installed_size == 2**33
    assert row.installed_at == 1_700_000_000_000_000
    assert row.vendor == "Red Hat, Inc."
    assert row.purl == ("pkg:rpm/rocky/openssl@3.0.7-24.el9?arch=x86_64&distro=rocky-9.4&epoch=1")


@pytest.mark.parametrize(
    ("distro", "vendor"),
    [("rhel", "redhat"), ("opensuse-leap", "opensuse"), ("sles", "sles"), ("fedora", "fedora")],
)
def test_package_urls_name_the_vendor_as_vulnerability_databases_do(
    distro: str, vendor: str
) -> None:
    row = rpmdb.from_header(PLAIN, Distribution(distro, "9"))
    assert row.purl.startswith(f"pkg:rpm/{vendor}/openssl@3.0.7-24.el9?arch=x86_64&distro={distro}")


def test_epoch_zero_is_stated_as_rpm_states_it() -> None:
    assert rpmdb.from_header({**PLAIN, "epoch": 0}, ROCKY).version == "0:3.0.7-24.el9"


def test_public_key_has_no_architecture() -> None:
    key = {
        **PLAIN,
        "name": "gpg-pubkey",
        "version": "8483c65d",
        "release": "5ccc5b19",
        "arch": None,
    }
    row = rpmdb.from_header(key, ROCKY)
    assert (row.name, row.version, row.architecture) == ("gpg-pubkey", "8483c65d-5ccc5b19", None)


@pytest.mark.parametrize("tag", ["name", "version"])
def test_header_without_name_or_version_is_damage_and_costs_no_other(
    tmp_path: Path, librpm: Librpm, tag: str
) -> None:
    librpm([{**PLAIN, tag: None}, {**PLAIN, "name": "sed"}])
    _sqlite(
        tmp_path / "var/lib/rpm/rpmdb.sqlite",
        f"{None if tag == 'name' else 'openssl'}".encode(),
        b"sed",
    )
    names, error = _collect(tmp_path)
    assert names == ["sed"]
    assert error.endswith("1 packages without a name or a version")


def test_database_behind_a_link_is_found_inside_the_root(tmp_path: Path) -> None:
    _tree(tmp_path, "data/rpm/Packages", b"")
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/rpm").symlink_to("/data/rpm")
    with Root("r", str(tmp_path)) as root:
        found = rpmdb.find(root)
    assert found
    assert found.path == "/var/lib/rpm/Packages"


@pytest.mark.parametrize("name", ["rpmdb.sqlite", "Packages.db", "Packages"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 99])
def test_file_of_another_format_is_an_error(
    tmp_path: Path, librpm: Librpm, name: str, content: bytes
) -> None:
    librpm([PLAIN])
    _tree(tmp_path, f"var/lib/rpm/{name}", content)
    names, error = _collect(tmp_path)
    assert names == []
    assert error.startswith(f"/var/lib/rpm/{name}: not an rpm database")


def test_headers_that_librpm_refuses_cost_no_other(tmp_path: Path, librpm: Librpm) -> None:
    librpm([PLAIN])
    _sqlite(tmp_path / "var/lib/rpm/rpmdb.sqlite", b"damaged", b"openssl", 7)
    names, error = _collect(tmp_path)
    assert names == ["openssl"]
    assert error.endswith("2 of 3 packages unreadable")


def test_a_table_that_never_ends_is_given_up(
    tmp_path: Path, librpm: Librpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    librpm([PLAIN])
    monkeypatch.setattr(sqlite, "_STEPS", 10_000)
    file = _tree(tmp_path, "var/lib/rpm/rpmdb.sqlite", b"")
    connection = sqlite3.connect(file)
    connection.execute(
        "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT x'00' AS blob FROM n WHERE i < 0"
    )
    connection.close()
    assert _collect(tmp_path) == (
        [],
        "/var/lib/rpm/rpmdb.sqlite: damaged database: interrupted",
    )


def test_missing_librpm_is_an_error_and_not_an_empty_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rpm", None)
    _sqlite(tmp_path / "var/lib/rpm/rpmdb.sqlite", b"openssl")
    assert "without librpm" in _collect(tmp_path)[1]


def _slots(*used: tuple[int, int, int]) -> bytes:
    empty = (4096 - len(NDB_HEADER)) // 16 - len(used)
    return b"".join(struct.pack("<4sIII", b"Slot", *slot) for slot in [*used, *[(0, 0, 0)] * empty])


def _blob(number: int, text: bytes) -> bytes:
    """A package's blob, of four blocks."""
    head = struct.pack("<4sIII", b"BlbS", number, 1, len(text)) + text.ljust(36, b"\0")
    return head + struct.pack("<II4s", zlib.adler32(head), len(text), b"BlbE")


WHOLE = NDB_HEADER + _slots((1, 256, 4), (7, 260, 4)) + _blob(1, b"one") + _blob(7, b"seven")


def _blobs(content: bytes) -> tuple[list[bytes], list[str]]:
    problems = Problems()
    return list(rpmdb.ndb_blobs(io.BytesIO(content), problems)), list(problems)


def test_an_ndb_database_gives_its_headers() -> None:
    assert _blobs(WHOLE) == ([b"one", b"seven"], [])


@pytest.mark.parametrize(
    ("content", "blobs", "problem"),
    [
        (NDB_HEADER, [], "ends within its table"),
        (b"RpmP", [], "ends within its table"),
        (NDB_HEADER + bytes(4096), [], "bad entry"),
        (WHOLE.replace(b"Slot", b"slot", 1), [b"seven"], "bad entry"),
        (WHOLE[:-64], [b"one", b""], ""),
        (WHOLE.replace(b"one", b"two"), [b"", b"seven"], ""),
        (WHOLE.replace(b"BlbS", b"blbs"), [b"", b""], ""),
        (WHOLE[:12] + b"\xff" * 4 + WHOLE[16:], [b"one", b"seven"], "ends within its table"),
    ],
)
def test_of_a_damaged_ndb_database_the_rest_is_given(
    content: bytes, blobs: list[bytes], problem: str
) -> None:
    found, problems = _blobs(content)
    assert found == blobs
    assert [problem in told for told in problems] == [True] * bool(problem)


@given(st.binary(max_size=200))
def test_any_ndb_database_is_read_to_its_end(data: bytes) -> None:
    for head in (b"", NDB_HEADER, NDB_HEADER + _slots((1, 256, 4))):
        _blobs(head + data)


BERKELEY = (
    REPOSITORY / "scanner/tables/packages/cases/rpm-bdb/tree/var/lib/rpm/Packages"
).read_bytes()
"""Six pages: its metadata, two buckets, and an overflow page for each of three headers."""


def _berkeley(content: bytes) -> tuple[list[int], list[str]]:
    """Lengths of the headers, and problems."""
    problems = Problems()
    return [len(blob) for blob in rpmdb.bdb_blobs(io.BytesIO(content), problems)], list(problems)


def _with(offset: int, content: bytes) -> bytes:
    return BERKELEY[:offset] + content + BERKELEY[offset + len(content) :]


@pytest.mark.parametrize(
    ("content", "lengths", "problem"),
    [
        (BERKELEY, [1964, 1892, 2692], ""),
        (_with(2 * 4096 + 16, struct.pack("<I", 2)), [1964, 1892, 2692], ""),  # its own follower
        (_with(2 * 4096, bytes(4096)), [1964], "1 of its pages are lost"),
        (_with(3 * 4096, bytes(4096)), [1964, 0, 2692], ""),
        (_with(3 * 4096 + 22, struct.pack("<H", 9)), [1964, 0, 2692], ""),
        (_with(20, struct.pack("<I", 1)), [], "pages have no size"),
        (BERKELEY[: 5 * 4096], [1964, 1892, 0], "ends before its last page"),
        (BERKELEY[:64], [], "ends before its last page"),
    ],
)
def test_of_a_damaged_berkeley_db_the_rest_is_given(
    content: bytes, lengths: list[int], problem: str
) -> None:
    found, problems = _berkeley(content)
    assert found == lengths
    assert [problem in told for told in problems] == [True] * bool(problem)


def test_a_berkeley_db_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    lines = ["VERSION=3", "format=bytevalue", "type=hash", "db_lorder=4321", "HEADER=END"]
    lines += [f" {number:08x}\n {bytes(number * 3000).hex()}" for number in range(1, 4)]
    text = "\n".join([*lines, "DATA=END", ""])
    subprocess.run(["db5.3_load", tmp_path / "Packages"], input=text, text=True, check=True)
    found, problems = _berkeley((tmp_path / "Packages").read_bytes())
    assert (sorted(found), problems) == ([3000, 6000, 9000], [])


@given(st.binary(max_size=300), st.integers(0, len(BERKELEY)))
def test_any_berkeley_db_is_read_to_its_end(data: bytes, place: int) -> None:
    _berkeley(data)
    _berkeley(_with(place, data))
