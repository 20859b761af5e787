"""One row a setting in a configuration file."""

from __future__ import annotations

from scanner.schema import U32, column, table


@table()
class Setting:
    """Settings as a program would read them, file by file in its reading order.

    The OpenSSH server (sshd_config and what it includes) and apt's sources are read as the
    programs read them. The others have the nodes of Augeas' lenses: PAM,
    sudoers, fstab, login.defs, limits, access, hosts, resolv, nsswitch, yum's sources, chrony,
    ntp, auditd, /etc/default/grub and useradd, SELinux, systemd's own settings. Those of the
    kernel and of cron are in ``kernel_settings`` and ``scheduled_tasks``. Comments are left out;
    passwords in files and URLs are withheld.
    """

    file: str = column("File that the setting stands in.", example="/etc/ssh/sshd_config")
    path: str = column(
        "The setting: Augeas' path below the file; the OpenSSH server's name in lower case, one "
        "that holds in a condition only with that before a slash; a source of apt, from 1, and "
        "its field.",
        example="match user backup/permitrootlogin",
    )
    value: str = column(
        "Value as written, for the OpenSSH server without quotes; empty for a setting without one.",
        example="prohibit-password",
    )
    line: U32 | None = column("Line of the file, from 1; null where there is a lens.")
    position: U32 = column(
        "Place in the order in which the program reads its settings, from 0; for the OpenSSH "
        "server the first setting of a name outside conditions is the one in force."
    )
    lens: str | None = column(
        "Augeas' lens for the file; null for the OpenSSH server and apt.",
        example="Sudoers.lns",
    )
