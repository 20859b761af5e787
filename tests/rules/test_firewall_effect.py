"""Packets sent through generated rules of iptables, against the verdict of the rule about them.

The verdict may be ``unknown``; ``pass`` means that no packet gets through, and ``fail`` that some
packet does.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetscan.rules import case_facts
from fleetscan.rules.load import load_packs
from fleetscan.rules.model import CompiledRule
from tests.scanner.tables.run_case import run

SETS = 120
WANTS = "etc/systemd/system/multi-user.target.wants"
FILES = ("etc/iptables/rules.v4", "etc/iptables/rules.v6")
PACKETS = ("tcp", "udp", "sctp")
"""Protocols of packets that come from anywhere by eth7, are new, and go to port 31337."""

Matches = Callable[[str], bool]
CONDITIONS: tuple[tuple[str, Matches], ...] = (
    *[("", lambda _: True)] * 4,
    ("-i lo ", lambda _: False),
    ("! -i lo ", lambda _: True),
    ("-p tcp ", lambda packet: packet == "tcp"),
    ("-p udp -m udp ", lambda packet: packet == "udp"),
    ("-p tcp -m tcp --dport 22 ", lambda _: False),
    ("-p tcp -m tcp ! --dport 22 ", lambda packet: packet == "tcp"),
    ("-p tcp -m tcp --dport 0:65535 ", lambda packet: packet == "tcp"),
    ("-p tcp -m multiport --dports 80,443 ", lambda _: False),
    ("-m conntrack --ctstate RELATED,ESTABLISHED ", lambda _: False),
    ("-m conntrack --ctstate NEW ", lambda _: True),
    ("-m conntrack ! --ctstate INVALID ", lambda _: True),
    ('-m comment --comment "a -j DROP" ', lambda _: True),
    ("-s ::/0 ", lambda _: True),
    ("! -s 2001:db8:1::/64 ", lambda _: True),
    ("-s 2001:db8:1::/64 ", lambda _: False),
)
TARGETS = ("ACCEPT", "ACCEPT", "DROP", "REJECT", "LOG", "RETURN")


@dataclass(frozen=True)
class Entry:
    """A rule: its text, what it matches, and what becomes of what it matches."""

    text: str
    matches: Matches
    target: str
    goes: bool = False


Chains = dict[str, list[Entry]]


@pytest.mark.parametrize("part", range(4))
def test_a_verdict_is_what_becomes_of_packets(tmp_path: Path, part: int) -> None:
    seen = set()
    for number in range(SETS // 4):
        chance = random.Random(part * SETS + number)  # noqa: S311 - repeatable, no secret
        tree = tmp_path / str(number)
        (tree / WANTS).mkdir(parents=True)
        (tree / WANTS / "netfilter-persistent.service").symlink_to("/lib/x.service")
        (tree / "etc/iptables").mkdir()
        through = [_write(tree / file, chance) for file in FILES]
        state = _state(tree)
        seen.add(state)
        text = "\n".join((tree / file).read_text() for file in FILES)
        assert state != "pass" or not any(through), text
        assert state != "fail" or any(through), text
    assert seen == {"pass", "fail", "unknown"}


def _write(path: Path, chance: random.Random) -> bool:
    """Write a set of rules; whether any packet gets through it."""
    policy = chance.choice(("DROP", "DROP", "ACCEPT"))
    chains: Chains = {
        name: [_entry(chance, below) for _ in range(chance.randint(0, 3))]
        for name, below in (("INPUT", ("a", "b")), ("a", ("b",)), ("b", ()))
    }
    lines = ["*filter", f":INPUT {policy} [0:0]", ":a - [0:0]", ":b - [0:0]"]
    lines += [f"-A {name} {entry.text}" for name, entries in chains.items() for entry in entries]
    path.write_text("\n".join([*lines, "COMMIT", ""]))
    return any((_fate(chains, "INPUT", packet) or policy) == "ACCEPT" for packet in PACKETS)


def _entry(chance: random.Random, below: tuple[str, ...]) -> Entry:
    condition, matches = chance.choice(CONDITIONS)
    target = chance.choice((*TARGETS, *below))
    goes = target in below and chance.random() < 0.3
    return Entry(f"{condition}{'-g' if goes else '-j'} {target}", matches, target, goes)


def _fate(chains: Chains, name: str, packet: str) -> str | None:
    """What a chain makes of a packet; None if it goes back to where it came from."""
    for entry in chains[name]:
        if entry.target == "LOG" or not entry.matches(packet):
            continue
        if entry.target == "RETURN":
            return None
        if entry.target not in chains:
            return entry.target
        fate = _fate(chains, entry.target, packet)
        if fate or entry.goes:
            return fate
    return None


def _state(tree: Path) -> str:
    rows = [json.loads(row) for row in run("firewall_rules", tree).rows]
    rule = _rule()
    with case_facts.connect({"firewall_rules": rows, "operating_systems": [{}]}) as connection:
        for state, select in (("fail", rule.violations), ("unknown", rule.unknown)):
            assert select is not None
            values = {name: rule.parameters[name] for name in select.parameters}
            if connection.execute(select.sql, values).fetchall():
                return state
    return "pass"


@functools.cache
def _rule() -> CompiledRule:
    [rule] = [
        rule for pack in load_packs() for rule in pack.rules if rule.id.startswith("firewall-ref")
    ]
    return rule.compile()
