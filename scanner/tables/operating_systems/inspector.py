"""Names that virt-inspector gives to distributions, for comparison with it.

Source: libguestfs, guestfs_inspect_get_distro in guestfs(3).
"""

from __future__ import annotations

from collections.abc import Sequence

_SAME = frozenset(
    [
        "altlinux",
        "buildroot",
        "centos",
        "circle",
        "cirros",
        "coreos",
        "debian",
        "fedora",
        "freebsd",
        "frugalware",
        "gentoo",
        "kylin",
        "linuxmint",
        "mageia",
        "mandriva",
        "meego",
        "neokylin",
        "netbsd",
        "openbsd",
        "opencloudos",
        "openeuler",
        "openmandriva",
        "pardus",
        "rhel",
        "rocky",
        "sles",
        "slackware",
        "tencentos",
        "ttylinux",
        "ubuntu",
    ]
)
_OTHER = {
    "alpine": "alpinelinux",
    "arch": "archlinux",
    "kali": "kalilinux",
    "ol": "oraclelinux",
    "opensuse": "opensuse",
    "pld": "pldlinux",
    "scientific": "scientificlinux",
    "sled": "sles",
    "suse": "opensuse",
    "void": "voidlinux",
}
_PARENTS = (("rhel", "redhat-based"), ("fedora", "redhat-based"), ("suse", "suse-based"))


def name(distro: str | None, like: Sequence[str]) -> str:
    """The name for an os-release ID and its ID_LIKE; ``unknown`` where it has none."""
    if distro in _SAME:
        return distro
    if distro is not None and (known := _OTHER.get(distro.partition("-")[0])):
        return known
    for parent, group in _PARENTS:
        if parent in like:
            return group
    return "debian" if "debian" in like else "unknown"
