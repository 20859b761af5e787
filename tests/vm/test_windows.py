"""A Windows disk through a real appliance, compared with readers that share no code with ours.

reglookup and chntpw's tools read the hives when the image was built; see examples/builder/trees.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from examples.builder.trees import WINDOWS
from tests.scanner.tables.make_hives import make_hives
from tests.vm.commands import Inspected, Workplace, inspect
from tests.vm.expectations import Expected
from tests.vm.machines import image_of

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

_HIVES = {
    "HKLM\\SYSTEM": "SYSTEM",
    "HKLM\\SOFTWARE": "SOFTWARE",
    "HKLM\\SECURITY": "SECURITY",
    "HKU\\alice": "NTUSER.DAT",
}
_DISABLED = 0x0001


@pytest.fixture(scope="module")
def found(example_images: Path) -> Inspected:
    return inspect(example_images / "extra" / "windows10.raw")


@pytest.fixture(scope="module")
def expected(example_images: Path) -> Expected:
    return Expected(example_images / "extra" / "windows10.raw.expected")


@pytest.fixture(scope="module")
def values(expected: Expected) -> dict[tuple[str, str], tuple[str, str]]:
    """Key and value name to type and value, as reglookup printed them."""
    return dict(
        pair for top, hive in _HIVES.items() for pair in _lookups(top, expected.text(f"{hive}.csv"))
    )


def _lookups(top: str, text: str) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for row in csv.DictReader(io.StringIO(text)):
        if row["TYPE"] != "KEY":
            path, _, name = row["PATH"].rpartition("/")
            key = unquote(path).replace("/", "\\").replace("\\ControlSet001", "\\CurrentControlSet")
            yield (f"{top}{key}", unquote(name)), (row["TYPE"], unquote(row["VALUE"]))


def test_windows_is_inspected_without_complaint(found: Inspected) -> None:
    assert found.status == 0, found.errors
    assert (found.machine["outcome"], found.machine["roots"]) == ("ok", 1)
    assert [row for row in found.rows("coverage") if row["status"] == "failed"] == []


def test_the_system_is_reported_as_its_registry_has_it(
    found: Inspected, values: dict[tuple[str, str], tuple[str, str]]
) -> None:
    (system,) = found.rows("operating_systems")
    version, control = (
        "HKLM\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion",
        "HKLM\\SYSTEM\\CurrentControlSet",
    )
    assert system["family"] == "windows"
    for column, (key, name) in {
        "product": (version, "ProductName"),
        "variant": (version, "EditionID"),
        "codename": (version, "DisplayVersion"),
        "build": (version, "CurrentBuildNumber"),
        "system_root": (version, "SystemRoot"),
        "hostname": (f"{control}\\Services\\Tcpip\\Parameters", "Hostname"),
        "timezone": (f"{control}\\Control\\TimeZoneInformation", "TimeZoneKeyName"),
    }.items():
        assert system[column] == values[key, name][1], column
    assert system["version"] == f"10.0.19045.{int(values[version, 'UBR'][1], 16)}"
    assert (system["architecture"], system["installed_at"]) == ("x86_64", "2024-01-01T11:20:32Z")


def test_drive_letters_are_partitions_of_the_machine(found: Inspected) -> None:
    mounts = {row["path"]: (row["device"], row["mounted"]) for row in found.rows("mountpoints")}
    assert mounts == {
        "/": ("/dev/sda1", True),
        "C:": ("/dev/sda1", True),
        "R:": ("/dev/sda2", False),
    }


def test_registry_values_are_those_that_another_reader_finds(
    found: Inspected, values: dict[tuple[str, str], tuple[str, str]]
) -> None:
    rows = found.rows("registry")
    assert len(rows) > 40
    for row in rows:
        kind, value = values[row["key"], row["name"]]
        assert kind.lower() == row["type"], row
        if row["type"] in ("sz", "expand_sz") and not row["withheld"]:
            assert row["value"] == value
        elif row["type"] == "dword":
            assert row["number"] == int(value, 16)
        elif row["type"] == "multi_sz":
            assert row["value"] == value.replace("|", "\n")


def test_a_password_in_the_registry_is_noticed_and_not_kept(found: Inspected) -> None:
    (row,) = [row for row in found.rows("registry") if row["name"] == "DefaultPassword"]
    assert (row["withheld"], row["value"], row["size"]) == (True, "[redacted]", None)
    assert "no fact may hold" not in str(found.machine) + str(found.rows("registry"))


def test_accounts_are_those_that_chntpw_finds(found: Inspected, expected: Expected) -> None:
    lines = [line.split(":") for line in expected.text("accounts").splitlines()]
    wanted = {
        (int(rid, 16), name, bool(int(bits, 16) & _DISABLED), int(length, 16) > 24)
        for rid, name, _, bits, length in (line for line in lines if len(line) == 5)
    }
    users = found.rows("users")
    assert {
        (row["uid"], row["name"], "disabled" in row["flags"], row["password_algorithm"] is not None)
        for row in users
    } == wanted
    assert {row["name"]: row["password"] for row in users} == {
        "Administrator": "none",
        "Guest": "empty",
        "alice": "set",
        "bob": "set",
    }


def test_groups_have_the_members_that_chntpw_finds(found: Inspected, expected: Expected) -> None:
    sids = {row["name"]: row["sid"] for row in found.rows("users")}
    members = {
        (row["gid"], row["name"], sids.get(member, member))
        for row in found.rows("groups")
        for member in row["members"]
    }
    # Number, name, place, member's number, member's name, its SID.
    lines = re.findall(r"^([0-9a-f]+):([^:]+):\d+:.*:(S-[0-9-]+)$", expected.text("members"), re.M)
    assert members == {(int(gid, 16), name, sid) for gid, name, sid in lines}
    assert ("Remote Desktop Users", []) in [(r["name"], r["members"]) for r in found.rows("groups")]


def test_policies_are_those_that_the_hives_were_made_with(found: Inspected) -> None:
    (policy,) = found.rows("account_policy")
    assert (policy["password_min_length"], policy["password_history"]) == (8, 5)
    assert (policy["lockout_threshold"], policy["lockout_duration"]) == (10, 30)
    assert (policy["password_max_days"], policy["password_complexity"]) == (42, True)
    audited = {
        row["subcategory"]: (row["success"], row["failure"]) for row in found.rows("audit_policy")
    }
    assert len(audited) == 59
    assert audited["Logon"] == (True, True)
    assert audited["Process Creation"] == (False, False)


def _names(rows: list[dict[str, Any]], **wanted: str) -> set[str]:
    return {row["name"] for row in rows if wanted.items() <= row.items()}


def test_programs_of_the_machine_and_of_users_and_updates_are_listed(found: Inspected) -> None:
    packages = found.rows("packages")
    assert _names(packages, architecture="x86") == {"Mozilla Firefox ESR (x86 de)"}
    assert _names(packages, account="alice") == {"Microsoft Visual Studio Code (User)"}
    assert _names(packages, manager="windows-update") == {"KB5033052", "RollupFix"}
    assert len(packages) == 6


def test_services_and_drivers_are_distinguished(found: Inspected) -> None:
    services = found.rows("services")
    assert _names(services, kind="driver", state="enabled") == {"Tcpip", "mrxsmb10"}
    assert _names(services, kind="service", state="manual") == {"Spooler"}
    assert _names(services, kind="service", state="disabled") == {"RemoteRegistry"}


def test_what_is_about_a_unix_does_not_apply(found: Inspected) -> None:
    status = {row["table_name"]: row["status"] for row in found.rows("coverage") if row["root"]}
    assert status["config"] == "not_applicable"


def test_a_scan_lists_further_keys_that_it_is_asked_for(example_images: Path) -> None:
    key = "HKLM\\SOFTWARE\\microsoft\\windows\\currentversion\\uninstall"
    with Workplace() as place:
        disk = str(example_images / "extra" / "windows10.raw")
        done = place.run("inspect", "-a", disk, "--registry", key, "--output", "json")
    names = {
        row["key"].rpartition("\\")[2]: row["value"]
        for row in json.loads(done.stdout)["registry"]
        if row["name"] == "DisplayName"
    }
    assert names["7-Zip"] == "7-Zip 23.01 (x64)"
    assert len(names) == 2


@pytest.mark.parametrize("key", ["HKLM\\SAM\\SAM", "HKLM\\SECURITY\\Policy", "HKLM\\SOFTWARE", "x"])
def test_keys_that_hold_secrets_or_whole_hives_cannot_be_asked_for(
    key: str, example_images: Path
) -> None:
    with Workplace() as place:
        disk = str(example_images / "extra" / "windows10.raw")
        done = place.run("inspect", "-a", disk, "--registry", key)
    assert done.returncode == 64
    assert "registry" in done.stderr


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    """A Windows whose SYSTEM hive is zeros and whose SOFTWARE hive is cut off; on ext4 here."""
    folder = tmp_path_factory.mktemp("damaged")
    tree = shutil.copytree(WINDOWS, folder / "tree")
    config = tree / "Windows" / "System32" / "config"
    with (config / "SOFTWARE.reg").open("a") as text:
        text.write(f'\n[Last]\n"Data"=hex:{"61," * 9000}62\n')
    make_hives(tree)
    for name, content in {
        "SYSTEM": bytes((config / "SYSTEM").stat().st_size),
        "SOFTWARE": (config / "SOFTWARE").read_bytes()[:-6000],
    }.items():
        (config / name).write_bytes(content)
    return inspect(image_of(tree, folder / "damaged.raw"))


def test_damaged_hives_cost_what_they_hold_and_no_more(damaged: Inspected) -> None:
    status = {row["table_name"]: row["status"] for row in damaged.rows("coverage") if row["root"]}
    assert damaged.machine["outcome"] == "partial"
    assert {name for name, state in status.items() if state == "failed"} == {
        *("firewall_rules", "mountpoints", "network", "operating_systems", "packages"),
        *("registry", "registry_hives", "scheduled_tasks", "services"),
    }
    assert len(damaged.rows("users")) == 4


def test_what_can_still_be_read_of_a_damaged_hive_is_kept(damaged: Inspected) -> None:
    (system,) = damaged.rows("operating_systems")
    assert (system["product"], system["hostname"]) == ("Windows 10 Pro", None)
    assert _names(damaged.rows("packages"), account="alice")
    files = {row["file"].rpartition("/")[2] for row in damaged.rows("registry_hives")}
    assert files == {"SOFTWARE", "SAM", "SECURITY", "NTUSER.DAT"}
