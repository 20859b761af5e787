"""Volumes on volumes, through a real appliance, compared with what their builder says."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.commands import Inspected, Workplace, inspect
from tests.vm.expectations import Expected

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

PASSPHRASES = ("correct horse", "battery staple")

Inspect = Callable[[str], Inspected]


@pytest.fixture(scope="session")
def inspected(example_images: Path) -> Inspect:
    @functools.cache
    def find(name: str) -> Inspected:
        folder = example_images / "extra"
        disks = sorted((folder / name).glob("*.raw")) or [folder / f"{name}.raw"]
        return inspect(*disks)

    return find


@pytest.fixture(scope="session")
def expected(example_images: Path) -> Callable[[str], Expected]:
    return lambda name: Expected(example_images / "extra" / f"{name}.expected")


@pytest.fixture(scope="session")
def unlocked(example_images: Path) -> tuple[Inspected, str]:
    """The encrypted machine with a key from each kind of source, and what the command logged."""
    image = example_images / "extra" / "locked.raw"
    with Workplace() as place:
        (place.path / "horse").write_text(f"{PASSPHRASES[0]}\n")
        container = Expected(image.with_name("locked.raw.expected")).text("containers").split()[0]
        raw_key = image.with_name("locked.raw.expected") / "raw.key"
        found, log = inspect_with_keys(
            place,
            image,
            f"{container}:file:{place.path / 'horse'}",
            f"/dev/sda2:file:{raw_key}",
            f"all:command:printf '{PASSPHRASES[1]}'",
        )
    return found, log


def inspect_with_keys(place: Workplace, image: Path, *keys: str) -> tuple[Inspected, str]:
    words = [word for key in keys for word in ("--key", key)]
    done = place.run("inspect", "-a", str(image), *words, "--output", "json", "-vv")
    tables = json.loads(done.stdout)
    return Inspected(done.returncode, tables, done.stderr, {}, {}, place.leftovers()), done.stderr


def by_name(found: Inspected) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found.rows("volumes")}


def usage(found: Inspected) -> dict[str, tuple[Any, ...]]:
    names = ("type", "size", "used", "available", "inodes", "inodes_used")
    devices = {row["device"]: row for row in found.rows("filesystems")}
    return {
        row["path"]: tuple(devices[row["device"]][name] for name in names)
        for row in found.rows("mountpoints")
        if row["mounted"]
    }


def as_tuples(expected: Expected) -> dict[str, tuple[Any, ...]]:
    return {path: tuple(vars(found).values()) for path, found in expected.usage().items()}


# -- software RAID ---------------------------------------------------------------------------


def test_arrays_of_every_level_are_put_together_as_their_builder_made_them(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    found = {
        (row["name"].replace("short", "md50"), row["layout"], row["size"])
        for row in inspected("md").rows("volumes")
        if row["kind"] == "md" and row["active"]
    }
    lines = (line.split() for line in expected("md").text("arrays").splitlines())
    assert found == {(name, level, int(size)) for name, level, size in lines}


def test_filesystems_on_arrays_are_what_blkid_reports(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    rows = [row for row in inspected("md").rows("filesystems") if row["usage"] == "filesystem"]
    names = ("type", "uuid", "label", "version")
    found = sorted((tuple(row[name] for name in names) for row in rows), key=str)
    assert found == expected("md").filesystems()


def test_a_degraded_array_is_read_and_says_so(inspected: Inspect) -> None:
    volumes = by_name(inspected("md"))
    assert volumes["short"]["degraded"] is True
    assert volumes["short"]["members"] == ["/dev/sda6", "/dev/sdb6", "/dev/sdc6"]
    assert volumes["md5"]["degraded"] is False


def test_an_array_with_too_few_members_is_named_with_the_reason(inspected: Inspect) -> None:
    lost = by_name(inspected("md"))["storage:lost"]
    assert (lost["active"], lost["device"], lost["members"]) == (False, None, ["/dev/sda7"])
    assert "with 1 of its members: Not enough devices" in lost["error"]
    (coverage,) = [
        row for row in inspected("md").rows("coverage") if row["table_name"] == "volumes"
    ]
    assert coverage["status"] == "failed"


def test_a_system_on_an_array_and_its_volume_group_on_another_are_put_together(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    found = inspected("md")
    assert [row["root"] for row in found.rows("operating_systems")] == ["/dev/md1"]
    assert usage(found) == as_tuples(expected("md"))


def test_a_filesystem_names_the_whole_stack_it_lies_on(inspected: Inspect) -> None:
    rows = {row["device"]: row["stack"] for row in inspected("md").rows("filesystems")}
    assert rows["/dev/mirrored/data"] == [
        "/dev/md2",
        *("/dev/sda8", "/dev/sdb8"),
        *("/dev/sda", "/dev/sdb"),
    ]


# -- encryption ------------------------------------------------------------------------------


def test_with_its_keys_an_encrypted_system_is_read_whole(
    unlocked: tuple[Inspected, str], expected: Callable[[str], Expected]
) -> None:
    found, _ = unlocked
    assert found.status == 0
    assert usage(found) == as_tuples(expected("locked.raw"))
    assert {row["status"] for row in found.rows("coverage") if row["root"]} <= {
        "ok",
        "empty",
        "not_applicable",
    }


def test_the_whole_stack_of_an_encrypted_system_is_named(unlocked: tuple[Inspected, str]) -> None:
    rows = {row["device"]: row["stack"] for row in unlocked[0].rows("filesystems")}
    assert rows["/dev/inner/root"] == ["/dev/mapper/luks-sda1", "/dev/sda1", "/dev/sda"]
    assert rows["/dev/mapper/luks-below-sealed"] == ["/dev/below/sealed", "/dev/sda3", "/dev/sda"]


def test_a_container_that_no_key_fits_stays_closed_and_says_so(
    unlocked: tuple[Inspected, str],
) -> None:
    lost = by_name(unlocked[0])["/dev/sda4"]
    assert (lost["active"], lost["device"]) == (False, None)
    assert lost["error"] == "encrypted (LUKS), and the key given for it does not fit"


def test_keys_are_neither_logged_nor_stored(unlocked: tuple[Inspected, str]) -> None:
    found, log = unlocked
    everything = log + str(found.tables)
    assert PASSPHRASES[0] not in everything
    assert PASSPHRASES[0].encode().hex() not in everything
    assert b"nobody knows".hex() not in everything


def test_without_keys_the_containers_are_named_and_nothing_more(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    found = inspected("locked")
    closed = {row["uuid"] for row in found.rows("volumes") if row["kind"] == "luks"}
    assert closed == set(expected("locked.raw").text("containers").split())
    errors = {row["error"] for row in found.rows("volumes") if row["kind"] == "luks"}
    assert errors == {"encrypted (LUKS), and no key was given"}


# -- logical volumes --------------------------------------------------------------------------

OPENED = (
    ("copied", "linear"),
    ("abroad", "linear"),
    ("cached", "cache"),
    ("linear", "linear"),
    ("linear-before", "linear"),
    ("mirror", "raid,raid1"),
    ("raid5", "raid,raid5,raid5_ls"),
    ("striped", "striped"),
    ("thin", "thin,sparse"),
    ("thin-before", "thin,sparse"),
    ("whole", "linear"),
)


def test_logical_volumes_are_what_lvs_reports(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    names = ("group_name", "name", "size", "layout", "uuid")
    rows = [row for row in inspected("lvm").rows("volumes") if row["size"] is not None]
    lines = (line.split() for line in expected("lvm").text("lvs").splitlines())
    wanted = [[group, name, int(size), *rest] for group, name, size, *rest in lines]
    assert sorted([row[name] for name in names] for row in rows) == sorted(
        line for line in wanted if line[0] != "exported"
    )


def test_plain_volumes_are_what_lvs_reports_and_open(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    names = ("group_name", "name", "size", "layout", "uuid")
    rows = inspected("lvm-plain").rows("volumes")
    lines = (line.split() for line in expected("lvm-plain").text("lvs").splitlines())
    wanted = [[group, name, int(size), *rest] for group, name, size, *rest in lines]
    assert sorted([row[name] for name in names] for row in rows) == sorted(wanted)
    assert {row["device"]: row["members"] for row in rows} == {
        "/dev/fast/readable": ["/dev/sdb2"],
        "/dev/fast/striped": ["/dev/sdb2", "/dev/sda2"],
        "/dev/long-lived.1/between": ["/dev/sda1"],
        "/dev/long-lived.1/in-parts": ["/dev/sda1", "/dev/sdb1"],
    }
    filesystems = inspected("lvm-plain").rows("filesystems")
    assert {(row["label"], row["mounted"]) for row in filesystems if row["label"]} == {
        ("in-parts", True),
        ("between", True),
        ("striped", True),
    }


@pytest.mark.parametrize(("name", "layout"), OPENED)
def test_a_volume_of_this_kind_is_opened(name: str, layout: str, inspected: Inspect) -> None:
    volume = by_name(inspected("lvm"))[name]
    assert (volume["active"], volume["layout"], volume["error"]) == (True, layout, None)
    (filesystem,) = [
        row for row in inspected("lvm").rows("filesystems") if row["device"] == volume["device"]
    ]
    assert (filesystem["mounted"], filesystem["label"]) == (True, name.removesuffix("-before"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torn", "part of it is on a missing device"),
        ("/dev/sda4", "its volume group exported is exported"),
        ("/dev/sdb5", "a copy of the physical volume /dev/sda5, which is opened instead"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_reason(
    name: str, reason: str, inspected: Inspect
) -> None:
    volume = by_name(inspected("lvm"))[name]
    assert (volume["active"], volume["device"], volume["error"]) == (False, None, reason)


def test_snapshots_are_told_and_members_are_devices_of_the_machine(inspected: Inspect) -> None:
    volumes = by_name(inspected("lvm"))
    assert {name for name, row in volumes.items() if row["snapshot"]} == {
        "linear-before",
        "thin-before",
    }
    assert set(volumes["raid5"]["members"]) == {"/dev/sda1", "/dev/sda2", "/dev/sdb1"}
    assert set(volumes["thin"]["members"]) <= {"/dev/sda1", "/dev/sda2", "/dev/sdb1", "/dev/sdb2"}


# -- partition tables -------------------------------------------------------------------------


def test_partitions_of_every_table_are_what_partx_reports(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    rows = inspected("layouts").rows("partitions")
    schemes = {"gpt": "gpt", "dos": "mbr", "freebsd": "bsd"}
    for name, inside in (("partx", False), ("inside", True)):
        found = [
            (row["number"], row["start"] // 512, row["size"] // 512, row["scheme"])
            for row in rows
            if (row["disk"] is None) is inside
        ]
        lines = (line.split() for line in expected("layouts").text(name).splitlines())
        assert found == [
            (int(number), int(start), int(sectors), schemes[scheme])
            for number, start, sectors, scheme in lines
        ]


def test_a_table_inside_a_volume_names_the_volume_and_its_filesystems_are_read(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    found = inspected("layouts")
    parents = {row["device"]: row["parent"] for row in found.rows("partitions")}
    rows = [row for row in found.rows("filesystems") if row["mounted"]]
    assert {parents[row["device"]] for row in rows} == {"/dev/hosts/guest"}
    assert [row["label"] for row in rows] == ["boot", "root"]
    assert rows[0]["stack"] == ["/dev/hosts/guest", "/dev/sdc"]


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_as_many_partitions_as_sfdisk_writes_are_found(label: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(400 << 20)
    sizes = ["size=1537"] * 128 if label == "gpt" else ["type=5", *["size=1537"] * 56]
    command = ["sfdisk", "--quiet", "--label", label, str(disk)]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(
        command, input="\n".join(sizes), text=True, check=True, env=environment, timeout=60
    )
    listed = subprocess.run(
        ["sfdisk", "--json", str(disk)], capture_output=True, check=True, env=environment
    )
    wanted = json.loads(listed.stdout)["partitiontable"]["partitions"]
    found = inspect(disk).rows("partitions")
    assert [(row["start"], row["size"]) for row in found] == [
        (item["start"] * 512, item["size"] * 512) for item in wanted
    ]
    assert len(found) == len(sizes)
    assert {row["alignment"] >= 512 and row["start"] % row["alignment"] for row in found} == {0}


def test_a_table_without_a_name_of_ours_is_read_all_the_same(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    rows = [row for row in inspected("foreign").rows("partitions") if row["disk"] == 2]
    assert {row["scheme"] for row in rows} == {"other"}
    assert [(row["number"], row["start"] // 512, row["size"] // 512) for row in rows] == [
        tuple(map(int, line.split())) for line in expected("foreign").text("partx").splitlines()
    ]


# -- filesystems ------------------------------------------------------------------------------


def test_filesystems_of_every_kind_are_what_blkid_reports(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    names = ("type", "uuid", "label", "version")
    rows = inspected("filesystems").rows("filesystems")
    found = sorted((tuple(row[name] for name in names) for row in rows), key=str)
    wanted = [fields for fields in expected("filesystems").filesystems() if fields[0] is not None]
    assert found == wanted


def test_their_usage_is_what_df_reports(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    names = ("size", "used", "available", "inodes", "inodes_used")
    rows = {row["device"]: row for row in inspected("filesystems").rows("filesystems")}
    for line in expected("filesystems").text("df").splitlines():
        number, *fields = line.split()
        row = rows[f"/dev/sda{number}"]
        wanted = [None if field == "-" else int(field) for field in fields]
        assert [row[name] for name in names] == wanted, row["type"]


def test_one_that_linux_cannot_mount_is_named(inspected: Inspect) -> None:
    rows = {row["device"]: row for row in inspected("filesystems").rows("filesystems")}
    assert rows["/dev/sda15"]["error"] == "the appliance's kernel cannot mount VMFS"
    assert [row["type"] for row in rows.values() if not row["mounted"]] == ["swap", "VMFS"]


def test_an_ntfs_that_was_not_unmounted_is_read_and_says_so(inspected: Inspect) -> None:
    rows = {row["label"]: row["journal"] for row in inspected("filesystems").rows("filesystems")}
    assert (rows["ntfs"], rows["ntfs-dirty"]) == ("clean", "ignored")


def test_an_apple_partition_map_is_read(inspected: Inspect) -> None:
    rows = [row for row in inspected("filesystems").rows("partitions") if row["disk"] == 1]
    assert {row["scheme"] for row in rows} == {"apm"}
    assert [row["type"] for row in rows][2] == "Apple_HFS"


def test_what_linux_knows_and_cannot_read_is_named_with_the_reason(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    rows = {row["type"]: row for row in inspected("foreign").rows("filesystems")}
    assert {kind for kind, *_ in expected("foreign").filesystems()} == rows.keys()
    kernel = "the appliance's kernel cannot mount"
    assert {kind: row["error"] for kind, row in rows.items() if not row["mounted"]} == {
        "zfs_member": f"{kernel} zfs_member",
        "ReFS": f"{kernel} ReFS",
        "apfs": f"{kernel} apfs",
        "reiserfs": "cannot be mounted as reiserfs: Invalid argument",
        "gfs2": "cannot be mounted as gfs2: Invalid argument",
        "cramfs": f"{kernel} cramfs",
        "isw_raid_member": None,  # holds no files; what it is a part of has a row
    }
    (volume,) = inspected("foreign").rows("volumes")
    assert (volume["kind"], volume["members"], volume["error"]) == (
        "raid",
        ["/dev/sdb"],
        "a firmware RAID (Intel) is not put together",
    )
    failed = {row["table_name"]: row["status"] for row in inspected("foreign").rows("coverage")}
    assert (failed["filesystems"], failed["volumes"]) == ("failed", "failed")


def test_a_filesystem_that_only_linux_still_knows_is_read(inspected: Inspect) -> None:
    rows = {row["type"]: row for row in inspected("foreign").rows("filesystems")}
    assert (rows["bfs"]["mounted"], rows["bfs"]["error"]) == (True, None)


@pytest.mark.parametrize(
    "name", ["md", "locked", "lvm", "lvm-plain", "layouts", "filesystems", "foreign"]
)
def test_disk_files_stay_as_they_were(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert (found.after, found.leftovers) == (found.before, [])


# -- bcache -----------------------------------------------------------------------------------


def test_a_bcache_device_that_holds_all_its_data_is_read(
    inspected: Inspect, expected: Callable[[str], Expected]
) -> None:
    found = inspected("bcache")
    volumes = by_name(found)
    for name in ("/dev/sda1", "/dev/sda2"):
        assert (volumes[name]["kind"], volumes[name]["error"]) == ("bcache", None)
    rows = {row["label"]: row for row in found.rows("filesystems") if row["mounted"]}
    assert set(rows) == {"bcache1", "bcache2"}
    names = ("type", "uuid", "label", "version")
    described = sorted(tuple(row[name] for name in names) for row in rows.values())
    assert described == expected("bcache.raw").filesystems()
    usages = [
        (usage.size, usage.used, usage.available)
        for _, usage in sorted(expected("bcache.raw").usage().items())
    ]
    found_usages = [
        tuple(row[name] for name in ("size", "used", "available"))
        for _, row in sorted(rows.items())
    ]
    assert found_usages == usages
    assert rows["bcache2"]["stack"] == ["/dev/sda2", "/dev/sda"]


def test_a_cache_of_bcache_is_named(inspected: Inspect) -> None:
    volume = by_name(inspected("bcache"))["/dev/sda3"]
    assert (volume["active"], volume["error"]) == (
        False,
        "bcache: a cache device, which fleetscan does not read",
    )
