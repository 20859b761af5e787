r"""Windows' firewall, from its registry: rules since Vista, lists of ports and programs of XP.

Sources: Microsoft's [MS-FASP] 2.2 and [MS-GPFAS] 2.2.2 (the text of a rule, its fields, the
default actions of profiles), and what Windows XP to 11 write below FirewallPolicy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.firewall_rules.parsed_rule import Action, Direction, ParsedRule

_SERVICE = "CurrentControlSet\\Services\\MpsSvc"
_SERVICE_OF_XP = "CurrentControlSet\\Services\\SharedAccess"
_LOCAL = f"{_SERVICE_OF_XP}\\Parameters\\FirewallPolicy"
_BY_POLICY = "Policies\\Microsoft\\WindowsFirewall"
_RULES = "FirewallRules"
_PROFILES = {"DomainProfile": "Domain", "StandardProfile": "Private", "PublicProfile": "Public"}
_AUTOMATIC = 2

_PROTOCOLS = {"1": "icmp", "2": "igmp", "6": "tcp", "17": "udp", "41": "ipv6", "47": "gre"}
_PROTOCOLS |= {"58": "icmpv6"}
_ACTIONS: dict[str, Action] = {"allow": "allow", "block": "deny"}
_DIRECTIONS: dict[str, Direction] = {"in": "in", "out": "out"}
_LATER = re.compile("([LR](?:Port|A4|A6))2(?:_[0-9]+)?")
# A port's or program's scope, whether it is on, and its name.
_EXCEPTION = re.compile(r"(.*?):([^:\\]*):(enabled|disabled)(?::.*)?", re.IGNORECASE | re.DOTALL)

_DEFAULTS: tuple[tuple[Direction, str, int], ...] = (
    ("in", "DefaultInboundAction", 1),
    ("out", "DefaultOutboundAction", 0),
)
"""Values of a profile that say what becomes of packets, and what Windows takes them for."""

Fields = Mapping[str, Sequence[str]]
Places = Sequence[tuple[str, HiveKey]]


def rules(reader: Reader) -> Iterator[tuple[str, ParsedRule, bool]]:
    """Hive, rule and whether it is in force: default policies, then rules, then XP's exceptions.

    What group policy sets for a profile counts more than what the machine itself has; rules of
    both are in force.

    Args:
        reader: of a Windows root; gets a note for what cannot be read.
    """
    root = reader.root
    wanted = [Want(_SERVICE, 0, ("start",)), Want(_SERVICE_OF_XP, 0, ("start",)), Want(_LOCAL, 3)]
    system = hives.read_system(root, "SYSTEM", wanted, reader)
    software = hives.read_system(root, "SOFTWARE", [Want(_BY_POLICY, 3)], reader)
    local, policy = system.find(_LOCAL), software.find(_BY_POLICY)
    places = [(hives.system_hive(root, "SOFTWARE"), policy)] if policy else []
    places += [(hives.system_hive(root, "SYSTEM"), local)] if local else []
    running = is_running(system)
    on = {
        name: running and _number(places, profile, "EnableFirewall", 1)[1] == 1
        for profile, name in _PROFILES.items()
    }
    for profile, name in _PROFILES.items():
        for file, rule in defaults(places, profile, name):
            yield file, rule, on[name]
    for file, key in reversed(places):
        yield from _rules(reader, file, key, on)
        for profile, name in _PROFILES.items():
            malformed: list[str] = []
            for rule, is_on in exceptions(key.find(profile) or HiveKey(""), name, malformed):
                yield file, rule, is_on and on[name]
            for text in malformed:
                reader.note(f"{file}: firewall exception {text[:99]!r} is malformed")


def _rules(
    reader: Reader, file: str, key: HiveKey, on: Mapping[str, bool]
) -> Iterator[tuple[str, ParsedRule, bool]]:
    for value in (key.find(_RULES) or HiveKey("")).values.values():
        try:
            rule, is_on = parse("".join(value.texts()), on)
        except ValueError as error:
            reader.note(f"{file}: firewall rule {value.name} {error}")
            continue
        yield file, rule, is_on


def is_running(system: HiveKey) -> bool:
    """Whether the firewall's service starts by itself; XP's has another name."""
    service = system.find(_SERVICE) or system.find(_SERVICE_OF_XP)
    return service is not None and service.number("Start") == _AUTOMATIC


def defaults(places: Places, profile: str, name: str) -> Iterator[tuple[str, ParsedRule]]:
    """What becomes of packets in and out that no rule is about, and the hive that says so.

    Args:
        places: hives and their keys of the firewall, that which counts most first.
        profile: the profile's key.
        name: its name.
    """
    if not any(key.find(profile) for _, key in places):
        return
    for direction, value, otherwise in _DEFAULTS:
        file, number = _number(places, profile, value, otherwise)
        action: Action = "deny" if number == 1 else "allow"
        yield file, ParsedRule(name, direction, action, f"{value}={number}", kind="policy")


def _number(places: Places, profile: str, name: str, otherwise: int) -> tuple[str, int]:
    """A profile's value, and the hive that it is in; what Windows takes it for where it is not."""
    for file, key in places:
        found = key.find(profile)
        number = found.number(name) if found else None
        if number is not None:
            return file, number
    return (places[-1][0] if places else ""), otherwise


