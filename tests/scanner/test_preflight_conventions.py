"""What every disk image format keeps to, whoever adds it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner import preflight
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, examine
from fleetscan.scanner.preflight.deciding import FORMATS, format_of
from fleetscan.scanner.preflight.disk_format import DifferencingFormat, DiskFormat, KnownFormat
from fleetscan.scanner.preflight.formats import load_formats
from fleetscan.scanner.tables import load_tables


def test_each_format_has_its_line_in_the_documentation() -> None:
    text = (Path(preflight.__file__).parent / "README.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == list(FORMATS)


def test_each_format_can_be_told_in_the_disks_table() -> None:
    column = next(column for column in load_tables()["disks"].columns if column.name == "format")
    assert sorted(column.values) == list(FORMATS)


def test_each_formats_driver_is_one_of_qemus() -> None:
    told = subprocess.run(["qemu-img", "--help"], capture_output=True, text=True, check=True).stdout
    drivers = told.partition("Supported formats:")[2].split()
    assert {format_of(name).driver for name in FORMATS} <= set(drivers)


def test_no_two_formats_claim_the_same() -> None:
    known = load_formats().values()
    for claims in (
        [suffix for one in known for suffix in one.suffixes],
        [name for one in known for name in (one.name, *one.aliases)],
        [magic for one in known for magic in one.magics],
    ):
        assert len(claims) == len(set(claims))
        assert claims


@pytest.mark.parametrize("known", load_formats().values(), ids=lambda known: known.name)
class TestConventions:
    def test_its_suffixes_are_in_lower_case(self, known: KnownFormat) -> None:
        assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in known.suffixes)

    def test_what_has_a_magic_alone_is_refused_and_never_raw(
        self, known: KnownFormat, tmp_path: Path
    ) -> None:
        for offset, magic in known.magics:
            content = bytearray(1 << 20)
            place = offset % len(content)
            content[place : place + len(magic)] = magic
            (tmp_path / "a.img").write_bytes(content)
            with pytest.raises(PreflightError):
                examine(Disk(str(tmp_path / "a.img")), DiskPolicy())


def questions(asked: DiskFormat, content: bytes) -> Iterator[Callable[[], object]]:
    """All that preflight asks of a file, of a format."""

    def read(offset: int, length: int) -> bytes:
        return content[max(0, offset) : max(0, offset) + length]

    size, deadline = len(content), time.monotonic() + 5
    yield lambda: asked.read_image(read, size, deadline)
    yield lambda: asked.references(read, size)
    yield lambda: asked.read_parent(read, size)
    if isinstance(asked, DifferencingFormat):
        yield lambda: asked.identity(read, size)
        yield lambda: list(asked.runs(read, size, deadline))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_whatever_a_file_holds_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    asked = format_of(name)
    begin = data.draw(st.sampled_from([b"", *(magic for at, magic in asked.magics if not at)]))
    for question in questions(asked, begin + data.draw(st.binary(max_size=2048))):
        with contextlib.suppress(PreflightError):
            question()
