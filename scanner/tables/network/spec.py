"""One row an interface that a system configures, or a resolver setting."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_PATH, U32, column, table

Source = Literal["ifupdown", "netplan", "networkmanager", "ifcfg", "networkd", "resolv", "windows"]


@table()
class Network:
    """Network configuration on disk: interfaces with their addresses, and name servers.

    What is told is what the files ask for, in the terms that the tools share. Keys of wireless
    and other networks are left out. Names of /etc/hosts are in ``config``.
    """

    source: Source = column(
        "Whose file it is: ifupdown (/etc/network/interfaces), netplan, NetworkManager's keyfiles, "
        "ifcfg files of Red Hat and SUSE, systemd-networkd; resolv: /etc/resolv.conf; windows: the "
        "registry's SYSTEM hive."
    )
    file: str = column(
        "File that it stands in.", example="/etc/network/interfaces", unredacted=IS_PATH
    )
    line: U32 | None = column("Line of the file where it begins, from 1; null for whole files.")
    interface: str | None = column(
        "Interface, or the pattern that names it; null for resolv and for what Windows has set for "
        "all of them.",
        example="eth0",
    )
    method: str | None = column(
        "How it gets its IPv4 addresses, as the file says it.", example="dhcp"
    )
    method6: str | None = column("The same for IPv6.", example="auto")
    addresses: tuple[str, ...] = column(
        "Fixed addresses, with their prefix's length where the file tells.", example="10.0.0.5/24"
    )
    gateways: tuple[str, ...] = column("Default gateways.", example="10.0.0.1")
    name_servers: tuple[str, ...] = column("Name servers.", example="10.0.0.2")
    search: tuple[str, ...] = column("Domains that names are searched in.", example="example.org")
    automatic: bool | None = column(
        "Whether it is brought up at boot; null where the file does not say."
    )
    leased: tuple[str, ...] = column(
        "Addresses that DHCP gave it last, where the system keeps them: Windows does.",
        example="192.168.122.7/24",
    )
