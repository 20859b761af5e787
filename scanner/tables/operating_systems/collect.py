"""Identity of a root's operating system."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.readers import release as releases
from fleetscan.appliance.guest.readers.os_release import Release, parse_assignments
from fleetscan.appliance.guest.readers.release import version_numbers
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems import bsd, elf, inspector, packaging, windows
from fleetscan.scanner.tables.operating_systems.spec import (
    Family,
    Form,
    InitSystem,
    OperatingSystem,
)

T = TypeVar("T")

# Programs that every system has one of; the first that is an ELF file shows the architecture.
_PROGRAMS = (
    "/bin/sh",
    "/usr/bin/env",
    "/sbin/init",
    "/bin/ls",
    "/bin/busybox",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/bin/bash",
    "/nix/var/nix/profiles/system/systemd/lib/systemd/systemd",
)
_LINUX_PARTS = ("/etc", "/usr", "/bin", "/sbin")
_NOT_LINUX = ("dragonfly", "midnightbsd", "illumos", "solaris")
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
_MEDIA_MARKS = ("/.disk/info", "/.treeinfo")
_LIVE_MARKS = (
    "/casper",  # Ubuntu
    "/live/filesystem.squashfs",  # Debian
    "/LiveOS/squashfs.img",  # Fedora
    "/arch/x86_64/airootfs.sfs",  # Arch
)

_HOSTNAME_SETTINGS = (
    ("/etc/sysconfig/network", "HOSTNAME"),
    ("/etc/conf.d/hostname", "hostname"),
    ("/etc/rc.conf", "hostname"),  # FreeBSD, NetBSD
)
_UCI_HOSTNAME = re.compile(r"(?m)^\s*option\s+hostname\s+['\"]?([^'\"\s]+)")  # OpenWrt
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_ZONE_LINK = re.compile(r".*zoneinfo/(?:posix/|right/)?(.+)")
_KERNEL_IMAGE = re.compile(r"vmlinu[xz]-([0-9].*)")
_RESCUE = "0-rescue-"  # Fedora's copy of some kernel under the machine id's name
_RELEASE_PART = re.compile(r"[0-9]+|rc|[^0-9]+?(?=rc|[0-9]|$)")


def collect(root: Root) -> Iterator[OperatingSystem]:
    """Exactly one row.

    Raises:
        IncompleteError: something of it could not be read; raised after the row, where it is null.
        UnreadError: nothing but kernels may be incomplete, as /boot is not mounted.
    """
    problems = Problems()
    if root.windows:
        yield windows.read(root, problems)
        problems.finish()
        return

    def probe(fact: str, look: Callable[[Root], T], otherwise: T) -> T:
        try:
            return look(root)
        except OSError as error:
            where = f"/{error.filename}: " if isinstance(error.filename, str) else ""
            problems.note(f"{fact}: {where}{reason(error)}")
            return otherwise

    release = probe("release", releases.find, Release())
    if release.distro is None:
        release = _named(release, probe("release", bsd.find_release, Release()))
    package_format = packaging.find_format(root)
    with root.lookups.watching() as lost:
        kernels: tuple[str, ...] = probe("kernels", find_kernels, ())
    major, minor = version_numbers(release.version)
    yield OperatingSystem(
        family=_family(root, release),
        form=probe("form", find_form, "installed"),
        distro=release.distro,
        inspector_distro=inspector.name(release.distro, release.like),
        like=release.like,
        product=release.product,
        version=release.version,
        version_major=major,
        version_minor=minor,
        codename=release.codename,
        variant=release.variant,
        support_end=release.support_end,
        architecture=probe("architecture", find_architecture, None),
        hostname=probe("hostname", find_hostname, None),
        etc_machine_id=probe("etc_machine_id", find_machine_id, None),
        timezone=probe("timezone", find_timezone, None),
        init_system=probe("init_system", find_init_system, None),
        kernels=kernels,
        package_format=package_format,
        package_manager=packaging.find_manager(root, package_format),
    )
    if lost:
        problems.note(f"kernels: {lost}", *lost.unread)
    problems.finish()


def _named(release: Release, system: Release) -> Release:
    """A release without a name: a BSD by its other files, else "linux", as os-release(5) says."""
    if system.distro or release == Release():
        return system
    return dataclasses.replace(release, distro="linux")


def _family(root: Root, release: Release) -> Family:
    for name in bsd.FAMILIES:
        if release.distro == name:
            return name
    if release.distro in _NOT_LINUX:
        return "other"
    parts = (*_LINUX_PARTS, "/nix/store")
    return "linux" if release.distro or any(map(root.is_dir, parts)) else "other"


def find_form(root: Root) -> Form:
    """Whether it is an installed system, or media to install or to try one."""
    if any(map(root.exists, _LIVE_MARKS)):
        return "live"
    if any(map(root.exists, _MEDIA_MARKS)):
        without_packages = "NETINST" in (root.try_text("/.disk/info") or "").upper()
        return "netinst" if without_packages or _is_boot_tree(root) else "installer"
    return "container" if any(map(root.exists, _CONTAINER_MARKS)) else "installed"


def _is_boot_tree(root: Root) -> bool:
    # Fedora's and Red Hat's boot media: the installer, and no packages.
    return root.exists("/.treeinfo") and not any(
        map(root.is_dir, ("/Packages", "/BaseOS", "/AppStream", "/Server", "/Everything"))
    )


def find_architecture(root: Root) -> str | None:
    """Machine of the first usual program that is an ELF file."""
    for path in filter(root.is_file, _PROGRAMS):
        with root.open(path) as stream:
            if name := elf.machine(stream.read(elf.HEADER_SIZE)):
                return name
    return None


def find_hostname(root: Root) -> str | None:
    """Static host name: hostname(5), then the files of distributions before it."""
    for path in ("/etc/hostname", "/etc/HOSTNAME", "/etc/myname"):  # the last is a BSD's
        for line in (root.try_text(path) or "").split("\n"):
            if line.strip() and not line.lstrip().startswith("#"):
                return line.strip()
    for path, key in _HOSTNAME_SETTINGS:
        if name := parse_assignments(root.try_text(path) or "").get(key):
            return name
    option = _UCI_HOSTNAME.search(root.try_text("/etc/config/system") or "")
    return option[1] if option else None


def find_machine_id(root: Root) -> str | None:
    """machine-id(5), unless empty or "uninitialized"."""
    text = (root.try_text("/etc/machine-id") or "").strip()
    return text if _MACHINE_ID.fullmatch(text) else None


def find_timezone(root: Root) -> str | None:
    """Name of the zone that /etc/localtime links to, else what older files name."""
    if root.is_link("/etc/localtime"):
        link = _ZONE_LINK.fullmatch(root.readlink("/etc/localtime"))
        if link and _ZONE.fullmatch(link[1]):
            return link[1]
    stated = [(root.try_text("/etc/timezone") or "").strip()]
    clock = parse_assignments(root.try_text("/etc/sysconfig/clock") or "")
    stated += [clock.get("ZONE", ""), clock.get("TIMEZONE", "")]  # Red Hat; SUSE
    for zone in stated:
        if _ZONE.fullmatch(zone.replace(" ", "_")):
            return zone.replace(" ", "_")
    return None


def find_init_system(root: Root) -> InitSystem | None:
    """What /sbin/init is, known by its link's target and by files beside it."""
    if root.is_file("/etc/rc.subr"):  # the BSDs' library of start scripts
        return "bsd"
    if root.is_file("/sbin/procd"):
        return "procd"
    target = root.readlink("/sbin/init") if root.is_link("/sbin/init") else ""
    program = target.rpartition("/")[2]
    if program == "systemd" or (not program and _without_init(root)):
        return "systemd"
    if program in ("runit", "runit-init"):
        return "runit"
    if root.is_file("/sbin/openrc") or root.is_file("/usr/bin/openrc"):
        return "openrc"  # started by busybox' init on Alpine, by sysvinit or itself on Gentoo
    if program == "busybox":
        return "busybox"
    if root.is_file("/sbin/initctl") and root.glob("/etc/init", "*.conf"):
        return "upstart"
    return "sysv" if root.is_file("/sbin/init") else None


