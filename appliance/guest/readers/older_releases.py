"""Release files from before os-release(5), of the BSDs, and of installation media.

Each parser takes a file's text and gives a :class:`Release`, or None for a text of another form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from fleetscan.appliance.guest.readers.os_release import Release, parse_assignments

_NUMBERS = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?![0-9])")
_DEBIAN_TESTING = re.compile(r"([a-z]+)/sid")

# "CentOS Linux release 7.9.2009 (Core)", "Red Hat Enterprise Linux ES release 4 (Nahant Update 9)"
_RED_HAT = re.compile(r"(.+?) release ([0-9][^ (]*)?\s*(?:\((.*)\))?.*")
_RED_HAT_IDS = (
    ("Red Hat Enterprise Linux", "rhel"),
    ("Red Hat Linux", "redhat"),
    ("Scientific Linux", "scientific"),
    ("Enterprise Linux Enterprise Linux", "ol"),
    ("Oracle Linux", "ol"),
    ("Amazon Linux", "amzn"),
    ("Rocky Linux", "rocky"),
    ("Mandrake", "mandrake"),
    ("Mandriva", "mandriva"),
    ("OpenMandriva", "openmandriva"),
)
_OWN_RELEASES = ("almalinux", "centos", "circle", "fedora", "mageia")  # called by their first word
# What lsb_release calls them, where that is not os-release's ID in other letters.
_LSB_IDS = {
    "altlinux": "altlinux",
    "amazonami": "amzn",
    "archlinux": "arch",
    "elementary os": "elementary",
    "mandrivalinux": "mandriva",
    "manjarolinux": "manjaro",
    "redhatenterpriselinux": "rhel",
    "redhatenterpriseserver": "rhel",
    "suse linux": "sles",
}
# "ALT Linux 7.0.5 Centaurus"
_NAMED = re.compile(r"(.+?) ([0-9][^ (]*) *\(?([^()]*)\)?.*")
_PLD = re.compile(r"([0-9][^ ]*) PLD Linux(?: \((.*)\))?.*")
_NETBSD = re.compile(r"NetBSD ([0-9][^/\s]*)")
_MOTD = re.compile(r"(OpenBSD|NetBSD|FreeBSD) ([0-9]+\.[0-9]+)")
_DISK_INFO = re.compile(r"(.+?) ([0-9][0-9.]*)(?: LTS)? [\"_](.+?)[\"_] - ")
# "SUSE Linux Enterprise Server 11 (x86_64)", "openSUSE 13.2 (x86_64)"
_SUSE = re.compile(r"(.+?)\s+[0-9][^ ]*(?:\s+\(.*\))?\s*")
_SUSE_IDS = (
    ("SUSE Linux Enterprise Server", "sles"),
    ("SUSE Linux Enterprise Desktop", "sled"),
    ("SuSE Linux Enterprise Server", "sles"),  # up to 9
    ("Novell Linux Desktop", "sled"),  # what it was called before 10
    ("openSUSE", "opensuse"),
)


def from_lsb_release(text: str) -> Release | None:
    """Read /etc/lsb-release; None when it does not name a distribution."""
    fields = parse_assignments(text)
    distro = fields.get("DISTRIB_ID", "")
    if not distro:
        return None
    version = fields.get("DISTRIB_RELEASE", "")
    return Release(
        distro=_LSB_IDS.get(distro.lower(), distro.lower()),
        product=fields.get("DISTRIB_DESCRIPTION") or f"{distro} {version}".strip(),
        version=version or None,
        codename=fields.get("DISTRIB_CODENAME") or None,
    )


def from_red_hat(text: str) -> Release | None:
    """Read /etc/redhat-release and its relatives; None when it has another form."""
    match = _RED_HAT.fullmatch(_first_line(text))
    if match is None:
        return None
    name, version, codename = match.groups()
    return Release(
        distro=_id_of(name, _RED_HAT_IDS), product=match[0], version=version, codename=codename
    )


def from_rebuild(text: str) -> Release | None:
    """As :func:`from_red_hat`, for the file that every system like Red Hat's has."""
    found = from_red_hat(text)
    known = {*_OWN_RELEASES, *(distro for _, distro in _RED_HAT_IDS)}
    return replace(found, like=("rhel",)) if found and found.distro not in known else found


