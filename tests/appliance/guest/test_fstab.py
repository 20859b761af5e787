from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.mounts import FstabEntry
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.fstab import parse, parse_crypttab, resolve
from tests.strategies import guest_texts

ROOT_UUID = "6f1a4a3e-4f6c-4d3e-9b57-666c65657473"


def device(
    path: str, disk: int | None = None, number: int | None = None, **probe: str
) -> BlockDevice:
    return BlockDevice(path=path, size=1 << 30, disk=disk, partition=number, probe=probe)


DEVICES = [
    device("/dev/sda", 0),
    device("/dev/sda1", 0, 1, UUID="AB12-CD34", LABEL="EFI", PART_ENTRY_UUID="0a1b2c3d-01"),
    device("/dev/sda2", 0, 2, UUID=ROOT_UUID, LABEL="my root", PART_ENTRY_NAME="Linux filesystem"),
    device("/dev/sda15", 0, 15, LABEL="caf\u00e9"),
    device("/dev/sdb", 1, UUID="whole-disk"),
    device("/dev/sdb1", 1, 1),
    device("/dev/debian-vg/root", UUID="lv-root"),
    device("/dev/debian-vg/swap_1"),
    device("/dev/a-/b"),
    device("/dev/vg0/data-old"),
]


def found(source: str) -> str | None:
    device = resolve(source, DEVICES)
    return device.path if device else None


# -- Lines -----------------------------------------------------------------------------------


def test_a_line_has_six_fields() -> None:
    assert parse("UUID=1-2 /boot vfat umask=0077,ro 0 2\n") == [
        FstabEntry("UUID=1-2", "/boot", "vfat", ("umask=0077", "ro"), 2)
    ]


def test_fields_that_are_left_out_have_their_defaults() -> None:
    assert parse("/dev/sda1 / ext4") == [FstabEntry("/dev/sda1", "/", "ext4", ("defaults",), 0)]
    assert parse("/dev/sda1 / ext4 ro 1")[0].check_pass == 0


@pytest.mark.parametrize("line", ["", "   ", "# a / b", "  #/dev/sda1 / ext4", "/dev/sda1 /", "x"])
def test_what_is_no_entry_is_passed_over(line: str) -> None:
    assert parse(line) == []


@pytest.mark.parametrize(
    "line", ["a\t/b  \t ext4\tdefaults\t0\t0", "  a /b ext4 defaults 0 0  # no comment here"]
)
def test_blanks_of_any_kind_part_fields(line: str) -> None:
    assert parse(line) == [FstabEntry("a", "/b", "ext4", ("defaults",), 0)]


@pytest.mark.parametrize(
    ("field", "decoded"),
    [
        (r"/mnt/my\040disk", "/mnt/my disk"),
        (r"/mnt/a\011b\134c", "/mnt/a\tb\\c"),
        (r"/mnt/caf\303\251", "/mnt/caf\u00e9"),
        (r"/mnt/\351", "/mnt/\udce9"),
        (r"/mnt/\04", "/mnt/\\04"),
        (r"/mnt/\089", "/mnt/\\089"),
        ("/mnt/caf\u00e9", "/mnt/caf\u00e9"),
        ("/mnt/a\u00a0b\u2028c\x0bd", "/mnt/a\u00a0b\u2028c\x0bd"),
    ],
)
def test_octal_escapes_stand_for_bytes(field: str, decoded: str) -> None:
    assert parse(f"/dev/sda1 {field} ext4")[0].path == decoded


@pytest.mark.parametrize("word", ["256", "-1", "x", "\u0663", "1e3", "9" * 5000])
def test_a_check_pass_that_is_no_small_number_is_none(word: str) -> None:
    assert parse(f"/dev/sda1 / ext4 ro 0 {word}")[0].check_pass == 0


def test_quotes_around_a_tags_value_fall_off() -> None:
    assert parse('LABEL="my\\040root" / ext4')[0].source == "LABEL=my root"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/dev/sda1", True),
        ("UUID=1", True),
        ("PARTLABEL=x", True),
        ("tmpfs", False),
        ("server:/export", False),
        ("//server/share", False),
        ("UUID", False),
        ("ID=nvme-0", False),
    ],
)
def test_sources_that_can_only_be_block_devices_are_told_apart(source: str, expected: bool) -> None:
    assert FstabEntry(source, "/", "ext4", (), 0).names_device is expected


@given(guest_texts())
def test_no_text_is_too_odd(text: str) -> None:
    for entry in parse(text):
        resolve(entry.source, DEVICES)
        assert entry.type
        assert 0 <= entry.check_pass < 256


# -- Devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (f"UUID={ROOT_UUID}", "/dev/sda2"),
        (f"UUID={ROOT_UUID.upper()}", "/dev/sda2"),
        ("UUID=ab12-cd34", "/dev/sda1"),
        ("UUID=lv-root", "/dev/debian-vg/root"),
        ("LABEL=my root", "/dev/sda2"),
        ("LABEL=EFI", "/dev/sda1"),
        ("LABEL=efi", None),
        ("LABEL=caf\u00e9", "/dev/sda15"),
        ("PARTUUID=0A1B2C3D-01", "/dev/sda1"),
        ("PARTLABEL=Linux filesystem", "/dev/sda2"),
        ("PARTLABEL=linux filesystem", None),
        ("UUID=", None),
        ("UUID=nowhere", None),
    ],
)
def test_tags_are_what_libblkid_says(source: str, path: str | None) -> None:
    assert found(source) == path


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (f"/dev/disk/by-uuid/{ROOT_UUID}", "/dev/sda2"),
        (r"/dev/disk/by-label/my\x20root", "/dev/sda2"),
        ("/dev/disk/by-label/caf\u00e9", "/dev/sda15"),
        ("/dev/disk/by-partuuid/0a1b2c3d-01", "/dev/sda1"),
        (r"/dev/disk/by-partlabel/Linux\x20filesystem", "/dev/sda2"),
        ("/dev/disk/by-id/ata-DISK", None),
        ("/dev/disk/by-uuid/", None),
    ],
)
def test_links_of_udev_are_what_they_name(source: str, path: str | None) -> None:
    assert found(source) == path


