"""Databases and other files that collectors read, damaged in every common way.

Whatever is wrong with a file, its collector ends by itself, soon, and in little memory; gives what
is left; and does not pass what is missing over in silence.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scanner.tables import damage
from tests.scanner.tables.make_hives import make_hives
from tests.scanner.tables.run_case import REPOSITORY, lay_out
from tests.scanner.tables.test_packages_languages import MODULES, archive, pom, program

CASES = REPOSITORY / "scanner" / "tables"
CONFIG = "Windows/System32/config"
ORDINARY_SECONDS = 5
"""CPU time within which a collector gives a damaged file up."""


@dataclass(frozen=True)
class Subject:
    """A file that is damaged.

    Attributes:
        table: whose collector reads it.
        tree: case that has it, as TABLE/CASE, or what makes the tree.
        path: of the file.
        quiet: beginnings of damages' names that cannot be told from a sound file with less in it.
    """

    table: str
    tree: str | Callable[[Path], Path]
    path: str
    quiet: tuple[str, ...] = ()


def _accounts(top: Path) -> Path:
    for folder in ("etc", "var/log", "var/lib/lastlog"):
        (top / folder).mkdir(parents=True)
    (top / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    with sqlite3.connect(top / "var/lib/lastlog/lastlog2.db") as database:
        database.execute("CREATE TABLE Lastlog2(Name TEXT, Time INT, TTY TEXT, RemoteHost TEXT)")
        database.execute("INSERT INTO Lastlog2 VALUES ('alice', 1750000000, 'ssh', '::1')")
    database.close()
    fields = (7, 7, b"tty1", b"", b"alice", b"", 0, 0, 1_750_000_000, 0)
    record = struct.pack("<hxxi32s4s32s256shhxxxxii36x", *fields)
    (top / "var/log/wtmp").write_bytes(record * 4)
    return top


def _languages(top: Path) -> Path:
    (top / "opt").mkdir(parents=True)
    inner = archive(pom("c", "three", "3"))
    members = {**pom("a", "one", "1"), **pom("b", "two", "2"), "lib/three.jar": inner}
    (top / "opt/merged.jar").write_bytes(archive(members))
    (top / "opt/tool").write_bytes(program(MODULES))
    (top / "opt/tool").chmod(0o755)
    return top


PACKAGES = {
    "debian12": "var/lib/dpkg/status",
    "distroless": "var/lib/dpkg/status.d/base",
    "apk": "lib/apk/db/installed",
    "pacman": "var/lib/pacman/local/zlib-1:1.3.1-2/desc",
    "opkg": "usr/lib/opkg/status",
    "xbps": "var/db/xbps/pkgdb-0.38.plist",
    "freebsd-pkg": "var/db/pkg/local.sqlite",
    "nix": "nix/var/nix/db/db.sqlite",
    "snap": "var/lib/snapd/state.json",
    "flatpak": "var/lib/flatpak/app/org.mozilla.firefox/x86_64/stable/0f1e/deploy",
    "rpm-sqlite": "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "rpm-ndb": "usr/lib/sysimage/rpm/Packages.db",
    "rpm-bdb": "var/lib/rpm/Packages",
    "portage": "var/db/pkg/dev-libs/openssl-3.0.13-r2/SIZE",
    "pkgsrc": "usr/pkg/pkgdb/bash-5.2.15nb1/+BUILD_INFO",
    "openbsd-packages": "var/db/pkg/vim-9.0.1897p0-no_x11/+CONTENTS",
    "node": "usr/lib/node_modules/npm/package.json",
    "python": "usr/lib/python3/dist-packages/requests-2.31.0.dist-info/METADATA",
    "ruby": "var/lib/gems/3.1.0/specifications/rack-2.2.8.gemspec",
}
SUBJECTS = [
    *(Subject("packages", f"packages/{case}", path) for case, path in PACKAGES.items()),
    Subject("packages", _languages, "opt/merged.jar"),
    # What is no longer a program of Go's is none of them.
    Subject(
        "packages", _languages, "opt/tool", quiet=("truncated", "zeros", "garbage", "blocks", "beg")
    ),
    Subject("packages", "packages/windows", f"{CONFIG}/SOFTWARE"),
    Subject("operating_systems", "operating_systems/windows10", f"{CONFIG}/SOFTWARE"),
    Subject("operating_systems", "operating_systems/windows10", f"{CONFIG}/SYSTEM"),
    Subject("operating_systems", "operating_systems/freebsd-notes-only", "bin/sh"),
    Subject("users", "users/windows", f"{CONFIG}/SAM"),
    Subject("groups", "groups/windows", f"{CONFIG}/SAM"),
    Subject("services", "services/windows", f"{CONFIG}/SYSTEM"),
    Subject("registry", "registry/windows", f"{CONFIG}/SYSTEM"),
    Subject("registry_hives", "registry/windows", f"{CONFIG}/SYSTEM"),
    # A line that is cut within its last field looks whole.
    Subject("users", "users/debian12", "etc/passwd", quiet=("truncated",)),
    Subject("users", "users/debian12", "etc/shadow"),
    Subject("users", _accounts, "var/log/wtmp"),
    Subject("users", _accounts, "var/lib/lastlog/lastlog2.db"),
    Subject("certificates", "certificates/debian", "etc/ssl/certs/ca-certificates.crt"),
    Subject("certificates", "certificates/debian", "etc/nginx/tls/www.pem"),
    Subject("ssh_keys", "ssh_keys/ordinary", "root/.ssh/authorized_keys"),
    Subject("boot", "boot/fedora", "boot/grub2/grubenv"),
]


@pytest.mark.parametrize(
    "subject", SUBJECTS, ids=lambda it: f"{it.table}-{it.path.replace('/', '.')}"
)
def test_a_damaged_file_is_told_and_costs_little(subject: Subject, tmp_path: Path) -> None:
    if isinstance(subject.tree, str):
        table, _, case = subject.tree.partition("/")
        tree = make_hives(lay_out(CASES / table / "cases" / case, tmp_path))
    else:
        tree = subject.tree(tmp_path / "tree")
    whole, *damaged = damage.sweep(subject.table, tree, subject.path)
    assert whole.rows
    for outcome in damaged:
        assert (outcome.status, outcome.seconds < ORDINARY_SECONDS) == (0, True), outcome
        assert not outcome.error.startswith("unforeseen"), outcome
        # One bit more or less can make a sound file of a sound file.
        if not outcome.damage.startswith(("bit", *subject.quiet)):
            assert outcome.rows >= whole.rows or outcome.error != whole.error, outcome
