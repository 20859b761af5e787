"""One row a service or other unit that the system could start."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_NAME, IS_PATH, column, table

Kind = Literal[
    "service",
    "socket",
    "timer",
    "path",
    "mount",
    "automount",
    "swap",
    "target",
    "slice",
    "scope",
    "device",
    "driver",
]
State = Literal[
    "enabled", "linked", "alias", "masked", "static", "indirect", "manual", "disabled", "bad"
]


@table()
class Service:
    """systemd units, SysV scripts and Windows services, and whether they start automatically.

    Units are those of the system manager that are on disk. Generators and /run are not read, as
    they are empty until a system runs. Instances of templates have a row if something pulls them
    in. A SysV script with the same name as a systemd unit is left out, as systemd ignores it.

    Windows: services and drivers of the control set that starts, from its registry.
    """

    name: str = column(
        "Unit name with its suffix, or script name.", example="ssh.service", unredacted=IS_NAME
    )
    manager: Literal["systemd", "sysv", "windows"] = column("What starts it.")
    kind: Kind = column("Unit type; SysV scripts are services; only Windows has drivers.")
    state: State = column(
        "Enablement, in the words of systemctl is-enabled. SysV: enabled if a start link exists "
        "in run levels 2 to 5 or S, otherwise disabled. Windows: enabled if it starts "
        "automatically, manual if others start it, disabled, or bad for a start type that does "
        "not exist."
    )
    path: str = column(
        "File, or registry key, that defines it.",
        example="/lib/systemd/system/ssh.service",
        unredacted=IS_PATH,
    )
    description: str | None = column(
        "Its own description, as written in its file; Windows: its display name."
    )
    command: str | None = column(
        "First command it starts with (ExecStart), without systemd's prefixes; Windows: ImagePath.",
        default=None,
    )
    run_as: str | None = column("Account it runs as, if not root or LocalSystem.", default=None)
    wanted_by: tuple[str, ...] = column(
        "Units that pull it in by a link (SysV: run levels it starts in).",
        example="multi-user.target",
        unredacted=IS_NAME,
    )
    aliases: tuple[str, ...] = column("Other names that links give it.", unredacted=IS_NAME)
