"""A Windows that slept when its disk was copied, with a registry hive of a real Windows 10.

What the hive holds is read by regipy, which shares no code with ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from regipy.registry import RegistryHive

from tests.vm.commands import Inspected, inspect

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

CONTROL = "\\ControlSet001\\Control"
SERVICES = "\\ControlSet001\\Services"
STATES = {0: "enabled", 1: "enabled", 2: "enabled", 3: "manual", 4: "disabled"}


@pytest.fixture(scope="module")
def found(example_images: Path) -> Inspected:
    return inspect(example_images / "extra" / "windows-left.raw")


@pytest.fixture(scope="module")
def hive(example_images: Path) -> RegistryHive:
    """The genuine hive."""
    return RegistryHive(str(example_images / "extra" / "windows-left.raw.expected" / "SYSTEM"))


def values(key: Any) -> dict[str, Any]:  # Any: regipy's keys and values
    return {value.name: value.value for value in key.iter_values()}


def test_a_windows_that_sleeps_is_inspected_whole_and_told(found: Inspected) -> None:
    assert found.status == 0, found.errors
    assert (found.machine["outcome"], found.machine["roots"]) == ("ok", 1)
    assert found.before == found.after
    (system,) = found.rows("operating_systems")
    assert system["hibernated"] is True


def test_a_dirty_volume_is_read_and_told(found: Inspected) -> None:
    (volume,) = found.rows("filesystems")
    assert (volume["type"], volume["mounted"], volume["journal"]) == ("ntfs", True, "ignored")


def test_the_newest_writes_to_the_registry_are_seen(found: Inspected) -> None:
    (system,) = found.rows("operating_systems")
    assert system["codename"] == "22H2"
    versions = {row["name"]: row["version"] for row in found.rows("packages")}
    assert versions["7-Zip 23.01 (x64)"] == "23.01"
    recovered = {
        row["file"].rpartition("/")[2]: (row["dirty"], row["recovery"], row["replayed"])
        for row in found.rows("registry_hives")
    }
    assert recovered["SOFTWARE"] == (True, "replayed", 2)
    assert recovered["SYSTEM"] == (False, "not_needed", 0)


def test_a_real_windows_has_the_name_and_place_that_another_reader_finds(
    found: Inspected, hive: RegistryHive
) -> None:
    (system,) = found.rows("operating_systems")
    name = values(hive.get_key(f"{CONTROL}\\ComputerName\\ComputerName"))["ComputerName"]
    zone = values(hive.get_key(f"{CONTROL}\\TimeZoneInformation"))["TimeZoneKeyName"]
    assert (system["hostname"], system["timezone"]) == (name, zone)


def services(hive: RegistryHive) -> Iterator[tuple[str, str, str | None]]:
    """Name, state and command of each service and driver."""
    for key in hive.get_key(SERVICES).iter_subkeys():
        found = {name.lower(): value for name, value in values(key).items()}
        if found.get("type", 0) & 0xFF:
            yield (
                key.name,
                STATES.get(found.get("start", -1), "bad"),
                found.get("imagepath") or None,
            )


def test_services_of_a_real_windows_are_those_that_another_reader_finds(
    found: Inspected, hive: RegistryHive
) -> None:
    rows = found.rows("services")
    assert len(rows) > 600
    expected = sorted(services(hive), key=lambda service: service[0])
    assert sorted((row["name"], row["state"], row["command"]) for row in rows) == expected


def test_registry_values_of_a_real_windows_are_those_that_another_reader_finds(
    found: Inspected, hive: RegistryHive
) -> None:
    rows = [row for row in found.rows("registry") if row["key"].startswith("HKLM\\SYSTEM\\")]
    assert len(rows) > 250
    keys = {row["key"] for row in rows}
    for key in keys:
        path = key.removeprefix("HKLM\\SYSTEM").replace("\\CurrentControlSet", "\\ControlSet001")
        expected = values(hive.get_key(path))
        for row in (row for row in rows if row["key"] == key and not row["withheld"]):
            value = expected[row["name"] or "(default)"]
            if row["type"] in ("dword", "qword"):
                assert row["number"] == value, row
            elif row["type"] in ("sz", "expand_sz"):
                assert row["value"] == (value or ""), row
            elif row["type"] == "multi_sz":
                assert row["value"] == "\n".join(filter(None, value)), row


def test_interfaces_of_a_real_windows_are_those_that_another_reader_finds(
    found: Inspected, hive: RegistryHive
) -> None:
    names = f"{CONTROL}\\Network\\{{4D36E972-E325-11CE-BFC1-08002BE10318}}"
    expected = set()
    for key in hive.get_key(f"{SERVICES}\\Tcpip\\Parameters\\Interfaces").iter_subkeys():
        if settings := values(key):
            connection = hive.get_key(f"{names}\\{key.name.upper()}\\Connection")
            method = "dhcp" if settings["EnableDHCP"] else "static"
            expected.add((values(connection)["Name"], method))
    assert {(row["interface"], row["method"]) for row in found.rows("network")} == expected
    assert ("Ethernet0", "dhcp") in expected


def test_firewall_rules_of_a_real_windows_are_those_that_another_reader_finds(
    found: Inspected, hive: RegistryHive
) -> None:
    policy = f"{SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy"
    texts = hive.get_key(f"{policy}\\FirewallRules").iter_values(trim_values=False)
    expected = sorted(str(value.value).rstrip("\0") for value in texts)
    rules = [row for row in found.rows("firewall_rules") if row["kind"] == "rule"]
    assert len(rules) > 400
    assert sorted(row["text"] for row in rules) == expected
    for row in rules:
        fields = row["text"].split("|")
        assert row["enabled"] == ("Active=TRUE" in fields)
        assert f"Dir={row['direction'].title()}" in fields
    defaults = {row["chain"]: row["action"] for row in found.rows("firewall_rules")[0:6:2]}
    assert defaults == {"Domain": "deny", "Private": "deny", "Public": "deny"}
