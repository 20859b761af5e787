"""Readers of package databases: versions, package URLs, hostile input."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import IncompleteError
from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.collect import collect
from fleetscan.scanner.tables.packages.language import load_languages
from fleetscan.scanner.tables.packages.manager import load_managers
from fleetscan.scanner.tables.packages.managers import (
    apk,
    dpkg,
    freebsd,
    opkg,
    pacman,
    pkgsrc,
    portage,
    slackware,
    snap,
    xbps,
)
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import number
from tests.scanner.tables.run_case import REPOSITORY
from tests.strategies import guest_texts

HERE = Distribution("arch")


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (
            purl("deb", "curl", "7.50.3-1", "debian", arch="i386", distro="jessie"),
            "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
        ),
        (purl("npm", "animation", "12.3.1", "@angular"), "pkg:npm/%40angular/animation@12.3.1"),
        (
            purl("golang", "context", "v1", "github.com/gorilla"),
            "pkg:golang/github.com/gorilla/context@v1",
        ),
        (purl("generic", "a b/c"), "pkg:generic/a%20b%2Fc"),
        (purl("rpm", "x", "1", "", epoch=None, arch=""), "pkg:rpm/x@1"),
        (purl("generic", "caf\udce9"), "pkg:generic/caf%E9"),
    ],
)
def test_package_urls_are_written_as_their_specification_says(found: str, written: str) -> None:
    assert found == written


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.0-1", (None, "1.0", "1")),
        ("1:1.3.1-2", (1, "1.3.1", "2")),
        ("1.0", (None, "1.0", None)),
        ("r12.abc-1.1", (None, "r12.abc", "1.1")),
        ("9999999999:1-1", (None, "9999999999:1", "1")),
    ],
)
def test_pacman_versions_are_split(version: str, parts: tuple[int | None, str, str | None]) -> None:
    assert pacman.split_version(version) == parts


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.2", ("1.2", None, None)),
        ("1.2_3", ("1.2", "3", None)),
        ("1.2_3,4", ("1.2", "3", 4)),
        ("1.2,1", ("1.2", None, 1)),
        ("2023_a", ("2023_a", None, None)),
    ],
)
def test_freebsd_versions_are_split(
    version: str, parts: tuple[str, str | None, int | None]
) -> None:
    assert freebsd.split_version(version) == parts


@pytest.mark.parametrize(
    ("directory", "version", "revision"),
    [
        ("bash-5.2_p26-r1", "5.2_p26-r1", "r1"),
        ("gtk+-3.24.41", "3.24.41", None),
        ("openssl-1.1.1w", "1.1.1w", None),
        ("x-9999", "9999", None),
        ("foo-bar2-1.0_alpha3_p1", "1.0_alpha3_p1", None),
    ],
)
def test_portage_directories_name_version_and_revision(
    directory: str, version: str, revision: str | None
) -> None:
    found = portage.from_facts("app-misc", directory, {}, HERE)
    assert found.name == f"app-misc/{directory.removesuffix(f'-{version}')}"
    assert (found.version, found.release) == (version, revision)


def test_slackware_records_are_told_by_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "var/log/packages"
    folder.mkdir(parents=True)
    (folder / "aaa_base-15.0-x86_64-3").write_text(
        "PACKAGE NAME:     aaa_base-15.0-x86_64-3\n"
        "UNCOMPRESSED PACKAGE SIZE:     2.5M\n"
        "PACKAGE DESCRIPTION:\n"
        "aaa_base: aaa_base (Basic Linux filesystem package)\n"
        "FILE LIST:\n./\n"
    )
    os.utime(folder / "aaa_base-15.0-x86_64-3", ns=(0, 7_000))
    (folder / "nonsense").touch()
    with Root("r", str(tmp_path)) as root, pytest.raises(IncompleteError, match="nonsense"):
        list(collect(root))
    with Root("r", str(tmp_path)) as root:
        (row,) = slackware.collect(root, HERE, Problems())
    assert (row.name, row.version, row.release, row.architecture) == (
        "aaa_base", "15.0-3", "3", "x86_64",
    )  # fmt: skip
    assert (row.summary, row.installed_size, row.installed_at) == (
        "Basic Linux filesystem package", 2_621_440, 7,
    )  # fmt: skip


def test_a_query_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_STEPS", 10_000)
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute(
            "CREATE VIEW packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1"
            " FROM n) SELECT i FROM n WHERE i < 0"
        )
    problems = Problems()
    with Root("r", str(tmp_path)) as root:
        assert list(sqlite.select(root, "/db", "SELECT * FROM packages", problems)) == []
    assert list(problems) == ["/db: damaged database: interrupted"]


def _database(path: Path) -> sqlite3.Connection:
    """A database of one row, whose second row stands in the log beside it alone."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE packages(name)")
    connection.execute("INSERT INTO packages VALUES ('old')")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO packages VALUES ('new')")
    connection.commit()
    return connection


