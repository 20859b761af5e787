"""Firewall rules, from the files of nftables, iptables, ufw and firewalld, or of Windows."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.firewall_rules import firewalld, iptables, nftables, ufw, windows
from fleetscan.scanner.tables.firewall_rules.parsed_rule import ParsedRule
from fleetscan.scanner.tables.firewall_rules.spec import FirewallRule, Framework

_NFTABLES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft")
"""Debian and Arch, Red Hat, Alpine."""

_IPTABLES = (
    *("/etc/iptables/rules.v4", "/etc/iptables/rules.v6"),  # Debian
    *("/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"),  # Red Hat
    *("/etc/iptables/iptables.rules", "/etc/iptables/ip6tables.rules"),  # Arch
    *("/etc/iptables/rules-save", "/etc/iptables/rules6-save"),  # Alpine
    *("/var/lib/iptables/rules-save", "/var/lib/ip6tables/rules-save"),  # Gentoo
)
_UFW, _UFW_DEFAULTS = "/etc/ufw/ufw.conf", "/etc/default/ufw"
_UFW_RULES = ("/etc/ufw/user.rules", "/etc/ufw/user6.rules")
_FIREWALLD = "/etc/firewalld"
_FIREWALLD_OWN = "/usr/lib/firewalld"

_SERVICES: dict[Framework, tuple[str, ...]] = {
    "nftables": ("nftables",),
    "iptables": ("netfilter-persistent", "iptables", "ip6tables"),
    "ufw": ("ufw",),
    "firewalld": ("firewalld",),
}
_UNITS = "/etc/systemd/system"
_LEVELS = tuple(f"/etc/rc{level}.d" for level in "S2345")
_OPENRC = "/etc/runlevels"

_TEXT = 2000  # characters that are kept of a rule's text, and of each of its parts
_FILE_LIMIT = 4 << 20
_INCLUDED, _INCLUDED_SIZE = 200, 8 << 20  # files that include each other grow by powers


def collect(root: Root) -> Iterator[FirewallRule]:
    """One row a rule or default policy, framework by framework.

    Raises:
        NotApplicable: there is no file of any of them, and this is not Windows.
        UnreadError: some files could not be read or have malformed parts; raised after all rows.
        IncompleteError: files of nftables include each other without end; raised after all rows.
    """
    reader = Reader(root, _FILE_LIMIT)
    if root.windows:
        for position, (file, rule, enabled) in enumerate(windows.rules(reader)):
            yield _row("windows", file, position, rule, enabled=enabled)
        reader.finish()
        return
    found = False
    # Most systems have none: two looks instead of a score.
    names = {*root.listdir("/etc"), *root.listdir("/var/lib")}
    frameworks = [framework for framework, tops in _FRAMEWORKS if not names.isdisjoint(tops)]
    for framework in frameworks:
        for row in framework(reader):
            found = True
            yield row
    places = (*_NFTABLES, *_IPTABLES, _UFW, _FIREWALLD) if frameworks else ()
    if not found and not any(map(root.exists, places)):
        raise NotApplicable("none of the files that this table reads exists")
    reader.finish()


def _rows(
    framework: Framework, rules: Iterable[tuple[str, ParsedRule]], *, enabled: bool
) -> Iterator[FirewallRule]:
    for position, (file, rule) in enumerate(rules):
        yield _row(framework, file, position, rule, enabled=enabled)


def _row(
    framework: Framework, file: str, position: int, rule: ParsedRule, *, enabled: bool
) -> FirewallRule:
    return FirewallRule(
        framework=framework,
        file=file,
        position=position,
        **{name: _kept(value) for name, value in vars(rule).items()},
        enabled=enabled,
    )


def _kept(value: Any) -> Any:
    return value[:_TEXT] if isinstance(value, str) else value


def _starts(root: Root, framework: Framework) -> bool:
    """Whether a service that loads the framework's rules starts by itself."""
    names = [name for name in _SERVICES[framework] if not _is_masked(root, name)]
    wants = root.glob(_UNITS, "*.wants")
    links = [f"{folder}/{name}.service" for folder in wants for name in names]
    levels = root.listdir(_OPENRC)
    links += [f"{_OPENRC}/{level}/{name}" for level in levels for name in names]
    if any(map(root.is_link, links)):
        return True
    if wants:  # its scripts of run levels count where there is no unit of the name, seldom
        return False
    started = {link[3:] for level in _LEVELS for link in root.listdir(level) if link[:1] == "S"}
    return not started.isdisjoint(names)


def _is_masked(root: Root, name: str) -> bool:
    path = f"{_UNITS}/{name}.service"
    return root.is_link(path) and root.readlink(path) == "/dev/null"


def _nftables(reader: Reader) -> Iterator[FirewallRule]:
    path = next(filter(reader.root.exists, _NFTABLES), None)
    text = reader.text(path, path) if path else None
    if path is None or text is None:
        return
    include = _Includes(reader, path)
    rules = nftables.parse(path, text, include.files)
    yield from _rows("nftables", rules, enabled=_starts(reader.root, "nftables"))


