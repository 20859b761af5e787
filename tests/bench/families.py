"""Systems that Debian cannot build here, as one machine of many small disks.

Their trees are those of the tables' cases, with what libguestfs wants to see before it takes a tree
for a system, and with an rpm database that rpm itself wrote where theirs is a mere name.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from examples.build_fleet import default_directory
from fleetscan.appliance import cache
from tests.bench.guests import Guest
from tests.scanner.tables.run_case import REPOSITORY, lay_out
from tests.vm.machines import image_of

NAME = "families"
FORMAT = "raw"

_CASES = REPOSITORY / "scanner" / "tables"
_PACKAGES = {
    "alpine": "apk",
    "arch": "pacman",
    "debian-testing": "",
    "freebsd": "freebsd-pkg",
    "gentoo": "portage",
    "netbsd": "pkgsrc",
    "openbsd": "openbsd-packages",
    "openwrt": "opkg",
    "slackware": "",
    "ubuntu1404": "",
    "void": "xbps",
}
"""Cases of operating_systems, and those of packages that are laid over them."""

_RPM = {
    "almalinux": "var/lib/rpm",
    "alt": "var/lib/rpm",
    "centos5": "var/lib/rpm",
    "centos7": "var/lib/rpm",
    "fedora-server": "usr/lib/sysimage/rpm",
    "photon": "usr/lib/sysimage/rpm",
    "sles11": "var/lib/rpm",
}
"""Those with an rpm database, and where it is."""

_EVERYWHERE = ("etc/fstab", "etc/passwd")
_WANTED = {
    "centos5": ("usr/bin/yum",),
    "centos7": ("usr/bin/yum",),
    "debian-testing": ("usr/bin/apt-get",),
    "fedora-server": ("usr/bin/dnf",),
    "freebsd": ("etc/freebsd-update.conf",),
    "netbsd": ("netbsd",),
    "openbsd": ("bsd",),
    "sles11": ("usr/bin/zypper",),
    "ubuntu1404": ("usr/bin/apt-get",),
}
"""Files that every such system has, and that one of the two looks for."""


def guest() -> Guest:
    """The machine, made where its parts have changed since it was last."""
    tree = next((default_directory() / "trees").glob("rpm-*.tar"))
    key = hashlib.sha256(tree.name.encode() + Path(__file__).read_bytes())
    for name in (*_PACKAGES, *_RPM):
        for path in sorted(filter(Path.is_file, _case("operating_systems", name).rglob("*"))):
            key.update(str(path.relative_to(_CASES)).encode() + b"\0" + path.read_bytes())
    folder = cache.cache_directory() / "agreement" / f"{NAME}-{key.hexdigest()[:16]}"
    names = [*_PACKAGES, *_RPM]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            made = Path(work) / "made"
            made.mkdir()
            for name in names:
                image_of(_tree(name, Path(work) / name, tree), made / f"{name}.raw")
            made.rename(folder)
    return Guest(NAME, tuple(folder / f"{name}.raw" for name in names), FORMAT)


def _case(table: str, name: str) -> Path:
    return _CASES / table / "cases" / name


def _tree(name: str, work: Path, rpm: Path) -> Path:
    work.mkdir()
    top = lay_out(_case("operating_systems", name), work)
    if packages := _PACKAGES.get(name):
        (work / "packages").mkdir()
        added = lay_out(_case("packages", packages), work / "packages")
        (added / "etc/os-release").unlink(missing_ok=True)  # what it is, the other case says
        shutil.copytree(added, top, symlinks=True, dirs_exist_ok=True)
    if database := _RPM.get(name):
        _lay_rpm(top, database, rpm)
    for wanted in (*_EVERYWHERE, *_WANTED.get(name, ())):
        (top / wanted).parent.mkdir(parents=True, exist_ok=True)
        (top / wanted).touch()
    if not (top / "bin").is_symlink():
        (top / "bin").mkdir(exist_ok=True)
    return top


def _lay_rpm(top: Path, database: str, rpm: Path) -> None:
    """Put the example's database in the place of the tree's, and settings that name the place."""
    shutil.rmtree(top / database)
    (top / database).mkdir()
    settings = top / "usr/lib/rpm"
    settings.mkdir(parents=True, exist_ok=True)
    with tarfile.open(rpm) as archive:
        for member in archive:
            folder, _, file = member.name.removeprefix("./now/").rpartition("/")
            place = {"var/lib/rpm": top / database, "usr/lib/rpm": settings}.get(folder)
            if place and member.isfile() and member.name.startswith("./now/"):
                content = archive.extractfile(member)
                (place / file).write_bytes(content.read() if content else b"")
    (settings / "macros").write_text(f"%_dbpath /{database}\n")
