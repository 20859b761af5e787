"""One row a setting in a configuration file."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import IS_PATH, U32, column, table


@table()
class Setting:
    """Settings as a program would read them, file by file, in the program's reading order.

    Settings of the OpenSSH server (options of its command line in units and the files that these
    read, sshd_config and the files it includes), apt's sources and audit
    rules are read as the programs read them. All others are nodes of Augeas' lenses: PAM and its
    faillock, pwhistory and pwquality, sudoers, fstab, login.defs, limits, access, hosts, resolv,
    nsswitch, yum's and zypper's sources, chrony, ntp, auditd, /etc/default/grub and useradd,
    SELinux, systemd's own settings. Settings of the kernel and of cron are in ``kernel_settings``
    and ``scheduled_tasks``. Comments are left out; secrets in values are redacted.
    """

    file: str = column(
        "File that contains the setting.", example="/etc/ssh/sshd_config", unredacted=IS_PATH
    )
    path: str = column(
        "The setting: Augeas' path below the file; for the OpenSSH server the name in lower case, "
        "preceded by the conditions of its Match blocks, each with a slash; for apt the number of "
        "the source, from 1, and its field; for audit an option of auditctl.",
        example="match user backup/permitrootlogin",
    )
    value: str = column(
        "Value as written, for the OpenSSH server without quotes; empty for a setting without a "
        "value.",
        example="prohibit-password",
        named_by=("path",),
    )
    line: U32 | None = column("Line of the file, from 1; null if the file was read with a lens.")
    position: U32 = column(
        "Position in the order in which the program reads its settings, from 0; for the OpenSSH "
        "server options of its command line come first."
    )
    lens: str | None = column(
        "Augeas' lens for the file; null for the OpenSSH server, apt and audit.",
        example="Sudoers.lns",
        unredacted="one of Augeas' own names",
    )
    in_force: bool | None = column(
        "For the OpenSSH server: whether the setting decides for some login. False where others "
        "come before it or replace it, or where its Match block cannot hold; null for settings "
        "that add up, and for other programs.",
        default=None,
    )
    in_force_for_root: bool | None = column(
        "The same for logins of root, whose groups are those of /etc/group.", default=None
    )