def from_suse(text: str) -> Release | None:
    """Read /etc/SuSE-release; None when it has another form."""
    product = _first_line(text)
    match = _SUSE.fullmatch(product)
    if match is None:
        return None
    fields = parse_assignments(re.sub(r"\s*=\s*", "=", text))
    parts = (fields.get("VERSION", ""), fields.get("PATCHLEVEL", ""))
    version = ".".join(part for part in parts if part not in ("", "0"))
    return Release(
        distro=_id_of(match[1], _SUSE_IDS),
        product=product,
        version=version or None,
        codename=fields.get("CODENAME") or None,
    )


def from_debian_version(text: str) -> Release | None:
    """Read /etc/debian_version: ``12.11``, or ``trixie/sid`` before a release; None if empty."""
    line = _first_line(text)
    if testing := _DEBIAN_TESTING.fullmatch(line):
        return Release("debian", product=f"Debian GNU/Linux {line}", codename=testing[1])
    return _plain("debian", "Debian GNU/Linux", line)


def from_alpine_release(text: str) -> Release | None:
    """Read /etc/alpine-release: ``3.18.4``; None if empty."""
    return _plain("alpine", "Alpine Linux", _first_line(text))


def from_gentoo_release(text: str) -> Release | None:
    """Read /etc/gentoo-release: ``Gentoo Base System release 2.14``; None if empty."""
    return _plain("gentoo", "Gentoo Base System release", _first_line(text).split(" ")[-1])


def from_slackware_version(text: str) -> Release | None:
    """Read /etc/slackware-version: ``Slackware 15.0``; None if empty."""
    return _plain("slackware", "Slackware", _first_line(text).split(" ")[-1])


def from_alt_release(text: str) -> Release | None:
    """Read /etc/altlinux-release: ``ALT Server 10.1 (Mendelevium)``; None in another form."""
    match = _NAMED.fullmatch(_first_line(text))
    return match and Release(
        "altlinux", product=match[0], version=match[2], codename=match[3] or None
    )


def from_frugalware_release(text: str) -> Release | None:
    """Read /etc/frugalware-release: ``Frugalware 1.9 (Arcturus)``; None in another form."""
    match = _NAMED.fullmatch(_first_line(text))
    return match and Release(
        "frugalware", product=match[0], version=match[2], codename=match[3] or None
    )


def from_pld_release(text: str) -> Release | None:
    """Read /etc/pld-release: ``3.0 PLD Linux (Th)``; None in another form."""
    match = _PLD.fullmatch(_first_line(text))
    return match and Release("pld", product=match[0], version=match[1], codename=match[2])


def from_pardus_release(text: str) -> Release | None:
    """Read /etc/pardus-release: ``Pardus 2011.2 Cervus elaphus``; None in another form."""
    match = _NAMED.fullmatch(_first_line(text))
    return match and Release("pardus", product=match[0], version=match[2])


def from_buildroot_version(text: str) -> Release | None:
    """Read Buildroot's /etc/br-version: ``2015.05``; None if empty."""
    return _plain("buildroot", "Buildroot", _first_line(text))


def from_ttylinux_target(text: str) -> Release | None:
    """Read /etc/ttylinux-target: a name of the machine it was built for; None if empty."""
    line = _first_line(text)
    return Release("ttylinux", product=line) if line else None


def from_cirros_version(text: str) -> Release | None:
    """Read /etc/cirros/version: ``0.6.2``; None if empty."""
    return _plain("cirros", "CirrOS", _first_line(text))


def from_netbsd_release(text: str) -> Release | None:
    """Read NetBSD's /etc/release: ``NetBSD 9.3/amd64``; None in another form."""
    match = _NETBSD.match(text)
    return match and Release("netbsd", product=f"NetBSD {match[1]}", version=match[1])


def from_motd(text: str) -> Release | None:
    """Read the first line of a BSD's /etc/motd: ``OpenBSD 7.4 (GENERIC.MP) #1397: ...``.

    None when the line has another form; its owner may have changed it.
    """
    match = _MOTD.match(text)
    return match and Release(match[1].lower(), product=f"{match[1]} {match[2]}", version=match[2])


