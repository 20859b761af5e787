"""Tables of qcow2 images that lead into each other, to themselves, or nowhere."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, examine, qcow2_tables
from fleetscan.scanner.preflight.formats.qcow2 import parse_header, tables_of
from fleetscan.scanner.preflight.image import Read
from fleetscan.scanner.preflight.qcow2_tables import COMPRESSED, OFFSET, Qcow2Tables

COPIED = 1 << 63
SIZE = 2 << 20
OPTIONS = ["cluster_size=512", "cluster_size=65536", "cluster_size=16k,extended_l2=on"]


@dataclass
class Image:
    """An image in memory whose entries can be set, all numbers as QEMU's format has them."""

    content: bytearray

    @property
    def tables(self) -> Qcow2Tables:
        return tables_of(parse_header(self.read, len(self.content)))

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def get(self, place: int) -> int:
        return int.from_bytes(self.read(place, 8)) & OFFSET

    def set(self, place: int, entry: int) -> None:
        self.content[place : place + 8] = entry.to_bytes(8)

    def l2(self, index: int) -> int:
        """Where an L2 table lies, of those that there are."""
        start, length = self.tables.l1
        return [table for at in range(start, start + length, 8) if (table := self.get(at))][index]

    def check(self) -> None:
        qcow2_tables.check(self.read, len(self.content), self.tables, seconds=5)


def full_image(folder: Path, *options: str) -> Image:
    path = folder / "a.qcow2"
    (folder / "disk").write_bytes(b"x" * SIZE)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options]
    subprocess.run([*convert, str(folder / "disk"), str(path)], check=True)
    return Image(bytearray(path.read_bytes()))