@pytest.mark.parametrize("bus", ["sd", "hd", "vd", "xvd"])
def test_lettered_disks_are_found_by_their_place_on_whatever_bus(bus: str) -> None:
    assert found(f"/dev/{bus}a1") == "/dev/sda1"
    assert found(f"/dev/{bus}a15") == "/dev/sda15"
    assert found(f"/dev/{bus}b") == "/dev/sdb"
    assert found(f"/dev/{bus}b1") == "/dev/sdb1"
    assert found(f"/dev/{bus}c1") is None
    assert found(f"/dev/{bus}a3") is None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/dev/nvme0n1p2", "/dev/sda2"),
        ("/dev/nvme1n1", "/dev/sdb"),
        ("/dev/nvme1n1p1", "/dev/sdb1"),
        ("/dev/nvme2n1p1", None),
        ("/dev/mmcblk0p1", "/dev/sda1"),
        ("/dev/mmcblk1", "/dev/sdb"),
        ("/dev/nvme0", None),
    ],
)
def test_numbered_disks_are_found_by_their_place(source: str, path: str | None) -> None:
    assert found(source) == path


def test_disks_beyond_z_have_two_letters() -> None:
    devices = [device(f"/dev/disk{index}", index) for index in (25, 26, 27, 52)]
    names = {"/dev/vdz": 25, "/dev/sdaa": 26, "/dev/sdab": 27, "/dev/xvdba": 52}
    for name, index in names.items():
        match = resolve(name, devices)
        assert match is not None
        assert match.disk == index


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/dev/mapper/debian--vg-root", "/dev/debian-vg/root"),
        ("/dev/mapper/debian--vg-swap_1", "/dev/debian-vg/swap_1"),
        ("/dev/mapper/a---b", "/dev/a-/b"),
        ("/dev/mapper/vg0-data--old", "/dev/vg0/data-old"),
        ("/dev/debian-vg/root", "/dev/debian-vg/root"),
        ("/dev/mapper/debian-vg-root", None),
        ("/dev/mapper/luks-data", None),
        ("/dev/mapper/a--b", None),
        ("/dev/mapper/nothing", None),
        ("/dev/mapper/", None),
        ("/dev/vg0/missing", None),
    ],
)
def test_logical_volumes_are_found_under_either_name(source: str, path: str | None) -> None:
    assert found(source) == path


names = st.text("ab-_.+", min_size=1, max_size=8).filter(lambda name: not name.startswith("-"))


@given(names, names)
def test_every_volumes_mapper_name_leads_to_it(group: str, name: str) -> None:
    # How lvm makes it: every hyphen of either name doubled, one between them.
    mapped = f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"
    volume = device(f"/dev/{group}/{name}")
    assert resolve(mapped, [*DEVICES, volume]) is not None
    assert resolve(mapped, [volume]) is volume


@pytest.mark.parametrize(
    "source", ["tmpfs", "none", "server:/export", "", "/dev", "/dev/", "/dev/sd", "sda1", "=", "/"]
)
def test_what_names_no_device_leads_to_none(source: str) -> None:
    assert found(source) is None


# -- crypttab --------------------------------------------------------------------------------


def test_a_crypttab_names_containers() -> None:
    text = '# <target> <source>\nroot_crypt UUID="aB" none luks\n\n  data\t/dev/sda3\nalone\n'
    assert parse_crypttab(text) == {"root_crypt": "UUID=aB", "data": "/dev/sda3"}


def test_a_mapping_of_the_crypttab_is_what_its_container_holds() -> None:
    container = BlockDevice("/dev/sda2", 9, disk=0, partition=2, probe={"UUID": "AB"})
    opened = BlockDevice("/dev/mapper/luks-sda2", 8, members=("/dev/sda2",))
    inside = BlockDevice("/dev/loop0p1", 7, partition=1, members=("/dev/mapper/luks-sda2",))
    devices = [container, inside, opened]
    table = {"root_crypt": "UUID=ab", "loop": "/dev/mapper/loop"}
    assert resolve("/dev/mapper/root_crypt", devices, table) is opened
    assert resolve("/dev/mapper/root_crypt", [container], table) is None
    assert resolve("/dev/mapper/loop", devices, table) is None


def test_an_array_is_found_by_both_of_its_numbered_names() -> None:
    array = BlockDevice("/dev/md0", 1)
    assert resolve("/dev/md/0", [array]) is array
    assert resolve("/dev/md0", [array]) is array


def test_a_volume_goes_before_its_snapshot_of_the_same_name() -> None:
    snapshot = BlockDevice("/dev/vg/before", 1, snapshot=True, probe={"UUID": "1"})
    volume = BlockDevice("/dev/vg/root", 1, probe={"UUID": "1"})
    assert resolve("UUID=1", [snapshot, volume]) is volume
