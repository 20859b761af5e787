"""Firewalls' files: what any text gives, and what is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.scanner.tables.firewall_rules import firewalld, iptables, nftables, ufw
from fleetscan.scanner.tables.firewall_rules.parsed_rule import ParsedRule
from tests.scanner.tables.run_case import run
from tests.strategies import guest_texts

_WORDS = st.sampled_from(
    [
        *("table", "inet", "chain", "{", "}", ";", "\n", '"x', '"', "include", "define", "=", "#"),
        *("add", "rule", "ip", "saddr", "!=", "dport", "vmap", "type", "filter", "hook", "input"),
        *("policy", "drop", "log", "-A", "-p", "!", "--dport", "*filter\n", ":INPUT", "ACCEPT"),
        *("### tuple ###", "allow", "tcp", "22", "any", "in", "route:allow", "\\\n", "iif"),
    ]
)
_TEXTS = st.lists(_WORDS | guest_texts(), max_size=30).map(" ".join)


def nothing(_: str) -> Iterator[tuple[str, str]]:
    return iter(())


def script(text: str) -> list[ParsedRule]:
    return [rule for _, rule in nftables.parse("/n", text, nothing)]


@given(_TEXTS)
def test_any_text_gives_rules_or_malformed_lines(text: str) -> None:
    malformed: list[int] = []
    rules = [*script(text), *iptables.parse(text, malformed), *ufw.rules(text, malformed)]
    assert all(rule.text for rule in rules)
    assert all(line > 0 for line in malformed)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_element_or_no_xml(data: bytes) -> None:
    for content in (data, b"<zone>" + data + b"</zone>"):
        try:
            zone = firewalld.read(content)
        except ValueError:
            continue
        assert list(firewalld.rules("z", zone, lambda _: None))


def test_elements_within_each_other_end_at_a_depth() -> None:
    with pytest.raises(ValueError, match="too many elements"):
        firewalld.read(b"<a>" * 1000)


@pytest.mark.parametrize(
    "text", ["{" * 50_000, "}" * 50_000, "table x {\nchain y {\n" * 20_000, "ip saddr " * 100_000]
)
def test_long_scripts_are_read_in_time_that_grows_with_them(text: str) -> None:
    assert len(script(text)) <= 20_000


def test_a_rule_of_any_length_fits_a_row(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    word = "x" * (1 << 20)
    (tmp_path / "etc/nftables.conf").write_text(f"add rule ip a b ip saddr {word} {word} drop\n")
    outcome = run("firewall_rules", tmp_path)
    assert outcome.error == ""
    assert [len(row) < 10_000 for row in outcome.rows] == [True]
