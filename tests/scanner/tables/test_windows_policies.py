"""Policies of Windows: values of any content, and those of a genuine Windows."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.guest.readers import sam
from fleetscan.appliance.guest.readers.hives import HiveKey, Value
from fleetscan.scanner.tables.account_policy.collect import describe
from fleetscan.scanner.tables.audit_policy import events
from fleetscan.scanner.tables.firewall_rules import windows as firewall

CASE = Path(events.__file__).parent / "cases" / "windows" / "tree"
DAY = 86_400 * 10_000_000


def genuine() -> bytes:
    text = (CASE / "Windows" / "System32" / "config" / "SECURITY.reg").read_text()
    return bytes.fromhex(text.partition("hex(0):")[2].replace(",", " "))


@pytest.mark.parametrize("at", range(0, 150, 7))
def test_an_audit_policy_that_is_cut_off_is_refused(at: int) -> None:
    with pytest.raises(ValueError, match=r"is cut off|has [0-9]+ categories"):
        list(events.parse(genuine()[:at]))


@given(at=st.integers(0, 149), value=st.binary(min_size=1, max_size=4))
def test_a_damaged_audit_policy_gives_rows_or_is_refused(at: int, value: bytes) -> None:
    data = bytearray(genuine())
    data[at : at + len(value)] = value
    with contextlib.suppress(ValueError):
        assert len(list(events.parse(bytes(data)))) <= 256


def test_a_subcategory_that_is_not_known_is_numbered() -> None:
    data = genuine()
    sizes = data[:132] + bytes((6, 0, 10, 0)) + data[136:]
    names = [row.subcategory for row in events.parse(sizes)]
    assert names[5] == "number 6"


@given(st.binary(max_size=120))
def test_any_account_policy_has_a_row_or_none(data: bytes) -> None:
    account = HiveKey("Account", values={"f": Value("F", 3, data, len(data))})
    domains = HiveKey("Domains", keys={"account": account})
    hive = HiveKey("", keys={"sam": HiveKey("SAM", keys={"domains": domains})})
    policy = sam.policy(hive)
    assert (policy is None) == (len(data) < 86)
    if policy:
        describe(policy)


@pytest.mark.parametrize(
    ("age", "days"), [(-42 * DAY, 42), (0, 0), (-(1 << 63), None), (DAY, None), (-DAY // 2, 0)]
)
def test_ages_are_whole_days(age: int, days: int | None) -> None:
    assert sam.days(age) == days


ON = {"Domain": True, "Private": True, "Public": False}
RULE = "v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Domain|LPort=443|RA4=10.0.0.1|"


@given(at=st.integers(0, len(RULE)), text=st.text(max_size=9))
def test_any_firewall_rule_is_read_or_refused(at: int, text: str) -> None:
    with contextlib.suppress(ValueError):
        firewall.parse(RULE[:at] + text + RULE[at:], ON)


@pytest.mark.parametrize(
    ("fields", "enabled"),
    [
        ("Active=TRUE|", True),
        ("Active=TRUE|Profile=Public|", False),
        ("Active=TRUE|Profile=Public|Profile=Private|", True),
        ("Active=FALSE|Profile=Private|", False),
        ("", False),
    ],
)
def test_a_firewall_rule_is_in_force_where_its_profile_is(fields: str, enabled: bool) -> None:
    _, found = firewall.parse(f"v2.30|Action=Block|Dir=Out|{fields}", ON)
    assert found is enabled
