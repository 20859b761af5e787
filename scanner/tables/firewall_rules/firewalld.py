"""firewalld's zones, services and settings.

Source: firewalld.zone(5), firewalld.richlanguage(5), firewalld.service(5) and firewalld.conf(5) of
firewalld 1.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from fleetscan.scanner.tables.firewall_rules.parsed_rule import Action, ParsedRule

_DEFAULT_ZONE = re.compile(r"^[ \t]*DefaultZone[ \t]*=[ \t]*(\S+)", re.MULTILINE)
_TARGETS: dict[str, Action] = {
    "ACCEPT": "allow",
    "DROP": "deny",
    "%%REJECT%%": "reject",
    "REJECT": "reject",
    "default": "reject",  # since firewalld 1.0; before, what no rule let in was also rejected
}
_RICH: dict[str, Action] = {"accept": "allow", "reject": "reject", "drop": "deny", "mark": "other"}
_ELEMENTS, _DEPTH = 20_000, 16

Ports = list[tuple[str | None, str | None]]
"""Protocol and port; None for any."""

Services = Callable[[str], "Ports | None"]
"""Gives a service's ports, or None for one that there is not."""


@dataclass
class XmlElement:
    """An XML element without its text, which firewalld's files do not use for settings."""

    name: str
    attributes: dict[str, str]
    below: list[XmlElement] = field(default_factory=list)

    def child(self, name: str) -> XmlElement | None:
        """The first element below of a name."""
        return next((element for element in self.below if element.name == name), None)

    def __str__(self) -> str:
        stated = "".join(f' {name}="{value}"' for name, value in self.attributes.items())
        if not self.below:
            return f"<{self.name}{stated}/>"
        return f"<{self.name}{stated}>{''.join(map(str, self.below))}</{self.name}>"


def read(data: bytes) -> XmlElement:
    """The root element of a file.

    Raises:
        ValueError: it is not XML, has a document type, or too many elements or levels.
    """
    from xml.parsers import expat

    top = XmlElement("", {})
    path, count = [top], 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > _ELEMENTS or len(path) > _DEPTH:
            raise ValueError("too many elements")
        path[-1].below.append(XmlElement(name, attributes))
        path.append(path[-1].below[-1])

    def end(_: str) -> None:
        path.pop()

    def document_type(*_: object) -> None:
        raise ValueError("it has a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    return top.below[0]


def default_zone(conf: str) -> str:
    """The zone of interfaces that are in no other, as firewalld.conf says."""
    match = _DEFAULT_ZONE.search(conf)
    return match[1] if match else "public"


def ports(service: XmlElement) -> Ports:
    """What a service's file lets in."""
    found: Ports = []
    for element in service.below:
        if element.name == "port":
            found.append((element.attributes.get("protocol"), element.attributes.get("port")))
        elif element.name == "protocol":
            found.append((element.attributes.get("value"), None))
    return found


def rules(name: str, zone: XmlElement, services: Services) -> Iterator[ParsedRule]:
    """A zone's rules in their order, then its target.

    Rules hold for what comes in by the zone's interfaces and from its sources; these are told with
    its target.
    """
    for element in zone.below:
        if element.name == "rule":
            yield from _rich(name, element, services)
        else:
            yield from _plain(ParsedRule(name, "in", "allow", str(element)), element, services)
    target = zone.attributes.get("target", "default")
    yield ParsedRule(
        name,
        "in",
        _TARGETS.get(target, "other"),
        f"target {target}",
        kind="policy",
        source=_listed(zone, "source", "address") or _listed(zone, "source", "ipset"),
        interface=_listed(zone, "interface", "name"),
    )


def _listed(zone: XmlElement, name: str, attribute: str) -> str | None:
    values = [
        element.attributes.get(attribute, "") for element in zone.below if element.name == name
    ]
    return ",".join(filter(None, values)) or None


def _plain(rule: ParsedRule, element: XmlElement, services: Services) -> Iterator[ParsedRule]:
    """What one element lets in, of a zone or in a rich rule; nothing of those that filter not."""
    attributes = element.attributes
    if element.name == "service":
        for protocol, port in services(attributes.get("name", "")) or [
            (None, attributes.get("name"))
        ]:
            yield replace(rule, protocol=protocol, port=port)
    elif element.name == "port":
        yield replace(rule, protocol=attributes.get("protocol"), port=attributes.get("port"))
    elif element.name == "protocol":
        yield replace(rule, protocol=attributes.get("value"))
    elif element.name == "source-port":
        yield replace(rule, protocol=attributes.get("protocol"))
    elif element.name == "icmp-block":
        yield replace(rule, protocol="icmp", action="reject")
    elif element.name == "icmp-type":
        yield replace(rule, protocol="icmp")
    elif element.name in ("masquerade", "forward-port"):
        yield replace(
            rule,
            direction="forward",
            action="other",
            protocol=attributes.get("protocol"),
            port=attributes.get("port"),
        )


def _rich(zone: str, element: XmlElement, services: Services) -> Iterator[ParsedRule]:
    action: Action = "log" if element.child("log") or element.child("nflog") else "other"
    for child in element.below:
        action = _RICH.get(child.name, action)
    rule = ParsedRule(
        zone,
        "in",
        action,
        str(element),
        source=_address(element.child("source")),
        destination=_address(element.child("destination")),
    )
    about = [found for child in element.below for found in _plain(rule, child, services)]
    yield from about or [rule]


def _address(element: XmlElement | None) -> str | None:
    if element is None:
        return None
    attributes = element.attributes
    value = attributes.get("address") or attributes.get("mac") or attributes.get("ipset")
    inverted = attributes.get("invert", "").lower() in ("yes", "true")
    return f"!{value}" if value and inverted else value
