"""Differencing images: found, checked, and read by QEMU to the sector as they were made."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPlan, DiskPolicy, examine, mapped, referred_files
from fleetscan.scanner.preflight.image import DiskStretch, block_runs
from fleetscan.scanner.preflight.opening import open_disk
from fleetscan.scanner.sources import find_machines
from tests.disk_images import Content, differencing, differencing_vhd, differencing_vhdx

MEBIBYTE = 1 << 20
SIZE = 10 * MEBIBYTE + 5 * 512
BASES = {
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "vhd fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", "subformat=dynamic,block_size=1048576"),
    "vdi": ("vdi", "static=off"),
    "vdi static": ("vdi", "static=on"),
}


@dataclass(frozen=True)
class Contents:
    """What the images of a chain show."""

    base: bytes
    middle: bytes
    top: bytes


def overwritten(content: bytes, chance: random.Random) -> bytes:
    """The same with stretches of odd lengths at odd places written over."""
    changed = bytearray(content)
    for _ in range(60):
        start = chance.randrange(len(content) // 512)
        count = min(chance.randrange(1, 40), len(content) // 512 - start)
        changed[start * 512 : (start + count) * 512] = chance.randbytes(count * 512)
    return bytes(changed)


@pytest.fixture(scope="module")
def contents() -> Contents:
    chance = random.Random(7)  # noqa: S311 - to be the same each time
    base = chance.randbytes(4 * MEBIBYTE) + bytes(MEBIBYTE) + chance.randbytes(4 * MEBIBYTE)
    base += bytes(SIZE - len(base))
    middle = bytearray(overwritten(base, chance))
    middle[2 * MEBIBYTE : 3 * MEBIBYTE] = chance.randbytes(MEBIBYTE)
    top = bytearray(overwritten(bytes(middle), chance))
    top[6 * MEBIBYTE : 7 * MEBIBYTE] = bytes(MEBIBYTE)  # which was data below
    return Contents(base, bytes(middle), bytes(top))


def chain(folder: Path, kind: str, contents: Contents) -> Path:
    """Three images on each other; the last one's path."""
    (folder / "disk").write_bytes(contents.base)
    suffix = kind.partition(" ")[0]
    paths = [folder / f"{name}.{suffix}" for name in ("base", "middle", "top")]
    driver, options = BASES[kind]
    command = ["qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options]
    subprocess.run([*command, str(folder / "disk"), str(paths[0])], check=True)
    (folder / "disk").unlink()
    for below, path, content in (
        (paths[0], paths[1], Content(contents.middle, contents.base)),
        (paths[1], paths[2], Content(contents.top, contents.middle)),
    ):
        differencing(path, content, below)
    return paths[2]


def as_qemu_reads(plan: DiskPlan, work: Path) -> bytes:
    """A disk's content, by qemu-img and the layers as QEMU is given them."""
    options, inherited = [], list[int]()
    with contextlib.ExitStack() as stack:
        for depth, layer in enumerate(open_disk(plan, stack)):
            names = [f"/proc/self/fd/{descriptor}" for descriptor in layer.descriptors]
            inherited += layer.descriptors
            assert layer.describe is not None
            described = work / f"{depth}.descriptor"
            described.write_bytes(layer.describe(names))
            prefix = "backing." * depth
            options += [f"{prefix}driver=vmdk"]
            inner = "file.file" if layer.joined else "file"
            options += [f"{prefix}file.driver=vmdk"] if layer.joined else []
            options += [f"{prefix}{inner}.driver=file", f"{prefix}{inner}.filename={described}"]
        target = work / "read"
        command = ["qemu-img", "convert", "-U", "-O", "raw", "--image-opts", ",".join(options)]
        subprocess.run([*command, str(target)], check=True, pass_fds=inherited)
    return target.read_bytes()


@pytest.mark.parametrize("kind", BASES)
def test_a_chain_is_read_to_the_sector_as_it_was_made(
    kind: str, contents: Contents, tmp_path: Path
) -> None:
    top = chain(tmp_path, kind, contents)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    plan = examine(Disk(str(top)), DiskPolicy())
    assert [Path(path).stem for path in plan.backing_chain] == ["middle", "base"]
    assert (plan.layers[0].format, plan.virtual_size) == (kind.partition(" ")[0], SIZE)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "work").mkdir()
    assert as_qemu_reads(plan, tmp_path / "work") == contents.top


