"""Network configuration: netplan's YAML against PyYAML's own loader, and hostile text."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.scanner.tables.network import formats, yaml_text
from tests.strategies import guest_texts

NETPLAN = """\
network:
  version: 2
  renderer: networkd
  ethernets:
    "eth0":
      dhcp4: "true"
      addresses: [10.0.0.5/24, '2001:db8::5/64']   # two
      routes:
        - to: default
          via: 10.0.0.1
        -
          to: 10.9.0.0/16
          via: 10.0.0.9
      match: {name: ens3, driver: virtio}
    eth1:
      addresses:
      - 10.1.0.5/24
      - 10.1.0.6/24:
          label: second
"""


def _as_text(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return str(value)


_TEXTS = st.text("ab\u00e9:#-'\"[]{},&*!|>%@ \n0~", max_size=6)
_DOCUMENTS = st.recursive(
    _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


def test_netplan_s_yaml_is_read_as_pyyaml_does() -> None:
    assert yaml_text.parse(NETPLAN) == yaml.load(NETPLAN, Loader=yaml.BaseLoader)  # noqa: S506 - text alone
    assert _as_text(yaml.safe_load(NETPLAN)) == yaml_text.parse(NETPLAN)


@given(st.dictionaries(_TEXTS, _DOCUMENTS, max_size=3), st.booleans())
def test_what_pyyaml_writes_is_read_back(document: dict[str, object], flow: bool) -> None:
    written = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True)
    assert yaml_text.parse(written) == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: |\n  text\n  more\n", "text\nmore\n"),
        ("a: 'it''s # no comment'  # but this is\n", "it's # no comment"),
        ('a: "\\u00e9"\n', "\u00e9"),
        ("a:\n  plain text\n  of two lines\n", "plain text of two lines"),
        ("a: 1\na: 2\n", "2"),
        ("a:\n", ""),
    ],
)
def test_text_in_all_its_notations_is_read(text: str, value: str) -> None:
    assert yaml_text.parse(text) == {"a": value}


@pytest.mark.parametrize(
    "text",
    [
        "- a list\n",
        "a: &anchor b\n",
        "a: *anchor\n",
        "a: !tag b\n",
        "{[a]: b}\n",
        "a: 1\n  b: 2\n",
        "a: b\n---\nc: d\n",
        "a: \x01\n",
        "a: caf\udce9\n",
        "x" * 2000,
        "".join(f"{' ' * depth}k:\n" for depth in range(100)),
    ],
)
def test_what_is_not_known_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line [0-9]+: YAML that fleetscan does not read$"):
        yaml_text.parse(text)


@pytest.mark.parametrize("part", ["[", "{", "- ", "? ", "&a", "a, ", "*a ", "!", "a: ", "'"])
def test_large_hostile_files_are_refused_soon(part: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"^line [12]: "):
        yaml_text.parse(f"a: [{part * ((1 << 20) // len(part))}")
    assert time.process_time() - begun < 10


@given(guest_texts(), guest_texts())
def test_any_text_gives_interfaces_or_a_refusal(one: str, other: str) -> None:
    text = f"network:\n  ethernets:\n    {one}:\n      - {other}\n{other}: {one}\n"
    try:
        list(formats.netplan(text))
    except ValueError as error:
        assert str(error).startswith("line ")  # noqa: PT017 - some texts are known YAML
    stanza = f"iface {one} inet {other}\n address {one}\n netmask {other}\n"
    formats.ifupdown(stanza)
    formats.keyfile(f"[ipv4]\naddress1={one}\n{other}={one}\n[{other}]\n")
    formats.networkd(f"[Match]\nName={one}\n[Network]\nAddress={other}\n")
    formats.ifcfg(f"IPADDR={one}\nNETMASK={other}\nONBOOT={one}\n", other)
    formats.resolv(f"search {one}\nnameserver {other}\n")
