"""What iptables-save(8) and ip6tables-save(8) write.

Source: iptables-save(8), iptables(8), iptables-extensions(8) of iptables 1.8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.scanner.tables.firewall_rules.parsed_rule import Action, Direction, ParsedRule

_DIRECTIONS: dict[str, Direction] = {"INPUT": "in", "OUTPUT": "out", "FORWARD": "forward"}
_ACTIONS: dict[str, Action] = {
    "ACCEPT": "allow",
    "DROP": "deny",
    "REJECT": "reject",
    "LOG": "log",
    "NFLOG": "log",
}
_COUNTERS = re.compile(r"^\[[0-9]+:[0-9]+\]\s+")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_PARTS = {
    "-p": "protocol",
    "--protocol": "protocol",
    "-s": "source",
    "--source": "source",
    "-d": "destination",
    "--destination": "destination",
    "--dport": "port",
    "--dports": "port",
    "--destination-port": "port",
    "--destination-ports": "port",
    "-i": "interface",
    "--in-interface": "interface",
    "-o": "interface",
    "--out-interface": "interface",
}


def parse(text: str, malformed: list[int]) -> Iterator[ParsedRule]:
    """Rules and policies of a saved set, in its order.

    Args:
        text: the file.
        malformed: gets the numbers of lines that are none.
    """
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line[0] == "#" or line == "COMMIT":
            continue
        rule = None
        if line[0] == "*" and line[1:]:
            table = line[1:]
            continue
        if line[0] == ":" and table:
            name, policy, *_ = (*line[1:].split(), "", "")
            if policy == "-":  # a chain of the administrator's own has none
                continue
            if name and policy in _ACTIONS:
                rule = ParsedRule(
                    f"{table}/{name}", _direction(table, name), _ACTIONS[policy], line
                )
                rule.kind = "policy"
        elif table:
            rule = _rule(table, _COUNTERS.sub("", line))
        if rule is None:
            malformed.append(number)
        else:
            yield rule


def _direction(table: str, chain: str) -> Direction | None:
    return None if table == "nat" else _DIRECTIONS.get(chain)


def _rule(table: str, line: str) -> ParsedRule | None:
    words = [quoted or plain for quoted, plain in _WORD.findall(line)]
    if len(words) < 2 or words[0] not in ("-A", "--append"):
        return None
    rule = ParsedRule(f"{table}/{words[1]}", _direction(table, words[1]), "other", line)
    negated = ""
    for word, value in zip(words[2:], [*words[3:], ""], strict=True):
        if word == "!":
            negated = "!"
            continue
        if word in ("-j", "--jump"):
            rule.action = _ACTIONS.get(value, "other")
        elif part := _PARTS.get(word):
            before = getattr(rule, part)
            setattr(rule, part, f"{before} {negated}{value}" if before else negated + value)
        negated = ""
    return rule