class _Includes:
    """Opens what a script of nftables includes, within bounds."""

    def __init__(self, reader: Reader, top: str) -> None:
        self._reader = reader
        self._top = top
        self._files, self._size = 0, 0

    def files(self, pattern: str) -> Iterator[tuple[str, str]]:
        """The files that a pattern means, sorted; a name without folder is below /etc."""
        folder, name = posixpath.split(posixpath.join("/etc", pattern))
        for path in self._reader.root.glob(folder, name):
            self._files += 1
            if self._files > _INCLUDED or self._size > _INCLUDED_SIZE:
                self._reader.note(f"{self._top}: includes too many files", self._top, path)
                return
            text = self._reader.text(path, path, self._top)
            if text is not None:
                self._size += len(text)
                yield path, text


def _iptables(reader: Reader) -> Iterator[FirewallRule]:
    rules = list(_saved(reader))
    if rules:
        yield from _rows("iptables", rules, enabled=_starts(reader.root, "iptables"))


def _saved(reader: Reader) -> Iterator[tuple[str, ParsedRule]]:
    for path in _IPTABLES:
        yield from _parsed(reader, path, iptables.parse)


def _parsed(
    reader: Reader, path: str, parse: Callable[[str, list[int]], Iterator[ParsedRule]]
) -> Iterator[tuple[str, ParsedRule]]:
    malformed: list[int] = []
    for rule in parse(reader.text(path, path) or "", malformed):
        yield path, rule
    if malformed:
        reader.note(colonfile.malformed(path, malformed), path)


def _ufw(reader: Reader) -> Iterator[FirewallRule]:
    if not reader.root.exists(_UFW):
        return
    conf = reader.text(_UFW, _UFW, _UFW_DEFAULTS, *_UFW_RULES) or ""
    enabled = ufw.is_enabled(conf) and _starts(reader.root, "ufw")
    yield from _rows("ufw", _ufw_rules(reader), enabled=enabled)


def _ufw_rules(reader: Reader) -> Iterator[tuple[str, ParsedRule]]:
    for rule in ufw.policies(reader.text(_UFW_DEFAULTS, _UFW_DEFAULTS) or ""):
        yield _UFW_DEFAULTS, rule
    for path in _UFW_RULES:
        yield from _parsed(reader, path, ufw.rules)


def _firewalld(reader: Reader) -> Iterator[FirewallRule]:
    if reader.root.is_dir(_FIREWALLD):
        enabled = _starts(reader.root, "firewalld")
        yield from _rows("firewalld", _zones(reader), enabled=enabled)


def _zones(reader: Reader) -> Iterator[tuple[str, ParsedRule]]:
    """Rules of the zones that were changed, and of the default one."""
    paths = {
        posixpath.basename(path): path for path in reader.root.glob(f"{_FIREWALLD}/zones", "*.xml")
    }
    # Which zone is the default decides which files are read.
    name = firewalld.default_zone(reader.text(f"{_FIREWALLD}/firewalld.conf") or "")
    own = f"{_FIREWALLD_OWN}/zones/{name}.xml"
    if "/" not in name and f"{name}.xml" not in paths and reader.root.exists(own):
        paths[f"{name}.xml"] = own
    services = _Services(reader)
    for base, path in sorted(paths.items()):
        zone = _element(reader, path, path)
        if zone is not None:
            for rule in firewalld.rules(base.removesuffix(".xml"), zone, services.ports):
                yield path, rule


def _element(reader: Reader, path: str, *rows_of: str) -> firewalld.XmlElement | None:
    data = reader.data(path, *rows_of)
    try:
        return None if data is None else firewalld.read(data)
    except ValueError as error:
        reader.note(f"{path}: {error}", *rows_of)
        return None


class _Services:
    """firewalld's services, each read once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[str, firewalld.Ports | None] = {}

    def ports(self, name: str) -> firewalld.Ports | None:
        """What a service lets in; None for a service without a file."""
        if name not in self._known:
            self._known[name] = None if "/" in name else self._read(name)
        return self._known[name]

    def _read(self, name: str) -> firewalld.Ports | None:
        for folder in (_FIREWALLD, _FIREWALLD_OWN):
            path = f"{folder}/services/{name}.xml"
            element = _element(self._reader, path)  # of any number of zones
            if element is not None:
                return firewalld.ports(element)
        return None


_FRAMEWORKS: tuple[tuple[Callable[[Reader], Iterator[FirewallRule]], tuple[str, ...]], ...] = (
    (_nftables, ("nftables.conf", "nftables.nft", "sysconfig")),
    (_iptables, ("iptables", "ip6tables", "sysconfig")),
    (_ufw, ("ufw",)),
    (_firewalld, ("firewalld",)),
)
"""What reads each framework's files, and names of which /etc or /var/lib has one then."""
