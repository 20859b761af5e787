"""How a root's packages are kept, and what manages them."""

from __future__ import annotations

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems.spec import PackageFormat, PackageManager

# First directory entry that exists decides; a Debian with rpm installed is still Debian.
_DATABASES: tuple[tuple[str, PackageFormat], ...] = (
    ("/var/lib/dpkg/status", "dpkg"),
    ("/var/lib/dpkg/status.d", "dpkg"),
    ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm"),
    ("/usr/lib/sysimage/rpm/Packages.db", "rpm"),
    ("/usr/lib/sysimage/rpm/Packages", "rpm"),
    ("/usr/share/rpm/rpmdb.sqlite", "rpm"),
    ("/var/lib/rpm/rpmdb.sqlite", "rpm"),
    ("/var/lib/rpm/Packages.db", "rpm"),
    ("/var/lib/rpm/Packages", "rpm"),
    ("/lib/apk/db/installed", "apk"),
    ("/usr/lib/apk/db/installed", "apk"),
    ("/var/lib/pacman/local", "pacman"),
    ("/var/db/xbps", "xbps"),
    ("/usr/lib/opkg/status", "opkg"),
    ("/var/lib/opkg/status", "opkg"),
    ("/var/lib/pkgtools/packages", "slackware"),
    ("/var/log/packages", "slackware"),
    ("/var/db/pkg/local.sqlite", "pkg"),
    ("/usr/pkg/pkgdb", "pkgsrc"),
    ("/usr/sbin/pkg_add", "pkgsrc"),
    ("/usr/bin/emerge", "portage"),
    ("/var/db/pkg", "portage"),
    ("/nix/var/nix/db", "nix"),
)

# By preference; yum is but a link to dnf where both are.
_PROGRAMS: dict[PackageFormat, tuple[tuple[str, PackageManager], ...]] = {
    "dpkg": (("/usr/bin/apt-get", "apt"),),
    "rpm": (
        ("/usr/bin/rpm-ostree", "rpm-ostree"),
        ("/usr/bin/dnf", "dnf"),
        ("/usr/bin/microdnf", "dnf"),
        ("/usr/bin/zypper", "zypper"),
        ("/usr/bin/tdnf", "tdnf"),
        ("/usr/bin/yum", "yum"),
        ("/usr/sbin/urpmi", "urpmi"),
        ("/usr/bin/apt-get", "apt"),
    ),
    "pkgsrc": (("/usr/pkg/bin/pkgin", "pkgin"), ("/usr/sbin/pkg_add", "pkg_add")),
}
_ONLY: dict[PackageFormat, PackageManager] = {
    "apk": "apk",
    "pacman": "pacman",
    "xbps": "xbps",
    "opkg": "opkg",
    "slackware": "slackpkg",
    "pkg": "pkg",
    "portage": "portage",
    "nix": "nix",
}


def find_format(root: Root) -> PackageFormat | None:
    """Format of the first package database that exists."""
    for path, name in _DATABASES:
        if root.exists(path):
            return name
    return None


def find_manager(root: Root, kept: PackageFormat | None) -> PackageManager | None:
    """The program that is there to manage packages of a format."""
    if kept is None:
        return None
    for path, name in _PROGRAMS.get(kept, ()):
        if root.exists(path):
            return name
    return _ONLY.get(kept)