def from_freebsd_version(text: str) -> Release | None:
    """Read FreeBSD's program /bin/freebsd-version, which says ``USERLAND_VERSION="13.2-..."``."""
    stated = parse_assignments(text).get("USERLAND_VERSION", "")
    numbers = _NUMBERS.match(stated)
    if numbers is None:
        return None
    return Release("freebsd", product=f"FreeBSD {stated}", version=numbers[0])


def from_disk_info(text: str) -> Release | None:
    """Read .disk/info of Debian's and Ubuntu's media; None in another form.

    ``Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST 20240210-11:27``
    """
    match = _DISK_INFO.match(_first_line(text))
    return match and Release(
        re.split("[ -]", match[1])[0].lower(),  # Ubuntu's say "Ubuntu-Server" as well
        product=f"{match[1]} {match[2]}",
        version=match[2],
        codename=match[3].split(" ")[0].lower(),
    )


def from_tree_info(text: str) -> Release | None:
    """Read .treeinfo of Fedora's and Red Hat's media; None when it names no family."""
    fields = parse_assignments(re.sub(r"[ \t]*=[ \t]*", "=", text))
    name, version = fields.get("family", ""), fields.get("version", "")
    if not name:
        return None
    return Release(
        _id_of(name, _RED_HAT_IDS),
        product=f"{name} {version}".strip(),
        version=version or None,
        variant=fields.get("variant", "").lower() or None,
    )


def from_arch_release(_: str) -> Release:
    """/etc/arch-release, whose presence says all: it is empty and the system has no versions."""
    return Release("arch", product="Arch Linux")


def _plain(distro: str, name: str, version: str) -> Release | None:
    return Release(distro, product=f"{name} {version}", version=version) if version else None


OLDER_FILES: tuple[tuple[str, Callable[[str], Release | None]], ...] = (
    ("/etc/cirros/version", from_cirros_version),
    ("/etc/openwrt_release", from_lsb_release),
    ("/etc/lsb-release", from_lsb_release),
    ("/etc/altlinux-release", from_alt_release),
    ("/etc/openmandriva-release", from_red_hat),
    ("/etc/opencloudos-release", from_red_hat),
    ("/etc/tencentos-release", from_red_hat),
    ("/etc/circle-release", from_red_hat),
    ("/etc/meego-release", from_red_hat),
    ("/etc/pardus-release", from_pardus_release),
    ("/etc/mandriva-release", from_red_hat),
    ("/etc/mandrake-release", from_red_hat),
    ("/etc/pld-release", from_pld_release),
    ("/etc/frugalware-release", from_frugalware_release),
    ("/etc/centos-release", from_red_hat),
    ("/etc/rocky-release", from_red_hat),
    ("/etc/almalinux-release", from_red_hat),
    ("/etc/oracle-release", from_red_hat),
    ("/etc/enterprise-release", from_red_hat),
    ("/etc/fedora-release", from_red_hat),
    ("/etc/mageia-release", from_red_hat),
    ("/etc/redhat-release", from_rebuild),
    ("/etc/system-release", from_red_hat),
    ("/etc/SuSE-release", from_suse),
    ("/etc/debian_version", from_debian_version),
    ("/etc/alpine-release", from_alpine_release),
    ("/etc/gentoo-release", from_gentoo_release),
    ("/etc/slackware-version", from_slackware_version),
    ("/etc/arch-release", from_arch_release),
    ("/etc/ttylinux-target", from_ttylinux_target),
    ("/etc/br-version", from_buildroot_version),
)
"""Release files older than os-release(5), those of derived distributions before their parents'."""

OTHER_FILES: tuple[tuple[str, Callable[[str], Release | None]], ...] = (
    ("/bin/freebsd-version", from_freebsd_version),
    ("/etc/release", from_netbsd_release),
    ("/etc/motd", from_motd),
    ("/.disk/info", from_disk_info),
    ("/.treeinfo", from_tree_info),
)
"""What identifies the BSDs and installation media; the first that says something counts."""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _id_of(name: str, known: tuple[tuple[str, str], ...]) -> str:
    for prefix, distro in known:
        if name.startswith(prefix):
            return distro
    return name.split(" ")[0].lower()