# -- Which file is the parent ------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A small image and its parent, in a folder each."""

    child: Path
    parent: Path


@pytest.fixture(params=["vhd", "vhdx", "vdi"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    suffix, (driver, options) = request.param, BASES[request.param]
    for name in ("above", "below"):
        (tmp_path / name).mkdir()
    parent, child = tmp_path / f"below/base.{suffix}", tmp_path / f"above/child.{suffix}"
    create = ["qemu-img", "create", "-q", "-f", driver, "-o", options, str(parent), "4M"]
    subprocess.run(create, check=True)
    content = Content(b"x" * 512 + bytes(4 * MEBIBYTE - 512), bytes(4 * MEBIBYTE))
    differencing(child, content, parent, f"../below/base.{suffix}")
    return Pair(child, parent)


def refusal(pair: Pair, *allowed: Path) -> PreflightError:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(pair.child)), DiskPolicy(tuple(str(folder) for folder in allowed)))
    return caught.value


def test_a_parent_is_found_only_where_it_may_lie(pair: Pair) -> None:
    error = refusal(pair)
    assert "--allow-dir" in error.hint
    plan = examine(Disk(str(pair.child)), DiskPolicy((str(pair.parent.parent),)))
    assert plan.backing_chain == (str(pair.parent),)


def test_a_link_to_a_parent_out_of_bounds_is_not_followed(pair: Pair) -> None:
    (pair.child.parent / pair.parent.name).symlink_to(pair.parent)
    assert "--allow-dir" in refusal(pair).hint


def test_another_image_in_the_parents_place_is_refused(pair: Pair) -> None:
    command = ["qemu-img", "create", "-q", "-f", BASES[pair.parent.suffix[1:]][0]]
    subprocess.run([*command, str(pair.parent), "4M"], check=True)
    reasons = ("which is not the image it was made from", "which is missing")
    assert any(reason in str(refusal(pair, pair.parent.parent)) for reason in reasons)


def test_a_missing_parent_is_named(pair: Pair) -> None:
    pair.parent.unlink()
    assert "which is missing" in str(refusal(pair, pair.parent.parent))


def test_an_image_that_is_its_own_parent_is_refused(pair: Pair) -> None:
    image = bytearray(pair.child.read_bytes())
    if pair.child.suffix == ".vdi":
        image[0x188:0x198] = image[0x1A8:0x1B8]
    elif pair.child.suffix == ".vhd":
        linked = bytes(image[512 + 40 : 512 + 56])
        for start in (0, len(image) - 512):
            image[start + 68 : start + 84] = linked
            image[start + 64 : start + 68] = bytes(4)
            total = ~sum(image[start : start + 512]) & 0xFFFF_FFFF
            image[start + 64 : start + 68] = total.to_bytes(4, "big")
    else:
        (identity,) = {pair.parent.read_bytes()[at:][:16] for at in newest(pair.parent)}
        for at in newest(pair.child):
            image[at : at + 16] = identity
    pair.child.write_bytes(image)
    pair.parent.unlink()
    pair.parent.symlink_to(pair.child)
    assert "the chain is a circle" in str(refusal(pair, pair.parent.parent))


def newest(path: Path) -> list[int]:
    """Where the content's identity stands in the header of a vhdx that counts."""
    data = path.read_bytes()
    numbers = {int.from_bytes(data[at + 8 : at + 16], "little"): at for at in (1 << 16, 1 << 17)}
    return [numbers[max(numbers)] + 32]


def test_in_a_folder_the_last_image_is_the_machine(contents: Contents, tmp_path: Path) -> None:
    for kind in ("vhd", "vhdx", "vdi"):
        (tmp_path / kind).mkdir()
        chain(tmp_path / kind, kind, contents)
    found = [machine.machine_id for machine in find_machines([str(tmp_path)])]
    assert found == ["vdi/top.vdi", "vhd/top.vhd", "vhdx/top.vhdx"]


