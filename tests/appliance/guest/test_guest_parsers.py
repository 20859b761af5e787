"""Parsers of what lvm and btrfs print."""

from __future__ import annotations

import json

import pytest

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.filesystems import Subvolume, parse_subvolumes
from fleetscan.appliance.guest.volume import VolumeKey
from fleetscan.appliance.guest.volumes.arrays.md import device_path
from fleetscan.appliance.guest.volumes.encryption import open_container
from fleetscan.appliance.guest.volumes.firmware_raid import ForeignVolumes
from fleetscan.appliance.guest.volumes.lvm.groups import exported, parse_lvs

# -- lvs --reportformat json -----------------------------------------------------------------


def segment(**changes: str) -> dict[str, str]:
    plain = {
        "vg_name": "vg",
        "vg_uuid": "vg-uuid",
        "lv_name": "root",
        "lv_uuid": "lv-uuid",
        "lv_size": "1073741824",
        "lv_layout": "linear",
        "lv_role": "public",
        "lv_path": "/dev/vg/root",
        "devices": "/dev/sda2(0)",
    }
    return {**plain, **changes}


def report(*segments: dict[str, str]) -> str:
    return json.dumps({"report": [{"lv": list(segments)}]})


def test_an_active_volume_is_told_with_its_device() -> None:
    (volume,) = parse_lvs(report(segment()), is_there=lambda path: path == "/dev/vg/root")
    assert (volume.kind, volume.name, volume.group_name) == ("lvm", "root", "vg")
    assert (volume.device, volume.size, volume.active) == ("/dev/vg/root", 1 << 30, True)
    assert (volume.uuid, volume.group_uuid, volume.layout) == ("lv-uuid", "vg-uuid", "linear")
    assert (volume.members, volume.snapshot, volume.error) == (("/dev/sda2",), False, None)


def test_segments_of_a_volume_are_one_row_whose_members_are_joined() -> None:
    parts = [
        segment(devices="/dev/sda2(0),/dev/sdb1(0)"),
        segment(devices="/dev/sdb1(100)"),
        segment(devices="/dev/sdc1(0)"),
    ]
    (volume,) = parse_lvs(report(*parts))
    assert volume.members == ("/dev/sda2", "/dev/sdb1", "/dev/sdc1")


def test_volumes_of_equal_name_in_two_groups_are_two() -> None:
    other = segment(vg_name="other", lv_uuid="2", lv_path="/dev/other/root")
    assert [volume.group_name for volume in parse_lvs(report(segment(), other))] == ["vg", "other"]


@pytest.mark.parametrize(
    ("errors", "told"), [({}, "could not be activated"), ({"vg": "why", "b": "not"}, "why")]
)
def test_a_volume_that_stays_closed_says_why(errors: dict[str, str], told: str) -> None:
    (volume,) = parse_lvs(report(segment()), errors, lambda path: False)
    assert (volume.device, volume.active, volume.error) == (None, False, told)


def test_snapshots_and_volumes_without_path_or_members() -> None:
    (volume,) = parse_lvs(
        report(segment(lv_role="public,snapshot,thicksnapshot", lv_path="", devices=""))
    )
    assert (volume.snapshot, volume.device, volume.members) == (True, None, ())


def test_members_are_followed_through_hidden_volumes_to_devices() -> None:
    parts = [
        segment(lv_name="thin", lv_uuid="1", devices="", pool_lv="pool"),
        segment(
            lv_name="pool",
            lv_uuid="2",
            lv_layout="thin,pool",
            devices="pool_tdata(0)",
            metadata_lv="[pool_tmeta]",
        ),
        segment(lv_name="[pool_tdata]", lv_uuid="3", devices="/dev/sda1(7)"),
        segment(lv_name="[pool_tmeta]", lv_uuid="4", devices="/dev/sdb1(0)"),
    ]
    thin, pool = parse_lvs(report(*parts))
    assert (thin.name, thin.members) == ("thin", ("/dev/sda1", "/dev/sdb1"))
    assert (pool.active, pool.error) == (False, None), "nobody opens a pool itself"


def test_volumes_that_lie_on_each_other_have_no_members() -> None:
    parts = [
        segment(lv_name="a", lv_uuid="1", devices="b(0),a(0)"),
        segment(lv_name="[b]", lv_uuid="2", devices="a(0)"),
    ]
    assert [volume.members for volume in parse_lvs(report(*parts))] == [()]


