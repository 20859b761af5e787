"""Network configuration: the YAML subset against PyYAML, and hostile text."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given

from fleetscan.scanner.tables.network import formats, yamlish
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


def test_netplan_s_yaml_is_read_as_pyyaml_does() -> None:
    assert yamlish.parse(NETPLAN) == _as_text(yaml.safe_load(NETPLAN))


@pytest.mark.parametrize(
    "text",
    [
        "- a list\n",
        "a: &anchor b\n",
        "a: |\n  text\n",
        "a: 1\n  b: 2\n",
        "x" * 2000,
        "".join(f"{' ' * depth}k:\n" for depth in range(100)),
    ],
)
def test_what_is_not_known_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line [0-9]+: "):
        yamlish.parse(text)


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
