"""One row a setting that is handed to the kernel or its module loader at boot."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, column, table

Kind = Literal[
    "sysctl", "load", "blacklist", "install", "remove", "options", "alias", "softdep", "weakdep"
]


@table()
class KernelSetting:
    """Kernel parameters and module settings on disk: sysctl.d, ufw, modprobe.d, modules-load.d.

    The kernel's own defaults, and settings made by hand since the last boot, are not on disk.
    Kernel command lines are in ``boot``.
    """

    kind: Kind = column(
        "sysctl: a kernel parameter; load: a module that is loaded at boot; others: the commands "
        "of modprobe.d(5)."
    )
    name: str = column(
        "Parameter with dots, module with underscores, or the pattern of an alias. A parameter "
        "may be a shell pattern, which sets parameters that are not named explicitly.",
        example="net.ipv4.ip_forward",
    )
    value: str | None = column(
        "Value that it is set to, or the rest of a modprobe.d command; null if there is none.",
        example="1",
        named_by=("name",),
    )
    file: str = column(
        "File that contains it.", example="/etc/sysctl.d/99-local.conf", unredacted=IS_PATH
    )
    line: U32 = column("Line of the file, from 1.")
    position: U32 = column("Position in the order in which settings of its kind are read, from 0.")
    in_force: bool = column(
        "False for a parameter that a later one of the same name overrides, and for parameters in "
        "a /etc/sysctl.conf that this system does not read."
    )