def test_a_physical_volume_of_an_exported_group_is_named() -> None:
    names = ("pv_name", "pv_uuid", "vg_name", "vg_exported")
    entries = [
        dict(zip(names, values, strict=True))
        for values in (("/dev/sda1", "1", "vg", ""), ("/dev/sda2", "2", "old", "exported"))
    ]
    (volume,) = exported(json.dumps({"report": [{"pv": entries}]}))
    assert (volume.name, volume.error) == ("/dev/sda2", "its volume group old is exported")


def test_reports_without_volumes_have_none() -> None:
    assert list(parse_lvs(report())) == []
    assert list(parse_lvs(json.dumps({"report": [{"lv": []}, {"lv": []}]}))) == []


# -- LUKS ------------------------------------------------------------------------------------


LUKS = BlockDevice("/dev/sda2", 200, probe={"TYPE": "crypto_LUKS", "UUID": "aB", "VERSION": "2"})


def test_an_encrypted_container_without_a_key_is_named_with_its_version() -> None:
    volume = open_container(LUKS, [VolumeKey("other", b"secret")])
    assert (volume.name, volume.layout, volume.size) == ("/dev/sda2", "luks2", 200)
    assert (volume.active, volume.uuid, volume.device) == (False, "aB", None)
    assert volume.error == "encrypted (LUKS), and no key was given"


def test_a_bitlocker_volume_without_a_key_is_named() -> None:
    device = BlockDevice("/dev/sda3", 300, probe={"TYPE": "BitLocker"})
    volume = open_container(device, [])
    assert (volume.kind, volume.layout, volume.active) == ("bitlocker", "bitlocker", False)
    assert volume.error == "encrypted (BitLocker), and no key was given"


def test_volumes_that_are_never_opened_are_named() -> None:
    kinds = {"VMFS_volume_member": "raid", "isw_raid_member": "raid", "ext4": None}
    devices = [BlockDevice(f"/dev/{kind}", 1, probe={"TYPE": kind}) for kind in kinds]
    foreign = ForeignVolumes()
    foreign.open([device for device in devices if foreign.takes(device)])
    found = {volume.members[0]: volume for volume in foreign.volumes}
    assert {path: volume.kind for path, volume in found.items()} == {
        f"/dev/{kind}": word for kind, word in kinds.items() if word
    }
    assert all(volume.error and not volume.active for volume in found.values())


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [("all", True), ("Ab", True), ("/dev/sda2", True), ("/dev/sda", False), ("", False)],
)
def test_a_key_is_for_everything_or_one_container(selector: str, wanted: bool) -> None:
    assert VolumeKey(selector, b"secret").is_for(LUKS) is wanted


def test_a_key_is_never_shown() -> None:
    assert "secret" not in repr(VolumeKey("all", b"secret"))


# -- mdadm -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("host:0", "/dev/md0"),
        ("host:home", "/dev/md/home"),
        ("127", "/dev/md127"),
        ("host:../../vda", "/dev/md/sda9"),
        ("a:b/c", "/dev/md/sda9"),
        ("host:..", "/dev/md/sda9"),
        (None, "/dev/md/sda9"),
    ],
)
def test_an_array_is_called_as_its_guest_calls_it(label: str | None, path: str) -> None:
    probe = {} if label is None else {"LABEL": label}
    assert device_path(BlockDevice("/dev/sda9", 1, probe=probe)) == path


# -- btrfs subvolume list --------------------------------------------------------------------

SUBVOLUMES = """\
ID 256 gen 30 top level 5 parent_uuid -                                    uuid 1111 path @rootfs
ID 257 gen 9 top level 256 parent_uuid 1111 uuid 2222 path .snapshots/1/a name with blanks
ID 258 gen 9 top level 5 parent_uuid - uuid 3333 path x path y
"""


def test_subvolumes_have_id_path_and_parent() -> None:
    assert parse_subvolumes(SUBVOLUMES) == [
        Subvolume(256, "@rootfs", "1111", ""),
        Subvolume(257, ".snapshots/1/a name with blanks", "2222", "1111"),
        Subvolume(258, "x path y", "3333", ""),
    ]


@pytest.mark.parametrize("output", ["", "\n", "ERROR: not a btrfs filesystem\n", "ID 256 gen\n"])
def test_other_lines_are_no_subvolumes(output: str) -> None:
    assert parse_subvolumes(output) == []
