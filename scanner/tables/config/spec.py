"""One row a setting in a configuration file."""

from __future__ import annotations

from scanner.schema import IS_PATH, U32, column, table


@table()
class Setting:
    """Settings as a program would read them, file by file in its reading order.

    The OpenSSH server (sshd_config and what it includes), apt's sources and the rules of audit are
    read as the programs read them. The others have the nodes of Augeas' lenses: PAM and its
    faillock, pwhistory and pwquality, sudoers, fstab, login.defs, limits, access, hosts, resolv,
    nsswitch, yum's and zypper's sources, chrony, ntp, auditd, /etc/default/grub and useradd,
    SELinux, systemd's own settings. Those of the kernel and of cron are in ``kernel_settings`` and
    ``scheduled_tasks``. Comments are left out; secrets in values are redacted.
    """

    file: str = column(
        "File that the setting stands in.", example="/etc/ssh/sshd_config", unredacted=IS_PATH
    )
    path: str = column(
        "The setting: Augeas' path below the file; the OpenSSH server's name in lower case, one "
        "that holds in a condition only with that before a slash; a source of apt, from 1, and "
        "its field; an option of auditctl.",
        example="match user backup/permitrootlogin",
    )
    value: str = column(
        "Value as written, for the OpenSSH server without quotes; empty for a setting without one.",
        example="prohibit-password",
        named_by=("path",),
    )
    line: U32 | None = column("Line of the file, from 1; null where there is a lens.")
    position: U32 = column(
        "Place in the order in which the program reads its settings, from 0; for the OpenSSH "
        "server the first setting of a name outside conditions is the one in force."
    )
    lens: str | None = column(
        "Augeas' lens for the file; null for the OpenSSH server, apt and audit.",
        example="Sudoers.lns",
    )
