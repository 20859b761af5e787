"""Make the rpm databases of the cases in scanner/tables/packages/cases/rpm-*.

Run by hand when the cases must change, with the Python that has rpm's binding (python3-rpm):

    make_rpm_databases.py sqlite OUT       builds packages and a key, installs both into a new
                                           OUT/rpmdb.sqlite (needs rpm, rpmbuild and gpg)
    make_rpm_databases.py ndb SQLITE OUT   converts it to OUT/Packages.db
                                           (needs a librpm built with ndb: Debian 13's has it)
    make_rpm_databases.py bdb SQLITE OUT   puts its headers into OUT/Packages, as rpm before
                                           4.16 kept them (needs db5.3_load)

Standard library and ``rpm`` only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

_SPEC = """\
Name: {name}
{epoch}
Version: {version}
Release: {release}
Summary: {summary}
License: MIT
Group: {group}
{vendor}
BuildArch: {architecture}

%description
{summary}

%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo {name} > %{{buildroot}}/usr/share/{name}/data

%files
/usr/share/{name}
"""
_PACKAGES = (
    {
        "name": "tiny",
        "epoch": "Epoch: 2",
        "version": "1.5",
        "release": "3.el9",
        "summary": "A tiny package",
        "group": "Applications/System",
        "vendor": "Vendor: Example Vendor",
        "architecture": "noarch",
    },
    {
        "name": "cafe-tools",
        "epoch": "",
        "version": "0.9~rc1",
        "release": "1.fc40",
        "summary": "Tools for the café",
        "group": "Unspecified",
        "vendor": "",
        "architecture": "x86_64",
    },
)
_MAIN_FILE = {"sqlite": "rpmdb.sqlite", "ndb": "Packages.db", "bdb": "Packages"}


def make_sqlite(out: Path) -> None:
    """A new database with the packages and a public key."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        database = work / "db"
        _run("rpm", "--dbpath", database, "--initdb")
        for package in _PACKAGES:
            _run("rpm", "--dbpath", database, "--justdb", "--nodeps", "-i", _build(work, package))
        _run("rpm", "--dbpath", database, "--import", _make_key(work))
        file = database / _MAIN_FILE["sqlite"]
        with contextlib.closing(sqlite3.connect(file)) as connection:
            # Small pages, as most of rpm's indexes are empty here.
            connection.executescript(
                "PRAGMA journal_mode=delete; PRAGMA page_size=512; VACUUM;PRAGMA journal_mode=wal;"
            )
        shutil.copy(file, out)


def _build(work: Path, package: dict[str, str]) -> Path:
    spec = work / f"{package['name']}.spec"
    spec.write_text(_SPEC.format(**package))
    folder = work / package["name"]
    macros = {
        "_topdir": str(work / "build"),
        "_rpmdir": str(folder),
        "_buildhost": "builder.example.com",
        "use_source_date_epoch_as_buildtime": "1",
    }
    defines: list[str] = []
    for name, value in macros.items():
        defines += ["--define", f"{name} {value}"]
    _run("rpmbuild", "-bb", "--target", package["architecture"], *defines, spec)
    (built,) = folder.glob("*/*.rpm")
    return built


def _make_key(work: Path) -> Path:
    home: list[str | Path] = ["gpg", "--homedir", work, "--batch", "--quiet", "--passphrase", ""]
    user = "Fleet test key <test@example.com>"
    _run(*home, "--faked-system-time", "20240102T000000", "--quick-gen-key", user, "rsa2048")
    key = work / "key.asc"
    _run(*home, "--armor", "--output", key, "--export")
    return key


def make_ndb(source: Path, out: Path) -> None:
    """The same packages in the ndb format."""
    import rpm

    with tempfile.TemporaryDirectory() as name:
        shutil.copy(source, name)
        rpm.addMacro("_dbpath", name)
        rpm.addMacro("_db_backend", "ndb")
        rpm.TransactionSet().rebuildDB()
        shutil.copy(Path(name) / _MAIN_FILE["ndb"], out)


def make_bdb(source: Path, out: Path) -> None:
    """The same packages in a Berkeley DB hash: 32-bit number to header, 0 to the last number."""
    with contextlib.closing(sqlite3.connect(source)) as connection:
        headers = dict(connection.execute("SELECT hnum, blob FROM Packages"))
    records = {0: struct.pack("<I", max(headers)), **headers}
    lines = ["VERSION=3", "format=bytevalue", "type=hash", "db_pagesize=4096", "HEADER=END"]
    for number, value in records.items():
        lines += [f" {struct.pack('<I', number).hex()}", f" {value.hex()}"]
    text = "\n".join([*lines, "DATA=END", ""])
    file = out / _MAIN_FILE["bdb"]
    file.unlink(missing_ok=True)
    subprocess.run(["db5.3_load", file], input=text, text=True, check=True)


def _run(*argv: str | Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1704153600"}
    subprocess.run(argv, check=True, env=environment)


if __name__ == "__main__":
    if sys.argv[1] == "sqlite":
        make_sqlite(Path(sys.argv[2]))
    else:
        {"ndb": make_ndb, "bdb": make_bdb}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
