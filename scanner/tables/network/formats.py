"""Parsers of network configuration.

Sources: interfaces(5) of ifupdown 0.8; netplan(5); nm-settings-keyfile(5); Red Hat's
/usr/share/doc/initscripts/sysconfig.txt and SUSE's ifcfg(5); systemd.network(5); resolv.conf(5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fleetscan.scanner.tables.network import yaml_text

_INTERFACES = 1000
_VALUE = 4096  # characters; shlex takes its time
_NETMASK = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_NETPLAN_KINDS = ("ethernets", "wifis", "bonds", "bridges", "vlans", "tunnels", "modems")
_ADDRESS = re.compile(r"address(?:es)?[0-9]*")
_IPADDR = re.compile(r"IPADDR(_?[0-9]*)")
_DNS = re.compile(r"DNS[0-9]+")
_YES = frozenset(("yes", "true", "on", "1"))


@dataclass
class Interface:
    """What a file asks for an interface; attributes as the table's columns."""

    name: str | None
    line: int | None = None
    method: str | None = None
    method6: str | None = None
    addresses: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    name_servers: list[str] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    automatic: bool | None = None
    leased: list[str] = field(default_factory=list)


def ifupdown(text: str) -> list[Interface]:
    """Interfaces of an interfaces file, the stanzas of one joined."""
    found: dict[str, Interface] = {}
    automatic: set[str] = set()
    current: Interface | None = None
    six = False
    for number, line in enumerate(text.replace("\\\n", " ").split("\n"), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "auto" or words[0].startswith("allow-"):
            automatic.update(words[1:])
        elif words[0] == "iface" and len(words) > 3 and len(found) < _INTERFACES:
            current = found.setdefault(words[1], Interface(words[1], number))
            six = words[2] == "inet6"
            setattr(current, "method6" if six else "method", words[3])
        elif words[0] in ("iface", "mapping", "source", "source-directory", "rename"):
            current = None
        elif current and len(words) > 1:
            _ifupdown_option(current, words[0], words[1:])
    for name, interface in found.items():
        interface.automatic = name in automatic
    return list(found.values())


def _ifupdown_option(interface: Interface, name: str, values: list[str]) -> None:
    if name == "address":
        interface.addresses.append(values[0])
    elif name == "netmask" and interface.addresses:
        interface.addresses[-1] = with_prefix(interface.addresses[-1], values[0])
    elif name == "gateway":
        interface.gateways.append(values[0])
    elif name in ("dns-nameservers", "dns-nameserver"):
        interface.name_servers += values
    elif name in ("dns-search", "dns-domain"):
        interface.search += values


def with_prefix(address: str, mask: str) -> str:
    """An address with its prefix's length, from a netmask or a length.

    >>> with_prefix("10.0.0.5", "255.255.255.0"), with_prefix("::1", "64")
    ('10.0.0.5/24', '::1/64')
    """
    if "/" in address or not mask:
        return address
    if _NETMASK.fullmatch(mask):
        return f"{address}/{sum(int(part).bit_count() for part in mask.split('.'))}"
    return f"{address}/{mask}"


def ini(text: str) -> dict[str, list[tuple[str, str]]]:
    """Sections of an INI file with their settings in order; sections of one name are joined."""
    sections: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] = sections.setdefault("", [])
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            section = sections.setdefault(stripped[1:-1], [])
        elif stripped and stripped[0] not in "#;" and "=" in stripped:
            key, _, value = stripped.partition("=")
            section.append((key.strip(), value.strip()))
    return sections


def networkd(text: str) -> Interface | None:
    """The interface that a .network file matches; None for a file that matches none."""
    sections = ini(text)
    match = dict(sections.get("Match", ()))
    name = match.get("Name") or match.get("MACAddress") or match.get("Type")
    if name is None:
        return None
    network = sections.get("Network", [])
    values = dict(network)
    routes = [value for key, value in sections.get("Route", ()) if key == "Gateway"]
    more = [value for key, value in sections.get("Address", ()) if key == "Address"]
    return Interface(
        name,
        method=values.get("DHCP"),
        method6=values.get("IPv6AcceptRA"),
        addresses=_all(network, "Address") + more,
        gateways=_all(network, "Gateway") + routes,
        name_servers=_words(network, "DNS"),
        search=_words(network, "Domains"),
    )


def _all(pairs: list[tuple[str, str]], wanted: str) -> list[str]:
    return [value for key, value in pairs if key == wanted]


def _words(pairs: list[tuple[str, str]], wanted: str) -> list[str]:
    return [word for value in _all(pairs, wanted) for word in value.split()]


