"""Parsers of what lvm and btrfs print."""

from __future__ import annotations

import json

import pytest

from appliance.guest.disks import BlockDevice
from appliance.guest.filesystems import Subvolume, parse_subvolumes
from appliance.guest.volumes import closed_luks, parse_lvs

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


@pytest.mark.parametrize(("error", "told"), [("", "could not be activated"), ("why", "why")])
def test_a_volume_that_stays_closed_says_why(error: str, told: str) -> None:
    (volume,) = parse_lvs(report(segment()), error, lambda path: False)
    assert (volume.device, volume.active, volume.error) == (None, False, told)


def test_snapshots_and_volumes_without_path_or_members() -> None:
    (volume,) = parse_lvs(
        report(segment(lv_role="public,snapshot,thicksnapshot", lv_path="", devices=""))
    )
    assert (volume.snapshot, volume.device, volume.members) == (True, None, ())


def test_reports_without_volumes_have_none() -> None:
    assert list(parse_lvs(report())) == []
    assert list(parse_lvs(json.dumps({"report": [{"lv": []}, {"lv": []}]}))) == []


# -- LUKS ------------------------------------------------------------------------------------


def test_an_encrypted_container_is_named_with_its_version() -> None:
    probe = {"TYPE": "crypto_LUKS", "UUID": "u", "VERSION": "2"}
    devices = [
        BlockDevice("/dev/sda1", 100, probe={"TYPE": "ext4"}),
        BlockDevice("/dev/sda2", 200, probe=probe),
    ]
    (volume,) = closed_luks(devices)
    assert (volume.name, volume.layout, volume.size) == ("/dev/sda2", "luks2", 200)
    assert (volume.active, volume.uuid) == (False, "u")
    assert "no key was given" in (volume.error or "")


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
