from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPlan, DiskPolicy, examine, qcow2_tables
from fleetscan.scanner.preflight.formats.qcow2 import FORMAT, Qcow2Header, parse_header, tables_of
from fleetscan.scanner.preflight.image import Read

CLUSTER = 512
FIELDS = {  # name: (offset, length), as QEMU's docs/interop/qcow2.txt has them
    "magic": (0, 4),
    "version": (4, 4),
    "backing_file_offset": (8, 8),
    "backing_file_size": (16, 4),
    "cluster_bits": (20, 4),
    "size": (24, 8),
    "crypt_method": (32, 4),
    "l1_size": (36, 4),
    "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8),
    "refcount_table_clusters": (56, 4),
    "nb_snapshots": (60, 4),
    "snapshots_offset": (64, 8),
    "incompatible_features": (72, 8),
    "refcount_order": (96, 4),
    "header_length": (100, 4),
    "compression_type": (104, 1),
    "first_extension": (112, 4),
    "first_extension_length": (116, 4),
}
SMALL = (0, 1, 2, 8, 9, 21, 22, 63, 64, 104, 105, 511, 512, 513, 1024, 65536)
LARGE = (1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
INTERESTING = st.sampled_from(SMALL + LARGE)


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small image with a backing file, data and several L2 tables."""
    folder = tmp_path_factory.mktemp("sound")
    options = ["-o", f"cluster_size={CLUSTER}", "-b", "base.img", "-F", "raw"]
    (folder / "base.img").write_bytes(bytes(1 << 20))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *options, "a.qcow2"], check=True, cwd=folder
    )
    subprocess.run(
        ["qemu-io", "-c", "write 0 64k", "-c", "write 900k 64k", "a.qcow2"],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    return (folder / "a.qcow2").read_bytes()


def parsed(data: bytes) -> Qcow2Header:
    header = parse_header(reader(data), len(data))
    qcow2_tables.check(reader(data), len(data), tables_of(header), seconds=1)
    return header


def with_field(data: bytes, name: str, value: int) -> bytes:
    offset, length = FIELDS[name]
    value %= 1 << 8 * length
    return data[:offset] + value.to_bytes(length, "big") + data[offset + length :]


def test_a_sound_header_is_read_as_it_was_made(sound: bytes) -> None:
    header = parsed(sound)
    assert (header.version, header.cluster_size, header.virtual_size) == (3, CLUSTER, 1 << 20)
    assert (header.backing_file, header.backing_format) == (b"base.img", "raw")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cluster_bits", 8, "cluster size"),
        ("cluster_bits", 22, "cluster size"),
        ("size", 1 << 62, "L1 entries"),
        ("size", 1 << 63, "virtual size"),
        ("l1_size", 0, "L1 entries"),
        ("l1_size", 1 << 31, "L1 entries"),
        ("l1_table_offset", 0, "L1 table at 0"),
        ("l1_table_offset", 513, "L1 table at 513"),
        ("l1_table_offset", 1 << 40, "L1 table lies beyond"),
        ("refcount_table_offset", 1 << 62, "refcount table lies beyond"),
        ("refcount_table_clusters", 0, "refcount table of 0"),
        ("refcount_table_clusters", 1 << 20, "refcount table of"),
        ("refcount_order", 7, "refcount order"),
        ("header_length", 103, "header length"),
        ("header_length", 1024, "header length"),
        ("nb_snapshots", 70000, "70000 snapshots"),
        ("nb_snapshots", 1, "snapshot table"),
        ("backing_file_offset", 8, "backing file name at 8"),
        ("backing_file_offset", 510, "backing file name at 510"),
        ("backing_file_size", 1024, "backing file name of 1024"),
        ("first_extension_length", 1 << 31, "header extension"),
    ],
)
def test_each_field_is_held_to_its_range(sound: bytes, name: str, value: int, message: str) -> None:
    with pytest.raises(PreflightError, match=message):
        parsed(with_field(sound, name, value))


@settings(max_examples=400, deadline=2000)
@given(data=st.data())
def test_mutated_headers_are_read_or_refused(sound: bytes, data: st.DataObject) -> None:
    image = sound
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4)):
        image = with_field(image, name, data.draw(INTERESTING))
    with contextlib.suppress(PreflightError):
        assert parsed(image).cluster_size <= 2 << 20


@settings(max_examples=300, deadline=2000)
@given(data=st.data())
def test_mutated_tables_are_read_or_refused(sound: bytes, data: st.DataObject) -> None:
    image = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        offset = data.draw(st.integers(CLUSTER // 8, len(image) // 8 - 1)) * 8
        image[offset : offset + 8] = struct.pack(">Q", data.draw(INTERESTING))
    with contextlib.suppress(PreflightError):
        assert parsed(bytes(image)).virtual_size == 1 << 20


@given(cut=st.integers(min_value=0))
def test_an_image_cut_before_its_last_cluster_is_truncated(sound: bytes, cut: int) -> None:
    image = sound[: cut % (len(sound) - CLUSTER)]
    with pytest.raises(PreflightError, match="truncated"):
        parsed(image)


@given(junk=st.binary(max_size=300))
def test_any_bytes_after_the_magic_are_refused_at_most(junk: bytes) -> None:
    with contextlib.suppress(PreflightError):
        parsed(b"QFI\xfb\0\0\0\3" + junk)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_mutated_image_is_a_plan_or_a_preflight_error(
    sound: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    image = sound
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2)):
        image = with_field(image, name, data.draw(INTERESTING))
    (tmp_path / "base.img").write_bytes(bytes(1 << 20))
    (tmp_path / "a.img").write_bytes(image[: data.draw(st.sampled_from([None, 600, 5000]))])
    with contextlib.suppress(PreflightError):
        assert isinstance(examine(Disk(str(tmp_path / "a.img")), DiskPolicy()), DiskPlan)


@pytest.mark.parametrize(
    ("bits", "mark"), [(0, None), (1, "dirty"), (2, "corrupt"), (3, "corrupt")]
)
def test_what_the_image_is_marked_as_is_reported(sound: bytes, bits: int, mark: str | None) -> None:
    image = with_field(sound, "incompatible_features", bits)
    assert FORMAT.read_image(reader(image), len(image), time.monotonic() + 5).mark == mark


class TestSnapshots:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True)
        for name in ("clean", "before ü"):
            subprocess.run(["qemu-img", "snapshot", "-c", name, str(path)], check=True)
            subprocess.run(["qemu-img", "resize", "-q", str(path), "+1M"], check=True)
        return path

    def test_inside_an_image_are_listed_as_qemu_img_lists_them(self, image: Path) -> None:
        listed = subprocess.run(
            ["qemu-img", "info", "--output=json", str(image)], check=True, capture_output=True
        )
        wanted = [
            (row["id"], row["name"], row["date-sec"], row["vm-state-size"])
            for row in json.loads(listed.stdout)["snapshots"]
        ]
        found = examine(Disk(str(image)), DiskPolicy()).snapshots
        assert wanted == [
            (row.id.decode(), row.name.decode(), row.created_ns // 10**9, row.state_size)
            for row in found
        ]
        assert [row.virtual_size for row in found] == [1 << 20, 2 << 20]

    def test_with_endless_names_are_refused(self, image: Path) -> None:
        content = bytearray(with_field(image.read_bytes(), "nb_snapshots", 65536))
        offset = int.from_bytes(content[64:72], "big")
        entry = struct.pack(">QIHHIIQII", 0, 0, 0, 65535, 0, 0, 0, 0, 0).ljust(40 + 65536, b"n")

        def read(start: int, length: int) -> bytes:
            if start < offset:
                return bytes(content[start : start + length])
            place = (start - offset) % len(entry)
            return (entry * 2)[place : place + length]

        with pytest.raises(PreflightError, match="snapshot table"):
            FORMAT.read_image(read, 1 << 40, time.monotonic() + 5)

    @settings(
        max_examples=200,
        deadline=2000,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_that_were_tampered_with_are_read_or_refused(
        self, image: Path, data: st.DataObject
    ) -> None:
        content = bytearray(image.read_bytes())
        offset = int.from_bytes(content[64:72], "big")
        for _ in range(data.draw(st.integers(1, 4))):
            place = offset + data.draw(st.integers(0, 25)) * 4
            value = data.draw(INTERESTING) % (1 << 32)
            content[place : place + 4] = value.to_bytes(4, "big")
        count = data.draw(st.sampled_from([2, 3, 65536]))
        tampered = with_field(bytes(content), "nb_snapshots", count)
        with contextlib.suppress(PreflightError):
            FORMAT.read_image(reader(tampered), len(tampered), time.monotonic() + 5)
