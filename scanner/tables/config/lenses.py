"""Which files are read by which of Augeas' lenses.

Left out is what other tables hold: sysctl and modprobe (kernel_settings), cron (scheduled_tasks);
and what has a reader of its own here, because Augeas cannot follow it: OpenSSH's server, whose
files depend on each other, and apt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.redaction import redact_named

_COMMENT = re.compile(r"^[ \t]*#(?!include|[0-9]).*$", re.MULTILINE)  # sudoers has #include, #1000
_NOT_READ = re.compile(r".*(?:~|\.(?:rpmnew|rpmsave|rpmorig|dpkg-\w+|bak|old))")
_INDEX = re.compile(r"\[[0-9]+\]$")


@dataclass(frozen=True)
class Lens:
    """A lens and its files.

    Attributes:
        name: as Augeas calls it.
        places: paths; the last part may be a shell pattern.
        sample: a text that it fits, for compiling what it needs ahead of time.
    """

    name: str
    places: tuple[str, ...]
    sample: str


LENSES = (
    Lens(
        "Pam.lns", ("/etc/pam.d/*",), "@include common-auth\nauth [default=1] pam_unix.so nullok\n"
    ),
    Lens(
        "Sudoers.lns",
        ("/etc/sudoers", "/etc/sudoers.d/*"),
        "Defaults env_reset, timestamp_timeout=5\nUser_Alias OPS = a, b\n"
        "root ALL=(ALL:ALL) NOPASSWD: ALL, !/bin/su\n@includedir /etc/sudoers.d\n",
    ),
    Lens("Fstab.lns", ("/etc/fstab",), "UUID=1 / ext4 noatime,errors=remount-ro 0 1\n"),
    Lens("Login_defs.lns", ("/etc/login.defs",), "UMASK\t\t022\n"),
    Lens(
        "Limits.lns",
        ("/etc/security/limits.conf", "/etc/security/limits.d/*.conf"),
        "* hard core 0\n@users soft nproc 20\n",
    ),
    Lens("Access.lns", ("/etc/security/access.conf",), "-:ALL EXCEPT root:tty1 LOCAL\n"),
    Lens("Hosts.lns", ("/etc/hosts",), "127.0.0.1 localhost me\n"),
    Lens("Resolv.lns", ("/etc/resolv.conf",), "search a.example\nnameserver 10.0.0.1\n"),
    Lens("Nsswitch.lns", ("/etc/nsswitch.conf",), "passwd: files [NOTFOUND=return] systemd\n"),
    Lens(
        "Yum.lns",
        (
            *("/etc/yum.conf", "/etc/dnf/dnf.conf", "/etc/yum.repos.d/*.repo"),
            "/etc/zypp/repos.d/*.repo",
        ),
        "[main]\ngpgcheck=1\nbaseurl=http://h.example/\n",
    ),
    Lens(
        "Chrony.lns",
        (
            *("/etc/chrony.conf", "/etc/chrony/chrony.conf"),
            *(
                "/etc/chrony.d/*.conf",
                "/etc/chrony/conf.d/*.conf",
                "/etc/chrony/sources.d/*.sources",
            ),
        ),
        "pool h.example iburst maxsources 4\nmakestep 1 3\nrtcsync\n",
    ),
    Lens("Ntp.lns", ("/etc/ntp.conf", "/etc/ntpsec/ntp.conf"), "server h.example iburst\n"),
    Lens(
        "Simplevars.lns",
        (
            "/etc/audit/auditd.conf",
            *(f"/etc/security/{name}.conf" for name in ("faillock", "pwhistory", "pwquality")),
            "/etc/security/pwquality.conf.d/*.conf",
        ),
        "log_format = ENRICHED\n",
    ),
    Lens(
        "Shellvars.lns",
        (
            *("/etc/default/grub", "/etc/default/grub.d/*.cfg"),
            *("/etc/default/useradd", "/etc/selinux/config"),
        ),
        'A="quiet splash"\nexport B=1\n',
    ),
    Lens(
        "Systemd.lns",
        tuple(
            f"/etc/systemd/{name}.conf{drop_ins}"
            for name in ("journald", "logind", "system", "timesyncd", "resolved", "coredump")
            for drop_ins in ("", ".d/*.conf")
        ),
        "[Journal]\nStorage=persistent\n",
    ),
)


def files(lens: Lens, glob: Callable[[str, str], list[str]]) -> Iterator[str]:
    """Paths that a lens' places may be, those of patterns as far as they exist."""
    for place in lens.places:
        folder, _, name = place.rpartition("/")
        if "*" not in name:
            yield place
            continue
        for path in glob(folder, name):
            if not _NOT_READ.fullmatch(path) and not path.endswith("/README"):
                yield path


def without_comments(text: str) -> str:
    """A file's text with its comments emptied, which are most of it, and a last line's end."""
    emptied = _COMMENT.sub("", text)
    return emptied if emptied.endswith("\n") else f"{emptied}\n"


def settings(nodes: list[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """Paths and values of the nodes that say something: that have a value or nothing below them.

    A value whose name is the value of the node above it, such as that of a mount's option
    ``password``, is redacted here, where the name is known.
    """
    above = ""  # value of the node last seen that has nodes below
    for index, (path, value) in enumerate(nodes):
        below = index + 1 < len(nodes) and nodes[index + 1][0].startswith(f"{path}/")
        label = _INDEX.sub("", path.rpartition("/")[2])
        if below:
            above = value or ""
        if label.startswith("#comment") or (value is None and below):
            continue
        if value and label == "value":
            value = redact_named(above, value)
        yield path, value or ""
