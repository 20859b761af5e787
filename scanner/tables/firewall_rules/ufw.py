"""ufw's own files: user.rules, ufw.conf and /etc/default/ufw.

Source: ufw(8) and ufw-framework(8) of ufw 0.36; the comments that begin with ``### tuple ###``,
from which ufw itself reads its rules back, as its command ``ufw --dry-run`` prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.scanner.tables.firewall_rules.parsed_rule import Action, Direction, ParsedRule

_MARK = "### tuple ###"
_ACTIONS: dict[str, Action] = {
    "allow": "allow",
    "accept": "allow",
    "limit": "allow",
    "deny": "deny",
    "drop": "deny",
    "reject": "reject",
}
_SETTING = re.compile(r"""^[ \t]*([A-Z0-9_]+)=["']?([A-Za-z]*)""", re.MULTILINE)
_POLICIES: tuple[tuple[str, Direction], ...] = (
    ("DEFAULT_INPUT_POLICY", "in"),
    ("DEFAULT_OUTPUT_POLICY", "out"),
    ("DEFAULT_FORWARD_POLICY", "forward"),
)
_ANYWHERE = ("0.0.0.0/0", "::/0")


def is_enabled(conf: str) -> bool:
    """Whether ufw.conf turns ufw on."""
    return any(
        name == "ENABLED" and value.lower() == "yes" for name, value in _SETTING.findall(conf)
    )


def policies(defaults: str) -> Iterator[ParsedRule]:
    """The default policies of /etc/default/ufw."""
    stated = dict(_SETTING.findall(defaults))
    for name, direction in _POLICIES:
        action = _ACTIONS.get(stated.get(name, "").lower())
        if action:
            yield ParsedRule(None, direction, action, f"{name}={stated[name]}", kind="policy")


def rules(text: str, malformed: list[int]) -> Iterator[ParsedRule]:
    """The rules of user.rules or user6.rules, in their order.

    Args:
        text: the file.
        malformed: gets the numbers of lines that should be a rule and are not.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(_MARK):
            rule = _rule(line.removeprefix(_MARK).strip())
            if rule:
                yield rule
            else:
                malformed.append(number)


def _rule(line: str) -> ParsedRule | None:
    # action protocol port destination source-port source [applications] direction, comment=...
    words = [word for word in line.split() if not word.startswith("comment=")]
    if len(words) not in (6, 7, 8, 9):
        return None
    action, protocol, port, destination, _, source = words[:6]
    way = words[-1] if len(words) in (7, 9) else "in"
    routed, _, verdict = action.rpartition(":")
    act = _ACTIONS.get(verdict.partition("_")[0])
    if act is None:
        return None
    forward = routed == "route"
    direction, _, interface = way.partition("_")
    if direction not in ("in", "out"):
        return None
    return ParsedRule(
        chain=None,
        direction="forward" if forward else "in" if direction == "in" else "out",
        action=act,
        text=line,
        protocol=_any(protocol),
        source=_address(source),
        destination=_address(destination),
        port=_any(port),
        interface=interface.replace("!out_", " ").replace("!in_", " ") or None,
    )


def _any(word: str) -> str | None:
    return None if word == "any" else word


def _address(word: str) -> str | None:
    return None if word in _ANYWHERE else _any(word)
