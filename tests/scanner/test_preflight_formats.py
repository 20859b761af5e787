from __future__ import annotations

import contextlib
import os
import random
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPlan, DiskPolicy, examine
from fleetscan.scanner.preflight.deciding import format_of
from fleetscan.scanner.preflight.formats import vmdk
from fleetscan.scanner.preflight.image import ByteOrder, ExtentReference, Image
from fleetscan.scanner.preflight.layer import reader
from fleetscan.scanner.preflight.plan import QemuImgLimits
from fleetscan.scanner.preflight.qemu_img import replay_log
from tests.disk_images import leave_log

SIZE = 3 << 20
LARGE = (1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
ORDERS: tuple[ByteOrder, ...] = ("little", "big")
INTERESTING = st.sampled_from((0, 1, 2, 3, 4, 7, 8, 64, 255, 511, 512, 513, 4096, 65536, *LARGE))


@dataclass(frozen=True)
class Kind:
    """A format in one file, how qemu-img makes it, and where its metadata lies.

    Attributes:
        metadata: stretches of it that tests mutate: offset and length, from the end if negative.
    """

    name: str
    driver: str
    options: str
    block: int | None
    metadata: tuple[tuple[int, int], ...]


SPARSE_HEADER = (0, 512)
KINDS = [
    Kind("vmdk", "vmdk", "subformat=monolithicSparse", 65536, (SPARSE_HEADER, (10240, 20480))),
    Kind("vmdk", "vmdk", "subformat=streamOptimized", 65536, (SPARSE_HEADER, (-1536, 1536))),
    Kind("vhd", "vpc", "subformat=dynamic,force_size=on", 2 << 20, ((0, 1600), (-512, 512))),
    Kind("vhd", "vpc", "subformat=fixed,force_size=on", None, ((-512, 512),)),
    Kind(
        *("vhdx", "vhdx", "subformat=dynamic", 8 << 20),
        ((192 << 10, 128), (2 << 20, 256), ((2 << 20) + (64 << 10), 64), (3 << 20, 64)),
    ),
    Kind("vdi", "vdi", "static=off", 1 << 20, ((0, 600),)),
    Kind("vdi", "vdi", "static=on", 1 << 20, ((0, 600),)),
    Kind("parallels", "parallels", "cluster_size=1M", 1 << 20, ((0, 128),)),
]
every_kind = pytest.mark.parametrize(
    "kind", KINDS, ids=lambda kind: f"{kind.name} {kind.options.partition(',')[0]}"
)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("content") / "a.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))  # noqa: S311 - content that does not shrink
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, content: Path) -> Callable[[Kind], bytes]:
    """Images by their kind."""
    folder = tmp_path_factory.mktemp("made")
    images: dict[Kind, bytes] = {}

    def image(kind: Kind) -> bytes:
        if kind not in images:
            command = ["qemu-img", "convert", "-O", kind.driver, "-o", kind.options]
            subprocess.run([*command, str(content), "image"], check=True, cwd=folder)
            images[kind] = (folder / "image").read_bytes()
        return images[kind]

    return image


def parsed(kind: Kind, data: bytes) -> Image:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        read = reader(fd)

        def limited(offset: int, length: int) -> bytes:
            assert offset >= 0
            assert 0 <= length <= 1 << 20
            return read(offset, length)

        return format_of(kind.name).read_image(limited, len(data), time.monotonic() + 5)
    finally:
        os.close(fd)


def refusal(path: Path, stated: str | None = None, policy: DiskPolicy | None = None) -> str:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(path), stated), policy or DiskPolicy())
    return str(caught.value)