def test_virtualbox_snapshots_lie_one_folder_deeper(pair: Pair) -> None:
    if pair.parent.suffix == ".vdi":
        shutil.move(pair.parent, pair.child.parent.parent / "base.vdi")
        assert referred_files(Disk(str(pair.child))) == (
            str(pair.child.parent.parent / "base.vdi"),
        )
    else:
        assert referred_files(Disk(str(pair.child))) == (str(pair.parent),)


def test_names_of_other_hosts_lead_to_files_beside_the_image(tmp_path: Path) -> None:
    parent = tmp_path / "base.vhd"
    create = ["qemu-img", "create", "-q", "-f", "vpc", str(parent), "4M"]
    subprocess.run(create, check=True)
    content = Content(b"x" * 512 + bytes(4 * MEBIBYTE - 512), bytes(4 * MEBIBYTE))
    child = differencing_vhd(tmp_path / "child.vhd", content, parent, r"C:\Disks\base.vhd")
    parent.rename(tmp_path / "elsewhere.vhd")  # the name that its header has
    plan = examine(Disk(str(child)), DiskPolicy())
    assert plan.backing_chain == (str(tmp_path / "elsewhere.vhd"),)


def test_a_vhdx_with_a_log_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "base.vhdx"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vhdx", str(parent), "4M"], check=True)
    content = Content(b"x" * 512 + bytes(4 * MEBIBYTE - 512), bytes(4 * MEBIBYTE))
    child = differencing_vhdx(tmp_path / "child.vhdx", content, parent, "base.vhdx")
    image = bytearray(child.read_bytes())
    (at,) = newest(child)
    image[at + 16 : at + 32] = b"l" * 16
    child.write_bytes(image)
    with pytest.raises(PreflightError, match="log to be replayed"):
        examine(Disk(str(child)), DiskPolicy())


# -- Hostile images ----------------------------------------------------------------------------


@given(st.sets(st.integers(0, 9000)), st.integers(1, 9000))
def test_runs_are_the_sectors_of_the_bitmap(stored: set[int], sectors: int) -> None:
    bits = bytearray(-(-9001 // 8))
    for sector in stored:
        bits[sector // 8] |= 1 << sector % 8
    found = [
        (run.start + number, (run.place or 0) + number)
        for run in block_runs(100, sectors, 500, bytes(bits))
        for number in range(run.sectors)
    ]
    wanted = sorted(sector for sector in stored if sector < sectors)
    assert found == [(100 + sector, 500 + sector) for sector in wanted]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_images_are_opened_or_refused(pair: Pair, data: st.DataObject) -> None:
    image = bytearray(pair.child.read_bytes())
    whole = bytes(image)
    end = len(image) - 1
    metadata = st.integers(0, 4096) | st.integers(1 << 16, 1 << 18) | st.integers(1 << 21, 1 << 22)
    for _ in range(data.draw(st.integers(1, 4))):
        at = min(data.draw(metadata), end - 8)
        length = data.draw(st.sampled_from([1, 2, 4, 8]))
        image[at : at + length] = data.draw(st.binary(min_size=length, max_size=length))
    if data.draw(st.booleans()):
        del image[data.draw(st.integers(512, end)) // 512 * 512 :]
    pair.child.write_bytes(image)
    try:
        with contextlib.suppress(PreflightError), contextlib.ExitStack() as stack:
            plan = examine(Disk(str(pair.child)), DiskPolicy((str(pair.parent.parent),)))
            open_disk(plan, stack)
    finally:
        pair.child.write_bytes(whole)


def spread(step: int, size: int) -> Callable[[], list[DiskStretch]]:
    return lambda: [DiskStretch(start, 1, start) for start in range(1, size, step)]


def test_differences_that_would_take_too_large_tables_are_refused() -> None:
    size = 1 << 40
    with pytest.raises(PreflightError, match="too finely spread"):
        mapped.head(size, size, (1, 2), lambda: iter(spread(1 << 14, size >> 9)()))


def test_data_beyond_the_file_is_refused() -> None:
    with pytest.raises(PreflightError, match="beyond the end"):
        mapped.head(MEBIBYTE, MEBIBYTE, (1, 2), lambda: iter([DiskStretch(0, 8, 2041)]))
