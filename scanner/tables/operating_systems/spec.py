"""One row a root: which operating system it is."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import U32, Timestamp, column, table

InitSystem = Literal["systemd", "sysv", "openrc", "upstart", "busybox", "runit", "procd", "bsd"]
PackageFormat = Literal[
    "dpkg", "rpm", "apk", "pacman", "portage", "xbps", "opkg", "slackware", "pkg", "pkgsrc", "nix"
]
PackageManager = Literal[
    "apt",
    "dnf",
    "yum",
    "zypper",
    "urpmi",
    "tdnf",
    "rpm-ostree",
    "apk",
    "pacman",
    "portage",
    "xbps",
    "opkg",
    "slackpkg",
    "pkg",
    "pkg_add",
    "pkgin",
    "nix",
]
Form = Literal["installed", "container", "installer", "netinst", "live"]
Family = Literal["linux", "windows", "freebsd", "netbsd", "openbsd", "other"]


@table()
class OperatingSystem:
    """Operating systems found: identity, architecture, names."""

    family: Family = column("Kind of operating system.")
    form: Form = column(
        "installed: a system of its own; container: files of a container or chroot that identify "
        "themselves as such; installer, netinst, live: installation or live media."
    )
    distro: str | None = column(
        "Lower-case identifier, os-release's ID; windows on Windows.", example="debian"
    )
    inspector_distro: str = column(
        "The distribution as virt-inspector names it; unknown where it has no name.",
        example="redhat-based",
    )
    like: tuple[str, ...] = column("Related distributions, os-release's ID_LIKE.")
    product: str | None = column("Full name for people.", example="Debian GNU/Linux 12 (bookworm)")
    version: str | None = column(
        "Version, as precisely as the system states it: os-release's VERSION_ID, or the point "
        "release that extends it in VERSION, DEBIAN_VERSION_FULL, /etc/debian_version or another "
        "release file. Windows: major and minor version, build and revision.",
        example="12.11",
    )
    version_major: U32 | None = column("First number of the version.", example="12")
    version_minor: U32 | None = column("Second number of the version.", example="11")
    codename: str | None = column(
        "Release codename; Windows: its release or service pack, such as 22H2.", example="bookworm"
    )
    variant: str | None = column(
        "Edition, os-release's VARIANT_ID or Windows' EditionID.", example="server"
    )
    support_end: str | None = column(
        "End of support as the system itself states it (os-release's SUPPORT_END), YYYY-MM-DD.",
        default=None,
    )
    architecture: str | None = column(
        "Architecture of its programs, as uname -m names it.", example="x86_64"
    )
    hostname: str | None = column("Static host name.")
    etc_machine_id: str | None = column(
        "Content of /etc/machine-id; null if it is empty or not yet initialized.", default=None
    )
    timezone: str | None = column(
        "Time zone name; Windows has names of its own.", example="Europe/Paris"
    )
    init_system: InitSystem | None = column("What starts services.", default=None)
    kernels: tuple[str, ...] = column(
        "Releases of the kernels installed, oldest first.", example="6.1.0-18-amd64"
    )
    package_format: PackageFormat | None = column("Format of the package database.", default=None)
    package_manager: PackageManager | None = column(
        "Program that installs and updates packages, inferred from what is installed.",
        example="dnf",
        default=None,
    )
    build: str | None = column("Windows: build number.", example="19045", default=None)
    installed_at: Timestamp | None = column(
        "When it was installed, where the system records it.", default=None
    )
    system_root: str | None = column(
        "Windows: the directory it is installed in, according to itself.",
        example="C:\\Windows",
        default=None,
    )
    hibernated: bool | None = column(
        "Windows: whether it is hibernated, or was shut down for a fast start. What it then had "
        "in memory is not in its files.",
        default=None,
    )
