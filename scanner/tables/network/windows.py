"""Network configuration of a Windows system, from its SYSTEM hive.

Source: Microsoft's "TCP/IP and NBT configuration parameters"; names of connections stand below
the class of network adapters, whose GUID is that of devguid.h.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.network.formats import Interface

_TCPIP = "CurrentControlSet\\Services\\Tcpip\\Parameters"
_INTERFACES = f"{_TCPIP}\\Interfaces"
_CONNECTIONS = "CurrentControlSet\\Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}"

_NONE = "0.0.0.0"  # noqa: S104 # what Windows writes for no address


def path(reader: Reader) -> str:
    """The hive that describes interfaces."""
    return hives.system_hive(reader.root, "SYSTEM")


def interfaces(reader: Reader) -> Iterator[Interface]:
    """Each interface that TCP/IP is set up for, then what is set for all of them.

    Args:
        reader: of a Windows root; gets a note for what cannot be read.
    """
    wanted = [
        Want(_TCPIP, 0, ("nameserver", "searchlist", "domain")),
        Want(_INTERFACES, 1),
        Want(_CONNECTIONS, 2, ("name",)),
    ]
    system = hives.read_system(reader.root, "SYSTEM", wanted, reader)
    for key in system.below(_INTERFACES):
        if "enabledhcp" in key.values or key.texts("IPAddress"):
            yield _interface(key, _name(system, key))
    everywhere = system.find(_TCPIP) or HiveKey("")
    servers, search = _servers(everywhere), _search(everywhere)
    if servers or search:
        yield Interface(None, name_servers=servers, search=search)


def _name(system: HiveKey, key: HiveKey) -> str:
    """The connection's name, as people see it; else the interface's GUID."""
    connection = system.find(f"{_CONNECTIONS}\\{key.name}\\Connection")
    return (connection.text("Name") if connection else None) or key.name


def _interface(key: HiveKey, name: str) -> Interface:
    dynamic = key.number("EnableDHCP") == 1
    leased = key.text("DhcpIPAddress")
    fixed = zip(key.texts("IPAddress"), key.texts("SubnetMask"), strict=False)
    return Interface(
        name,
        method="dhcp" if dynamic else "static",
        addresses=[] if dynamic else [_prefixed(*pair) for pair in fixed if pair[0] != _NONE],
        gateways=[] if dynamic else _real(key.texts("DefaultGateway")),
        name_servers=_servers(key),
        search=_search(key),
        leased=[_prefixed(leased, key.text("DhcpSubnetMask"))]
        if dynamic and leased and leased != _NONE
        else [],
    )


def _servers(key: HiveKey) -> list[str]:
    return _real((key.text("NameServer") or "").replace(",", " ").split())


def _search(key: HiveKey) -> list[str]:
    """Domains that names are searched in: those of a list, else the system's own."""
    return [*(key.text("SearchList") or key.text("Domain") or "").replace(",", " ").split()]


def _real(addresses: Sequence[str]) -> list[str]:
    return [address for address in addresses if address != _NONE]


def _prefixed(address: str, mask: str | None) -> str:
    """An address with its prefix's length; alone when its mask is none."""
    try:
        return ipaddress.IPv4Interface(f"{address}/{mask}").with_prefixlen if mask else address
    except ValueError:
        return address
