"""One row a setting in a configuration file."""

from __future__ import annotations

from scanner.schema import U32, column, table


@table()
class Setting:
    """Settings as a program would read them, file by file in its reading order.

    So far: the OpenSSH server (sshd_config and what it includes).
    """

    file: str = column("File that the setting stands in.", example="/etc/ssh/sshd_config")
    path: str = column(
        "Setting's name in lower case; one that holds in a condition only has that before a slash.",
        example="match user backup/permitrootlogin",
    )
    value: str = column("Value as written, quotes removed.", example="prohibit-password")
    line: U32 = column("Line of the file, from 1.")
    position: U32 = column(
        "Place in the order in which the program reads its settings, from 0; for the OpenSSH "
        "server the first setting of a name outside conditions is the one in force."
    )