def parse(text: str, on: Mapping[str, bool]) -> tuple[ParsedRule, bool]:
    """A rule as Windows since Vista writes it, and whether it is in force.

    Args:
        text: such as ``v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=443|``.
        on: whether the firewall is on in each profile.

    Raises:
        ValueError: it lacks an action or a direction.
    """
    fields = _fields(text)
    direction = _DIRECTIONS.get((_first(fields, "Dir") or "").lower())
    action = _first(fields, "Action")
    if direction is None or action is None:
        raise ValueError("lacks an action or a direction")
    near, far = _addresses(fields, "LA"), _addresses(fields, "RA")
    source, destination = (far, near) if direction == "in" else (near, far)
    protocol = _first(fields, "Protocol")
    profiles = fields.get("Profile", ())
    rule = ParsedRule(
        ",".join(profiles) or None,
        direction,
        _ACTIONS.get(action.lower(), "other"),
        text,
        protocol=_PROTOCOLS.get(protocol, protocol) if protocol else None,
        source=source,
        destination=destination,
        port=_joined(fields, "LPort" if direction == "in" else "RPort"),
        interface=_joined(fields, "IF") or _joined(fields, "IFType"),
    )
    active = (_first(fields, "Active") or "").lower() == "true"
    return rule, active and any(on.get(profile, False) for profile in profiles or on)


def _fields(text: str) -> Fields:
    fields: dict[str, list[str]] = {}
    for part in text.split("|"):
        name, equals, value = part.partition("=")
        if equals:
            fields.setdefault(_plain(name), []).append(value)
    return fields


@functools.lru_cache(maxsize=256)  # every rule has the same few
def _plain(name: str) -> str:
    """A field's name, for its later forms as well, such as LPort2_10 of Windows 7."""
    match = _LATER.fullmatch(name)
    return match[1] if match else name


def _first(fields: Fields, name: str) -> str | None:
    return next(iter(fields.get(name, ())), None)


def _addresses(fields: Fields, side: str) -> str | None:
    """Addresses of both versions; a word such as LocalSubnet stands for both once."""
    found = [*fields.get(f"{side}4", ()), *fields.get(f"{side}6", ())]
    return ",".join(dict.fromkeys(found)) or None


def _joined(fields: Fields, name: str) -> str | None:
    return ",".join(fields.get(name, ())) or None


def exceptions(
    profile: HiveKey, name: str, malformed: list[str]
) -> Iterator[tuple[ParsedRule, bool]]:
    """Ports and programs that XP's firewall lets in, and whether each is switched on.

    Args:
        profile: the profile's key.
        name: its name.
        malformed: gets the texts of those that are none.
    """
    for kind in ("GloballyOpenPorts", "AuthorizedApplications"):
        for value in (profile.find(f"{kind}\\List") or HiveKey("")).values.values():
            text = "".join(value.texts())
            match = _EXCEPTION.fullmatch(text)
            if match is None:
                malformed.append(text)
                continue
            is_port = kind == "GloballyOpenPorts"
            port, _, protocol = match[1].partition(":") if is_port else ("", "", "")
            rule = ParsedRule(
                name,
                "in",
                "allow",
                text,
                protocol=protocol.lower() or None,
                source=None if match[2] == "*" else match[2],
                port=port or None,
            )
            yield rule, match[3].lower() == "enabled"