def _without_init(root: Root) -> bool:
    # Images of systems whose boot loader passes init=.
    programs = ("/usr/lib/systemd/systemd", "/nix/var/nix/profiles/system/systemd")
    return not root.exists("/sbin/init") and any(map(root.exists, programs))


def find_kernels(root: Root) -> tuple[str, ...]:
    """Kernel releases that have modules or an image in /boot, oldest first."""
    releases = {
        name
        for name in root.listdir("/lib/modules")
        if root.is_file(f"/lib/modules/{name}/modules.dep")
        or root.is_dir(f"/lib/modules/{name}/kernel")
    }
    for name in root.listdir("/boot"):
        image = _KERNEL_IMAGE.fullmatch(name)
        if image and not image[1].startswith(_RESCUE) and not image[1].endswith(".old"):
            releases.add(image[1])
    return tuple(sorted(releases, key=release_order))


def release_order(release: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a kernel release: numbers by value, release candidates before the release."""
    parts = []
    for part in _RELEASE_PART.findall(release.replace("-rc", "rc")):
        if part == "rc":
            parts.append((0, 0, ""))
        elif part.isascii() and part.isdigit():
            parts.append((3, int(part[:18]), ""))
        else:
            parts.append((2, 0, part))
    return (*parts, (1, 0, ""))
