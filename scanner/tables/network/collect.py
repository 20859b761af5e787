"""Network configuration, from the files of the tools that set it up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.reading import Reader, drop_ins
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.network import formats, windows
from fleetscan.scanner.tables.network.spec import Network, Source

_INTERFACES = "/etc/network/interfaces"
_IFCFG_FOLDERS = ("/etc/sysconfig/network-scripts", "/etc/sysconfig/network")
_IFCFG_LEFT = (".rpmsave", ".rpmnew", ".rpmorig", ".bak", "~", ".template", "-lo")
_KEYFILES = ("/etc/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections")
_NETWORKD = (
    "/etc/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
)
_NETPLAN = ("/etc/netplan", "/usr/lib/netplan", "/lib/netplan")
_RESOLV = "/etc/resolv.conf"

Parse = Callable[[str, str], Iterable[formats.Interface | None]]


def warm_up() -> None:
    """Have libyaml read something."""
    list(formats.netplan("network: {ethernets: {}}"))


def collect(root: Root) -> Iterator[Network]:
    """One row an interface of each file that configures one, then the resolver's.

    Raises:
        NotApplicable: there is none of the files, and this is not Windows.
        IncompleteError: a file cannot be read; raised after all rows.
    """
    reader = Reader(root)
    if root.windows:
        for interface in windows.interfaces(reader):
            yield _row("windows", windows.path(reader), interface)
        reader.finish()
        return
    found = False
    for source, path, parse in _files(root):
        try:
            interfaces = list(parse(reader.text(path) or "", path))
        except ValueError as error:
            reader.note(f"{path}: {error}")
            continue
        for interface in filter(None, interfaces):
            found = True
            yield _row(source, path, interface)
    reader.finish()
    if not found:
        raise NotApplicable("no network configuration of a known kind")


def _files(root: Root) -> Iterator[tuple[Source, str, Parse]]:
    for path in (_INTERFACES, *root.glob(f"{_INTERFACES}.d")):
        yield "ifupdown", path, lambda text, _: formats.ifupdown(text)
    for path in drop_ins(_NETPLAN, ".yaml", root.listdir):
        yield "netplan", path, lambda text, _: formats.netplan(text)
    for path in (path for folder in _KEYFILES for path in root.glob(folder)):
        yield "networkmanager", path, lambda text, _: [formats.keyfile(text)]
    for path in (path for folder in _IFCFG_FOLDERS for path in root.glob(folder, "ifcfg-*")):
        if not path.endswith(_IFCFG_LEFT):
            yield "ifcfg", path, _ifcfg
    for path in drop_ins(_NETWORKD, ".network", root.listdir):
        if root.is_file(path):
            yield "networkd", path, lambda text, _: [formats.networkd(text)]
    if root.is_file(_RESOLV):
        yield "resolv", _RESOLV, lambda text, _: [formats.resolv(text)]


def _ifcfg(text: str, path: str) -> list[formats.Interface | None]:
    return [formats.ifcfg(text, path.rpartition("/ifcfg-")[2])]


def _row(source: Source, path: str, interface: formats.Interface) -> Network:
    return Network(
        source=source,
        file=path,
        line=interface.line,
        interface=interface.name,
        method=interface.method,
        method6=interface.method6,
        addresses=tuple(interface.addresses),
        gateways=tuple(interface.gateways),
        name_servers=tuple(interface.name_servers),
        search=tuple(interface.search),
        automatic=interface.automatic,
        leased=tuple(interface.leased),
    )
