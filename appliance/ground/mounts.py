"""Lines of an fstab: what each mounts, and where that can be."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

TAGS = {
    "UUID": "UUID",
    "LABEL": "LABEL",
    "PARTUUID": "PART_ENTRY_UUID",
    "PARTLABEL": "PART_ENTRY_NAME",
}
"""How fstab(5) names a device by what is on it, and what libblkid calls that."""

_REMOVABLE = re.compile(r"^/dev/(?:cdrom|cdrw|dvd|dvdrw|floppy|fd|sr|scd)\d*$")

# Source: the kernel's /proc/filesystems (nodev) and mount(8). What is in memory was never on a
# disk; what is on another machine is not on this one's disk.
_IN_MEMORY = frozenset(
    (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devfs"),
        *("devpts", "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nfsd", "proc"),
        *("pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tmpfs"),
        *("tracefs", "usbdevfs", "usbfs", "fdescfs", "linprocfs", "linsysfs", "procfs", "mfs"),
    )
)
_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "lustre", "ncpfs"),
        *("nfs", "nfs4", "smb3", "smbfs", "sshfs", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"),
    )
)

FLAGS = ("ro", "nosuid", "nodev", "noexec", "nosymfollow")
"""Restrictions of a mount that options turn on and off, the last one counting."""

# Source: mount(8), and mnt_optstr_get_flags of libmount, which reads "defaults" as nothing.
_ON = {
    **{flag: (flag,) for flag in FLAGS},
    **dict.fromkeys(("user", "users"), ("nosuid", "nodev", "noexec")),
    **dict.fromkeys(("owner", "group"), ("nosuid", "nodev")),
}
_OFF = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "symfollow": "nosymfollow"}
_OPTION = re.compile(r'(?:[^",]|"[^"]*(?:"|$))+')


def effective(options: Iterable[str]) -> tuple[str, ...]:
    """Those of :data:`FLAGS` that are in force with some mount options, as mount(8) reads them."""
    in_force: set[str] = set()
    for match in _OPTION.finditer(",".join(options)):  # a comma in quotes parts nothing
        in_force.update(_ON.get(match[0], ()))
        in_force.discard(_OFF.get(match[0], ""))
    return tuple(flag for flag in FLAGS if flag in in_force)


def normal_path(path: str) -> str:
    """A mountpoint without doubled slashes, dots and a slash at its end; other words unchanged."""
    return posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else path


Kind = Literal["swap", "bind", "memory", "network", "device", "other"]


@dataclass(frozen=True)
class FstabEntry:
    """One line of an fstab, fields decoded."""

    source: str
    path: str
    type: str
    options: tuple[str, ...]
    check_pass: int

    @property
    def is_swap(self) -> bool:
        """Whether it is a swap area."""
        return self.type == "swap"

    @property
    def kind(self) -> Kind:
        """What it takes to mount it."""
        if self.is_swap:
            return "swap"
        if {"bind", "rbind"} & set(self.options):
            return "bind"
        if self.type in _IN_MEMORY:
            return "memory"
        if self.names_device:
            return "device"
        if self._names_share:
            return "network"
        return "memory" if self.source in ("none", self.type) else "other"

    @property
    def _names_share(self) -> bool:
        driver = self.type.removeprefix("fuse.")
        return driver in _NETWORK or self.source.startswith("//") or ":/" in self.source

    @property
    def is_remote(self) -> bool:
        """Whether it is on other machines, or on drives other than this machine's disks."""
        elsewhere = "_netdev" in self.options or _REMOVABLE.match(self.source) is not None
        return self.kind == "network" or elsewhere

    @property
    def names_device(self) -> bool:
        """Whether its source can only be a block device of this machine."""
        if self.source.startswith("/dev/"):
            return True
        return self.source.partition("=")[0] in TAGS and "=" in self.source
