"""Plain volume groups: the same mapping as lvm's own, and nothing of what is not plain."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volumes.lvm import metadata, plain_mapping
from fleetscan.appliance.guest.volumes.lvm.metadata import NotPlainError

METADATA = b"""\
contents = "Text Format Volume Group"	# what follows a # is said to people
description = "by \\"hand\\""
vg0 {
	id = "AAAAAA"
	seqno = 3
	status = ["RESIZEABLE", "READ", "WRITE"]
	flags = []
	extent_size = 8192
	physical_volumes {
		pv0 {
			id = "P0"
			status = ["ALLOCATABLE"]
			flags = []
			pe_start = 2048
		}
	}
	logical_volumes {
		root {
			id = "L0"
			status = ["READ", "WRITE", "VISIBLE"]
			flags = []
			segment_count = 1
			segment1 {
				start_extent = 0
				extent_count = 10
				type = "striped"
				stripe_count = 1
				stripes = [
					"pv0", 5
				]
			}
		}
	}
}
"""


def test_a_group_s_volumes_are_read() -> None:
    (volume,) = metadata.read(METADATA, {"P0"})
    assert (volume.group, volume.group_uuid) == ("vg0", "AAAAAA")
    assert (volume.name, volume.uuid, volume.layout) == ("root", "L0", "linear")
    assert volume.targets == (
        metadata.Target(0, 81920, "linear", f"{{0}} {2048 + 5 * 8192}", ("P0",)),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"RESIZEABLE", ', b'"RESIZEABLE", "EXPORTED", '),
        (b"flags = []\n\textent", b'flags = ["SHARED"]\n\textent'),
        (b"seqno = 3", b'system_id = "elsewhere"'),
        (b"seqno = 3", b'lock_type = "sanlock"'),
        (b"flags = []\n\t\t\tpe", b'flags = ["MISSING"]\n\t\t\tpe'),
        (b'"P0"', b'"P1"'),
        (b', "VISIBLE"', b""),
        (b'"WRITE", "VISIBLE"', b'"PVMOVE", "VISIBLE"'),
        (b"flags = []\n\t\t\tsegment", b'flags = ["ACTIVATION_SKIP"]\n\t\t\tsegment'),
        (b'type = "striped"', b'type = "thin"'),
        (b"segment_count = 1", b"segment_count = 2"),
        (b"stripe_count = 1", b"stripe_count = 2"),
        (b"start_extent = 0", b"start_extent = 1"),
        (b"\troot {", b"\t../root {"),
        (b"\troot {", b"\t.. {"),
        (b"vg0 {", b"more { id = 1 }\nvg0 {"),
        (b"extent_size = 8192", b"extent_size = much"),
        (b"pe_start = 2048", b"pe_start = [2048"),
        (b"}\n}\n", b"}\n"),
        (b"}\n}\n", b"}\n}\n}\n"),
        (b"contents = ", b"contents "),
        (b"pv0 {", b"pv0 {" * 20),
    ],
)
def test_what_is_not_plain_is_left_to_lvm(before: bytes, after: bytes) -> None:
    changed = METADATA.replace(before, after, 1)
    assert changed != METADATA
    with pytest.raises(NotPlainError):
        list(metadata.read(changed, {"P0"}))


@given(
    place=st.integers(0, len(METADATA) - 1), length=st.integers(0, 8), with_=st.binary(max_size=8)
)
def test_damaged_metadata_is_read_or_refused(place: int, length: int, with_: bytes) -> None:
    damaged = METADATA[:place] + with_ + METADATA[place + length :]
    try:
        volumes = list(metadata.read(damaged, {"P0"}))
    except NotPlainError:
        return
    for volume in volumes:
        assert "/" not in volume.name + volume.group
        assert all(target.members == ("P0",) for target in volume.targets)


def mapped(folder: Path) -> list[str]:
    """What device mapper had mapped when the image was made."""
    return sorted(line.strip() for line in (folder / "mapped").read_text().splitlines())


def test_volumes_are_mapped_as_lvm_maps_them(example_images: Path) -> None:
    folder = example_images / "extra" / "lvm-plain.expected"
    lines = mapped(folder)
    present = {word for line in lines for word in line.split() if word.count("-") == 6}
    found = []
    for text in sorted(folder.glob("*.metadata")):
        for volume in metadata.read(text.read_bytes(), present):
            name = "-".join(part.replace("-", "--") for part in (volume.group, volume.name))
            for target in volume.targets:
                table = target.parameters.format(*target.members)
                found.append(f"{name}: {target.start} {target.length} {target.kind} {table}")
    assert sorted(found) == lines
    assert len(lines) == 6


@pytest.fixture
def physical_volume(example_images: Path, tmp_path: Path) -> Path:
    """A partition of the image as a file of its own."""
    disk = example_images / "extra" / "lvm-plain" / "disk0.raw"
    with disk.open("rb") as stream:
        stream.seek(1 << 20)
        content = stream.read(4 << 20)
    (tmp_path / "partition").write_bytes(content)
    return tmp_path / "partition"


def test_metadata_is_found_on_a_physical_volume(physical_volume: Path) -> None:
    text = metadata.text_on(str(physical_volume))
    assert text is not None
    assert b'"striped"' in text
    assert "long-lived.1" in metadata.parse(text)


@pytest.mark.parametrize("place", [0x200, 0x210, 0x220, 0x230, 0x1000, 0x1010, 0x1028])
def test_a_damaged_physical_volume_is_left_to_lvm(physical_volume: Path, place: int) -> None:
    content = bytearray(physical_volume.read_bytes())
    content[place] ^= 0x55
    physical_volume.write_bytes(content)
    with pytest.raises(NotPlainError):
        metadata.text_on(str(physical_volume))


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"LABELONE" * 300])
def test_a_device_without_a_label_is_left_to_lvm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "device").write_bytes(content)
    devices = {"P0": BlockDevice(str(tmp_path / "device"), len(content))}
    with pytest.raises(NotPlainError):
        plain_mapping.open_plain(devices)
