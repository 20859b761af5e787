"""One row an interface that a system configures, or a resolver setting."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, column, table

Source = Literal["ifupdown", "netplan", "networkmanager", "ifcfg", "networkd", "resolv", "windows"]


@table()
class Network:
    """Network configuration on disk: interfaces with their addresses, and name servers.

    Rows show what the files configure, in terms that the tools share. Keys of wireless and other
    networks are left out. Names in /etc/hosts are in ``config``.
    """

    source: Source = column(
        "Kind of file: ifupdown (/etc/network/interfaces), netplan, NetworkManager's keyfiles, "
        "ifcfg files of Red Hat and SUSE, systemd-networkd; resolv: /etc/resolv.conf; windows: "
        "the registry's SYSTEM hive."
    )
    file: str = column(
        "File that contains it.", example="/etc/network/interfaces", unredacted=IS_PATH
    )
    line: U32 | None = column("Line of the file where it begins, from 1; null for whole files.")
    interface: str | None = column(
        "Interface, or the pattern that selects it; null for resolv and for Windows settings that "
        "apply to all interfaces.",
        example="eth0",
    )
    method: str | None = column(
        "How it gets its IPv4 addresses, in the words of the file.", example="dhcp"
    )
    method6: str | None = column("The same for IPv6.", example="auto")
    addresses: tuple[str, ...] = column(
        "Fixed addresses, with the prefix length if the file states it.", example="10.0.0.5/24"
    )
    gateways: tuple[str, ...] = column("Default gateways.", example="10.0.0.1")
    name_servers: tuple[str, ...] = column("Name servers.", example="10.0.0.2")
    search: tuple[str, ...] = column("Search domains.", example="example.org")
    automatic: bool | None = column(
        "Whether it is brought up at boot; null if the file does not say."
    )
    leased: tuple[str, ...] = column(
        "Addresses that DHCP gave it last, if the system records them, as Windows does.",
        example="192.168.122.7/24",
    )