def keyfile(text: str) -> Interface:
    """The interface of a NetworkManager connection; that of any when the file names none."""
    sections = {name: dict(pairs) for name, pairs in ini(text).items()}
    connection = sections.get("connection", {})
    found = Interface(connection.get("interface-name") or connection.get("id"))
    found.automatic = connection.get("autoconnect", "true").lower() in _YES
    for family in ("ipv4", "ipv6"):
        settings = sections.get(family, {})
        setattr(found, "method" if family == "ipv4" else "method6", settings.get("method"))
        for key, value in settings.items():
            if _ADDRESS.fullmatch(key):
                address, _, gateway = value.rstrip(";").partition(",")
                found.addresses.append(address)
                found.gateways += [gateway] if gateway else []
        found.gateways += [settings["gateway"]] if "gateway" in settings else []
        found.name_servers += _list(settings.get("dns"))
        found.search += _list(settings.get("dns-search"))
    return found


def _list(value: str | None) -> list[str]:
    return [word for word in (value or "").replace(",", ";").split(";") if word]


def ifcfg(text: str, name: str) -> Interface:
    """The interface of an ifcfg file.

    Args:
        text: the file's content.
        name: what the file's own name says.
    """
    values = shell_assignments(text)
    found = Interface(values.get("DEVICE") or name, method=values.get("BOOTPROTO"))
    start = values.get("ONBOOT") or values.get("STARTMODE")
    found.automatic = None if start is None else start.lower() in (*_YES, "auto", "hotplug")
    if "IPV6INIT" in values:
        automatic = values.get("IPV6_AUTOCONF", "yes").lower() in _YES
        found.method6 = "auto" if automatic else "static"
    for key, value in values.items():
        if match := _IPADDR.fullmatch(key):
            end = match[1]
            mask = values.get(f"PREFIX{end}") or values.get(f"NETMASK{end}", "")
            found.addresses.append(with_prefix(value, mask))
        elif key in ("GATEWAY", "IPV6_DEFAULTGW"):
            found.gateways.append(value)
        elif key == "IPV6ADDR":
            found.addresses.append(value)
        elif _DNS.fullmatch(key):
            found.name_servers.append(value)
        elif key == "DOMAIN":
            found.search += value.split()
    return found


def shell_assignments(text: str) -> dict[str, str]:
    """Assignments of a shell file, unquoted; lines that are anything else are left out."""
    found = {}
    for line in text.split("\n"):
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier() and len(value) <= _VALUE:
            try:
                words = shlex.split(value, comments=True)
            except ValueError:  # a quote that is not closed
                words = [value]
            found[name] = words[0] if words else ""
    return found


def netplan(text: str) -> Iterator[Interface]:
    """Interfaces of a netplan file.

    Raises:
        ValueError: it is not the YAML that netplan's files are written in.
    """
    network = yaml_text.parse(text).get("network")
    for kind in _NETPLAN_KINDS:
        devices = network.get(kind) if isinstance(network, Mapping) else None
        for name, device in devices.items() if isinstance(devices, Mapping) else ():
            if isinstance(device, Mapping):
                yield _netplan_device(name, device)


def _netplan_device(name: str, device: Mapping[str, yaml_text.Value]) -> Interface:
    match, servers = device.get("match"), device.get("nameservers")
    named = match.get("name") if isinstance(match, Mapping) else None
    routes = device.get("routes")
    gateways = [device.get("gateway4"), device.get("gateway6")]
    for route in routes if isinstance(routes, list) else ():
        if isinstance(route, Mapping) and route.get("to") in ("default", "0.0.0.0/0", "::/0"):
            gateways.append(route.get("via"))
    servers = servers if isinstance(servers, Mapping) else {}
    return Interface(
        named if isinstance(named, str) else name,
        method=_dhcp(device.get("dhcp4")),
        method6=_dhcp(device.get("dhcp6")),
        addresses=_texts(device.get("addresses")),
        gateways=[gateway for gateway in gateways if isinstance(gateway, str)],
        name_servers=_texts(servers.get("addresses")),
        search=_texts(servers.get("search")),
    )


def _dhcp(value: yaml_text.Value | None) -> str | None:
    if not isinstance(value, str):
        return None
    return "dhcp" if value.lower() in _YES else "static"


def _texts(value: yaml_text.Value | None) -> list[str]:
    """Items of a list that are text, and the only key of those that carry options."""
    found = []
    for item in value if isinstance(value, list) else ():
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping):
            found += list(item)[:1]
    return found


def resolv(text: str) -> Interface:
    """Name servers and domains of resolv.conf."""
    found = Interface(None)
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.name_servers.append(words[1])
        elif len(words) > 1 and words[0] in ("search", "domain"):
            found.search = words[1:]  # the last one counts
    return found