@pytest.fixture(scope="module", params=OPTIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return full_image(tmp_path_factory.mktemp("made"), "-o", request.param)


@pytest.fixture
def image(made: Image) -> Image:
    return replace(made, content=bytearray(made.content))


PLACES: dict[str, Callable[[Image], int]] = {
    "the L1 table": lambda image: image.tables.l1[0],
    "the refcount table": lambda image: image.tables.reftable[0],
    "a refcount block": lambda image: image.get(image.tables.reftable[0]),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
class TestAPlaceThatIsTaken:
    def test_is_no_l2_table(
        self, image: Image, place: Callable[[Image], int], tmp_path: Path
    ) -> None:
        image.set(image.tables.l1[0], place(image) | COPIED)
        assert "two of its tables overlap" in self.refused(image, tmp_path)

    def test_is_no_data(self, image: Image, place: Callable[[Image], int], tmp_path: Path) -> None:
        image.set(image.l2(0), place(image) | COPIED)
        assert "data overlaps its tables" in self.refused(image, tmp_path)

    def test_is_no_compressed_data(
        self, image: Image, place: Callable[[Image], int], tmp_path: Path
    ) -> None:
        image.set(image.l2(0), place(image) + 7 | COMPRESSED)
        assert "data overlaps its tables" in self.refused(image, tmp_path)

    def refused(self, image: Image, folder: Path) -> str:
        """What preflight says of an image, which QEMU calls corrupt as well."""
        path = folder / "a.qcow2"
        path.write_bytes(image.content)
        with pytest.raises(PreflightError, match="corrupt qcow2 image") as caught:
            examine(Disk(str(path)), DiskPolicy())
        assert "qemu-img check" in caught.value.hint
        done = subprocess.run(["qemu-img", "check", str(path)], capture_output=True, check=False)
        assert done.returncode in (1, 2)
        return str(caught.value)


def test_an_l2_table_that_leads_to_itself_is_corrupt(image: Image) -> None:
    table = image.l2(0)
    for at in range(table, table + image.tables.cluster_size, 8):
        image.set(at, table | COPIED)
    with pytest.raises(PreflightError, match=r"corrupt.* data overlaps its tables"):
        image.check()


def test_one_l2_table_for_two_stretches_of_the_disk_is_corrupt(tmp_path: Path) -> None:
    image = full_image(tmp_path, "-o", "cluster_size=512")
    start, _ = image.tables.l1
    image.set(start + 8, image.get(start))
    with pytest.raises(PreflightError, match=r"corrupt.* two of its tables"):
        image.check()


def test_data_in_another_l2_table_is_corrupt(tmp_path: Path) -> None:
    image = full_image(tmp_path, "-o", "cluster_size=512")
    image.set(image.l2(0) + 24, image.l2(5) | COPIED)
    with pytest.raises(PreflightError, match=r"corrupt.* data overlaps its tables"):
        image.check()


def test_compressed_data_in_the_header_is_corrupt(image: Image) -> None:
    image.set(image.l2(0), 100 | COMPRESSED)
    with pytest.raises(PreflightError, match=r"corrupt.* data overlaps its tables"):
        image.check()


def test_what_does_not_begin_with_a_cluster_is_corrupt(image: Image) -> None:
    if image.tables.cluster_size == 512:
        return  # there is no other place in such an image
    broken = replace(image, content=bytearray(image.content))
    broken.set(broken.l2(0), image.get(image.l2(0)) + 512)
    with pytest.raises(PreflightError, match=r"corrupt.* data does not begin with a cluster"):
        broken.check()
    image.set(image.tables.l1[0], image.l2(0) + 512)
    with pytest.raises(PreflightError, match=r"corrupt.* an L2 table does not begin"):
        image.check()


@pytest.mark.parametrize("flag", [COPIED, COMPRESSED, 0])
def test_data_beyond_the_end_is_truncated_whatever_refcounts_say(image: Image, flag: int) -> None:
    image.set(image.l2(0), len(image.content) + (1 << 20) | flag)
    with pytest.raises(PreflightError, match="truncated"):
        image.check()


@pytest.mark.parametrize("options", [("-c",), ("-c", "-o", "cluster_size=512"), ()])
def test_a_sound_image_stays_one(tmp_path: Path, options: tuple[str, ...]) -> None:
    full_image(tmp_path, *options).check()


@settings(max_examples=150, deadline=2000)
@given(data=st.data())
def test_any_entry_anywhere_is_read_or_refused(made: Image, data: st.DataObject) -> None:
    image = replace(made, content=bytearray(made.content))
    size = image.tables.cluster_size
    places = [0, size, 2 * size, 3 * size, 7 * size, 1 << 40, COMPRESSED, COMPRESSED | 9, OFFSET]
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(size // 8, len(image.content) // 8 - 1)) * 8
        entry = data.draw(st.sampled_from(places))
        image.set(place, entry | data.draw(st.sampled_from([0, COPIED])))
    with contextlib.suppress(PreflightError):
        image.check()


def huge(entry: Callable[[int], int]) -> tuple[Read, Qcow2Tables]:
    """An L1 table of 32 MiB in a sparse file, each of its entries another L2 table.

    Args:
        entry: of the L2 table that lies at a place, all alike.
    """
    bits, tables_at = 21, 1 << 45
    start = 1 << bits

    def read(offset: int, length: int) -> bytes:
        if offset >= tables_at:
            return entry(offset).to_bytes(8) * (length // 8)
        if not start <= offset < start + (32 << 20):
            return bytes(length)
        first = tables_at + ((offset - start) // 8 << bits)
        count = length // 8
        return struct.pack(f">{count}Q", *range(first, first + (count << bits), 1 << bits))

    reftable = (1 << 30, 1 << bits)
    return read, Qcow2Tables(bits, (start, 32 << 20), reftable, 16, extended=False, stale=True)


def test_a_loop_in_tables_as_large_as_allowed_is_found_soon() -> None:
    read, tables = huge(lambda offset: offset)
    begun = time.monotonic()
    with pytest.raises(PreflightError, match="data overlaps its tables"):
        qcow2_tables.check(read, 1 << 62, tables, seconds=60)
    assert time.monotonic() - begun < 30  # 1.5 s on an idle host


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import qcow2_tables
from tests.scanner.test_preflight_qcow2_tables import huge
read, tables = huge(lambda offset: 0)
try:
    qcow2_tables.check(read, 1 << 62, tables, seconds=1)
except PreflightError as error:
    print(error)
"""


def test_tables_as_large_as_allowed_cost_bounded_time_and_memory() -> None:
    argv = [sys.executable, "-c", LIMITED]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "its tables are damaged and take too long to check\n"