@pytest.mark.parametrize(
    ("limit", "names", "problem"),
    [(1 << 20, ["old", "new"], None), (100, ["old"], "read without its last changes")],
)
def test_what_stands_in_a_databases_log_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    names: list[str],
    problem: str | None,
) -> None:
    monkeypatch.setattr(sqlite, "COPY_LIMIT", limit)
    problems = Problems()
    connection = _database(tmp_path / "db")
    with Root("r", str(tmp_path)) as root:
        rows = list(sqlite.select(root, "/db", "SELECT name FROM packages", problems))
    connection.close()
    assert [name for (name,) in rows] == names
    assert [problem in told for told in problems if problem] == [True] * bool(problem)


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("", None), ("-1", None), ("9" * 30, None), ("²", None)]
)
def test_numbers_are_plain_and_fit_their_columns(text: str, value: int | None) -> None:
    assert number(text) == value


@given(guest_texts(), guest_texts())
def test_any_text_gives_rows_or_none(one: str, other: str) -> None:
    for text in f"P:{one}\nV:{other}\nI:{one}\n\n{other}".split("\n\n"):
        fields = apk.parse(text)
        if fields.get("P") and fields.get("V"):
            apk.from_fields(fields, HERE)
    desc = pacman.parse_desc(f"%NAME%\n{one}\n\n%VERSION%\n{other}\n\n%SIZE%\n{other}\n{one}")
    if desc.get("NAME") and desc.get("VERSION"):
        pacman.from_fields(desc, HERE)
    record = dpkg.parse(f"Package: {one}\nVersion: {other}\nStatus: a b hold\n")
    if record.get("Package") and record.get("Version"):
        opkg.from_record({**record, "Status": "install ok installed"}, HERE)
    slackware.from_record([one, other, one, other], f"{one}\n{other}", HERE, None)
    portage.from_facts(one, other, {"SIZE": one, "CHOST": other}, HERE)
    pkgsrc.from_facts(one, {"+COMMENT": other, "+BUILD_INFO": other, "+SIZE_PKG": one}, HERE)
    freebsd.from_values((one, other, one, 7, None, b"x", other, -1, one, 2.5), HERE)
    xbps.from_record(one, {"pkgver": other, "installed_size": one, "install-date": other}, HERE)
    snap.from_state(one, {"current": other, "channel": 3, "type": None})


@given(st.binary(max_size=200))
def test_any_property_list_is_read_or_told_to_be_damaged(data: bytes) -> None:
    problems = Problems()
    found = xbps.parse(data, problems)
    assert problems or isinstance(found, dict)


@pytest.mark.parametrize(
    ("kind", "found", "offered"),
    [
        ("managers", load_managers(), ("is_present", "collect")),
        ("languages", load_languages(), ("places", "records", "read")),
    ],
)
def test_a_module_belongs_to_its_kind_by_lying_in_its_folder(
    kind: str, found: tuple[object, ...], offered: tuple[str, ...]
) -> None:
    folder = REPOSITORY / "scanner" / "tables" / "packages" / kind
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py"} - {"__init__"}
    assert {str(vars(module)["__name__"]).rpartition(".")[2] for module in found} == names
    assert [module for module in found for name in offered if not hasattr(module, name)] == []