@every_kind
class TestAnyFormat:
    def test_is_told_by_its_content(
        self, kind: Kind, made: Callable[[Kind], bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "a.img").write_bytes(made(kind))
        plan = examine(Disk(str(tmp_path / "a.img")), DiskPolicy())
        assert [layer.format for layer in plan.layers] == [kind.name]
        assert (plan.virtual_size, plan.cluster_size) == (SIZE, kind.block)

    def test_begins_where_its_first_block_lies(
        self, kind: Kind, made: Callable[[Kind], bytes], content: Path
    ) -> None:
        data, first = made(kind), parsed(kind, made(kind)).first_block
        if "streamOptimized" in kind.options:
            assert first is None
        else:
            assert first is not None
            assert data[first : first + 5000] == content.read_bytes()[:5000]

    def test_is_raw_where_raw_is_stated(
        self, kind: Kind, made: Callable[[Kind], bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "a.img").write_bytes(made(kind))
        (layer,) = examine(Disk(str(tmp_path / "a.img"), "raw"), DiskPolicy()).layers
        assert (layer.format, layer.driver, layer.length) == ("raw", "raw", None)

    def test_is_refused_without_its_last_third(
        self, kind: Kind, made: Callable[[Kind], bytes], tmp_path: Path
    ) -> None:
        data = made(kind)
        (tmp_path / "a.img").write_bytes(data[: len(data) * 2 // 3 // 512 * 512])
        message = refusal(tmp_path / "a.img", kind.name)
        assert "truncated" in message or "no footer" in message

    @settings(max_examples=60, deadline=None)
    @given(cut=st.integers(min_value=0))
    def test_is_refused_when_cut_before_its_last_block(
        self, kind: Kind, made: Callable[[Kind], bytes], cut: int
    ) -> None:
        data = made(kind)
        first = parsed(kind, data).first_block
        stored = len(data) - (1 << 20) if first is None else min(first + SIZE, len(data))
        with pytest.raises(PreflightError):
            parsed(kind, data[: cut % stored])

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_with_mutated_metadata_is_read_or_refused(
        self, kind: Kind, made: Callable[[Kind], bytes], data: st.DataObject
    ) -> None:
        image = bytearray(made(kind))
        for _ in range(data.draw(st.integers(1, 3))):
            start, length = data.draw(st.sampled_from(kind.metadata))
            start = start if start >= 0 else len(image) + start
            width = data.draw(st.sampled_from((1, 2, 4, 8)))
            order = data.draw(st.sampled_from(ORDERS))
            place = start + data.draw(st.integers(0, length // width - 1)) * width
            value = data.draw(INTERESTING) % (1 << 8 * width)
            image[place : place + width] = value.to_bytes(width, order)
        with contextlib.suppress(PreflightError):
            assert parsed(kind, bytes(image)).virtual_size > 0

    @given(junk=st.binary(max_size=2000))
    def test_any_bytes_are_refused_at_most(
        self, kind: Kind, made: Callable[[Kind], bytes], junk: bytes
    ) -> None:
        with contextlib.suppress(PreflightError):
            parsed(kind, made(kind)[:80] + junk)


@pytest.mark.parametrize(
    ("index", "offset", "value", "message"),
    [
        (0, 12, bytes(8), "capacity 0"),  # QEMU would open files that its descriptor names
        (0, 20, b"\3", "grain size 3"),
        (0, 4, b"\4", "version 4"),
        (2, 64, b"\0\0\0\0", "no footer"),
        (4, (192 << 10), b"x", "no region table"),
        (5, 0x4C, b"\4", "its type and its parent's UUID disagree"),
        (5, 0x1A8, b"\1", "its type and its parent's UUID disagree"),
        (5, 0x178, b"\0\0\x20\0", "blocks of 2097152"),
        (7, 16, b"\1", "version 1"),
        (7, 28, b"\0\0\0\0", "blocks of 0"),
    ],
)
def test_what_qemu_would_misread_is_refused(
    made: Callable[[Kind], bytes], index: int, offset: int, value: bytes, message: str
) -> None:
    kind = KINDS[index]
    data = bytearray(made(kind))
    data[offset : offset + len(value)] = value
    if kind.name == "vhd":
        data[-512 + offset : -512 + offset + len(value)] = value
    with pytest.raises(PreflightError, match=message):
        parsed(kind, bytes(data))


def number(image: bytes | bytearray, offset: int, length: int = 4) -> int:
    return int.from_bytes(image[offset : offset + length], "little")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.block and kind.name != "parallels"]
)
def test_blocks_that_lie_in_the_images_own_tables_are_refused(
    kind: Kind, place: int, made: Callable[[Kind], bytes]
) -> None:
    image = bytearray(made(kind))
    if kind.name == "vmdk":
        directory = number(image, 56, 8)
        table = number(image, directory * 512)
        places, at, order = (directory, table, table + 1), table * 512, "<I"
    elif kind.name == "vhd":
        places, at, order = (0, 2, 3), 1536, ">I"
    elif kind.name == "vhdx":
        places, at, order = (6, 2 << 20 | 6, 3 << 20 | 6), 2 << 20, "<Q"
    else:
        places, at, order = (0, 512, number(image, 0x154)), 0x158, "<I"
    struct.pack_into(order, image, at, places[place])
    with pytest.raises(PreflightError, match="data overlaps its tables"):
        parsed(kind, bytes(image))


def test_a_parallels_block_that_lies_in_the_block_table_is_refused() -> None:
    blocks = 512
    header = struct.pack("<16sIIIIIQ", b"WithoutFreeSpace", 2, 16, 1, 8, blocks, blocks * 8)
    image = (header.ljust(64, b"\0") + struct.pack("<I", 2)).ljust(1 << 20, b"\0")
    kind = KINDS[-1]
    with pytest.raises(PreflightError, match="data overlaps its tables"):
        parsed(kind, image)
    parsed(kind, image[:64] + struct.pack("<I", 5) + image[68:])


@pytest.mark.parametrize(("index", "offset", "value"), [(0, 72, b"\1"), (7, 44, b"Ynot")])
def test_an_image_that_was_not_closed_is_marked_dirty(
    made: Callable[[Kind], bytes], index: int, offset: int, value: bytes
) -> None:
    data = bytearray(made(KINDS[index]))
    assert parsed(KINDS[index], bytes(data)).mark is None
    data[offset : offset + len(value)] = value
    assert parsed(KINDS[index], bytes(data)).mark == "dirty"


def vhd_with(data: bytes, offset: int, value: bytes) -> bytes:
    """A dynamic vhd with a field changed in both footers, their checksums made right."""
    footer = bytearray(data[:512])
    footer[offset : offset + len(value)] = value
    footer[64:68] = bytes(4)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFF_FFFF)
    return bytes(footer) + data[512:-512] + bytes(footer)


def test_a_vhd_of_a_program_that_counts_cylinders_is_as_large_as_they_are(
    made: Callable[[Kind], bytes], tmp_path: Path
) -> None:
    data = vhd_with(made(KINDS[2]), 28, b"vbox")
    (tmp_path / "a.vhd").write_bytes(vhd_with(data, 56, struct.pack(">HBB", 90, 4, 17)))
    plan = examine(Disk(str(tmp_path / "a.vhd")), DiskPolicy())
    assert plan.virtual_size == 90 * 4 * 17 * 512


def test_a_vhdx_whose_log_is_not_replayed_is_marked_so(
    made: Callable[[Kind], bytes], tmp_path: Path
) -> None:
    image = bytearray(made(KINDS[4]))
    leave_log(image)
    path = tmp_path / "a.vhdx"
    path.write_bytes(image)
    plan = examine(Disk(str(path)), DiskPolicy())
    assert (plan.mark, [layer.replay for layer in plan.layers]) == ("dirty", [True])
    assert path.read_bytes() == image


def test_a_log_that_cannot_be_replayed_is_an_error_in_time(
    made: Callable[[Kind], bytes], tmp_path: Path
) -> None:
    image = bytearray(made(KINDS[4]))
    leave_log(image)
    (tmp_path / "a.vhdx").write_bytes(image)
    with (
        (tmp_path / "a.vhdx").open("rb") as stream,
        (tmp_path / "overlay").open("w+b") as overlay,
        pytest.raises(PreflightError),
    ):
        replay_log(stream.fileno(), QemuImgLimits(), 512, len(image), overlay.fileno())


class TestExtents:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "vm").mkdir()
        for name in ("a-flat.vmdk", "other.img"):
            (tmp_path / "vm" / name).write_bytes(bytes(1 << 20))
        (tmp_path / "secret.img").write_bytes(bytes(1 << 20))
        return tmp_path / "vm"

    def describe(self, folder: Path, *extents: str, more: str = "") -> Path:
        lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff", more]
        path = folder / "a.vmdk"
        path.write_text("\n".join([*lines, 'createType="monolithicFlat"', *extents, ""]))
        return path

    def test_are_named_in_the_plan(self, folder: Path) -> None:
        extents = ('RW 1024 FLAT "a-flat.vmdk" 1024', 'RW 2048 FLAT "other.img" 0')
        plan = examine(Disk(str(self.describe(folder, *extents))), DiskPolicy())
        assert plan.extent_files == (str(folder / "a-flat.vmdk"), str(folder / "other.img"))
        assert plan.virtual_size == 3072 * 512

    def test_count_for_the_identity(self, folder: Path) -> None:
        path = self.describe(folder, 'RW 2048 FLAT "a-flat.vmdk" 0')
        before = examine(Disk(str(path)), DiskPolicy()).identity
        (folder / "a-flat.vmdk").write_bytes(bytes(2 << 20))
        assert examine(Disk(str(path)), DiskPolicy()).identity not in (None, before)

    @pytest.mark.parametrize(
        "name",
        ["/etc/shadow", "../secret.img", "link.img", "/dev/null", "/proc/self/environ", "..", "/"],
    )
    def test_out_of_bounds_are_refused(self, folder: Path, name: str) -> None:
        (folder / "link.img").symlink_to(folder.parent / "secret.img")
        assert "outside the allowed directories" in refusal(
            self.describe(folder, f'RW 2048 FLAT "{name}" 0')
        )

    @pytest.mark.parametrize(
        "name", ["nbd:192.0.2.1:1", "http://192.0.2.1/a", "json:{}", "fat:rw:.", "file:other.img"]
    )
    def test_are_plain_paths(self, folder: Path, name: str) -> None:
        assert "not a plain path" in refusal(self.describe(folder, f'RW 2048 FLAT "{name}" 0'))

    def test_may_lie_in_allowed_directories(self, folder: Path) -> None:
        path = self.describe(folder, 'RW 2048 FLAT "../secret.img" 0')
        policy = DiskPolicy(allowed_directories=(str(folder.parent),))
        assert len(examine(Disk(str(path)), policy).extent_files) == 1

    @pytest.mark.parametrize(
        ("extent", "message"),
        [
            ('RW 2049 FLAT "a-flat.vmdk" 0', "as an extent it holds"),
            ('RW 2048 FLAT "a-flat.vmdk" 1', "as an extent it holds"),
            ('RW 2048 SPARSE "a-flat.vmdk"', "no header and no descriptor"),
            ('RW 2048 SPARSE "a.vmdk"', "itself in several files"),
            ('RW 2048 FLAT "gone.vmdk" 0', "cannot be opened"),
            ("RW 2048 ZERO", "an extent of the kind RW ZERO"),
            ('RW 2048 VMFSSPARSE "a-flat.vmdk"', "an extent of the kind RW VMFSSPARSE"),
            ('NOACCESS 2048 FLAT "a-flat.vmdk" 0', "an extent of the kind NOACCESS"),
            ("", "a descriptor without extents"),
        ],
    )
    def test_that_cannot_be_read_are_refused(self, folder: Path, extent: str, message: str) -> None:
        assert message in refusal(self.describe(folder, extent))

    def test_are_limited_in_number(self, folder: Path) -> None:
        extents = ['RW 1 FLAT "a-flat.vmdk" 0'] * 257
        assert "a disk in 257 files" in refusal(self.describe(folder, *extents))

    def test_may_not_be_fifos(self, folder: Path) -> None:
        os.mkfifo(folder / "fifo")
        assert "neither a regular file" in refusal(self.describe(folder, 'RW 2048 FLAT "fifo" 0'))

    @pytest.mark.parametrize("hint", ["/etc/shadow", "../secret.img"])
    def test_parents_out_of_bounds_are_refused(self, folder: Path, hint: str) -> None:
        path = self.describe(folder, 'RW 2048 FLAT "a-flat.vmdk" 0')
        text = path.read_text().replace("parentCID=ffffffff", "parentCID=00000001")
        path.write_text(text + f'parentFileNameHint="{hint}"\n')
        assert "outside the allowed directories" in refusal(path)

    def test_a_circle_of_parents_is_refused(self, folder: Path) -> None:
        path = self.describe(folder, 'RW 2048 FLAT "a-flat.vmdk" 0')
        text = path.read_text().replace("parentCID=ffffffff", "parentCID=00000001")
        path.write_text(text + 'parentFileNameHint="a.vmdk"\n')
        assert "circle" in refusal(path)

    def test_of_a_disk_named_as_raw_are_not_looked_for(self, folder: Path) -> None:
        path = self.describe(folder, 'RW 2048 FLAT "/etc/shadow" 0')
        path.rename(folder / "a.img")
        assert "refers to another file" in refusal(folder / "a.img")
        assert examine(Disk(str(folder / "a.img"), "raw"), DiskPolicy()).extent_files == ()


@given(names=st.lists(st.integers(10, 10_000), min_size=1, max_size=5))
def test_a_descriptor_of_ours_names_what_it_is_told_and_nothing_of_the_image(
    names: list[int],
) -> None:
    extents = [ExtentReference("FLAT", 100, b'x"\n/etc/shadow', 7) for _ in names]
    paths = [f"/dev/fdset/{name}" for name in names]
    text = vmdk.describe(extents, (1, 0xFFFF_FFFF), paths)
    assert b"shadow" not in text
    image = vmdk.FORMAT.read_image(
        lambda at, size: text[at : at + size], len(text), time.monotonic()
    )
    assert [extent.file.decode() for extent in image.extents] == paths
    assert image.cid == (1, 0xFFFF_FFFF)


def test_an_overlay_may_name_its_backing_format_as_qemu_does(tmp_path: Path) -> None:
    for command in ("-f vpc base.vhd 8M", "-f qcow2 -b base.vhd -F vpc top.qcow2"):
        subprocess.run(["qemu-img", "create", "-q", *command.split()], check=True, cwd=tmp_path)
    plan = examine(Disk(str(tmp_path / "top.qcow2")), DiskPolicy())
    assert [layer.driver for layer in plan.layers] == ["qcow2", "vpc"]


def test_a_vmdk_over_another_is_a_chain(tmp_path: Path) -> None:
    for name, parent in (("base.vmdk", None), ("top.vmdk", "base.vmdk")):
        backing = ["-b", parent, "-F", "vmdk"] if parent else []
        size = [] if parent else ["1M"]
        command = ["qemu-img", "create", "-q", "-f", "vmdk", *backing, name, *size]
        subprocess.run(command, check=True, cwd=tmp_path)
    plan = examine(Disk(str(tmp_path / "top.vmdk")), DiskPolicy())
    assert isinstance(plan, DiskPlan)
    assert plan.backing_chain == (str(tmp_path / "base.vmdk"),)
