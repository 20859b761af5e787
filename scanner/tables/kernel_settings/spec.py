"""One row a setting that is handed to the kernel or its module loader at boot."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_PATH, U32, column, table

Kind = Literal[
    "sysctl", "load", "blacklist", "install", "remove", "options", "alias", "softdep", "weakdep"
]


@table()
class KernelSetting:
    """Kernel parameters and module settings on disk: sysctl.d, modprobe.d, modules-load.d.

    What the kernel's own defaults are, and what was set by hand since the last boot, is not on
    disk. Kernel command lines are in ``boot``.
    """

    kind: Kind = column(
        "sysctl: a kernel parameter; load: a module that is loaded at boot; the others are the "
        "commands of modprobe.d(5)."
    )
    name: str = column(
        "Parameter with dots, module with underscores, or what alias matches. A parameter may be "
        "a shell pattern, which sets what is not named outright.",
        example="net.ipv4.ip_forward",
    )
    value: str | None = column(
        "What it is set to; the rest of a modprobe.d command; null where there is none.",
        example="1",
        named_by=("name",),
    )
    file: str = column(
        "File that it stands in.", example="/etc/sysctl.d/99-local.conf", unredacted=IS_PATH
    )
    line: U32 = column("Line of the file, from 1.")
    position: U32 = column("Place in the order in which settings of its kind are read, from 0.")
    in_force: bool = column(
        "False for a parameter that a later one of the same name overrides, and for those of a "
        "/etc/sysctl.conf that this system does not read."
    )
