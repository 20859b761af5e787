"""One system in every image format, through a real appliance: the facts are those of its twin."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.preflight import DiskPolicy, examine
from fleetscan.scanner.preflight.opening import open_disk
from fleetscan.scanner.sources import Machine, find_machines
from fleetscan.scanner.sources.volume_keys import KeySource
from fleetscan.scanner.store.staging import MemorySink
from tests.disk_images import Content, archive, differencing, gpt_disk, leave_log
from tests.vm.machines import checksum, image_of, prepared, small_system, soon
from tests.vm.ordinary import Tables, tables_of

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Kind:
    """An image format and how ``qemu-img convert`` makes it."""

    file: str
    format: str
    options: str = ""

    @property
    def id(self) -> str:
        """For test names."""
        return f"{self.format} {self.options or 'as it comes'}"


KINDS = [
    Kind("a.qcow2", "qcow2"),
    Kind("a.qcow2", "qcow2", "compat=0.10"),
    Kind("a.qcow2", "qcow2", "extended_l2=on"),
    Kind("a.qcow2", "qcow2", "compression_type=zstd"),
    Kind("a.vmdk", "vmdk", "subformat=monolithicSparse"),
    Kind("a.vmdk", "vmdk", "subformat=streamOptimized"),
    Kind("a.vmdk", "vmdk", "subformat=monolithicFlat"),
    Kind("a.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
    Kind("a.vmdk", "vmdk", "subformat=twoGbMaxExtentFlat"),
    Kind("a.vhd", "vpc", "subformat=dynamic,force_size=on"),
    Kind("a.vhd", "vpc", "subformat=fixed,force_size=on"),
    Kind("a.vhdx", "vhdx", "subformat=dynamic"),
    Kind("a.vhdx", "vhdx", "subformat=fixed"),
    Kind("a.vdi", "vdi", "static=off"),
    Kind("a.vdi", "vdi", "static=on"),
    Kind("a.hdd", "parallels"),
    Kind("a.iso", "raw"),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("system")
    (folder / "tree").mkdir()
    return image_of(small_system(folder / "tree"), folder / "a.raw")


@pytest.fixture(scope="module")
def twin(system: Path) -> Tables:
    """What is found in the raw image."""
    return scanned(system)


def scanned(path: Path, *keys: KeySource) -> Tables:
    """A source's only machine, its disks' own rows aside, which tell of the format."""
    (machine,) = find_machines([str(path)])
    sink = MemorySink()
    summary = inspect_machine(machine, ScanOptions.of(keys=keys), sink)
    assert (summary.outcome, summary.error) == ("ok", None)
    found = tables_of(sink)
    assert {row["error"] for row in found["disks"]} == {"None"}
    return {
        name: [{k: v for k, v in row.items() if k != "machine_id"} for row in rows]
        for name, rows in found.items()
        if name != "disks"
    }


def convert(source: Path, target: Path, kind: Kind) -> None:
    options = ["-o", kind.options] if kind.options else []
    compress = ["-c"] if "compression_type" in kind.options else []
    command = ["qemu-img", "convert", "-O", kind.format, *compress, *options]
    subprocess.run([*command, str(source), str(target)], check=True, timeout=120)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_the_facts_are_those_of_the_raw_twin_and_no_file_changes(
    kind: Kind, system: Path, twin: Tables, tmp_path: Path
) -> None:
    image = tmp_path / kind.file
    convert(system, image, kind)
    before = {path: checksum(path) for path in tmp_path.iterdir()}
    assert scanned(tmp_path) == twin
    assert {path: checksum(path) for path in tmp_path.iterdir()} == before


def rows_of(path: Path, table: str) -> list[dict[str, Any]]:
    """A source's rows of one table."""
    (machine,) = find_machines([str(path)])
    sink = MemorySink()
    inspect_machine(machine, ScanOptions.of(files="none"), sink)
    return sink.table(table).to_pylist()


def test_a_vmdk_is_read_through_its_parents(system: Path, twin: Tables, tmp_path: Path) -> None:
    convert(system, tmp_path / "base.vmdk", KINDS[7])  # in several files
    for name, parent in (("middle.vmdk", "base.vmdk"), ("top.vmdk", "middle.vmdk")):
        command = ["qemu-img", "create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", name]
        subprocess.run(command, check=True, cwd=tmp_path)
    assert scanned(tmp_path) == twin
    (row,) = rows_of(tmp_path, "disks")
    chain = [Path(path).name for path in row["backing_chain"]]
    assert (chain, len(row["extents"])) == (["middle.vmdk", "base.vmdk"], 1)


@pytest.mark.parametrize("kind", [KINDS[number] for number in (9, 10, 11, 13)], ids=str)
def test_a_differencing_image_is_read_through_its_parents(
    kind: Kind, system: Path, twin: Tables, tmp_path: Path
) -> None:
    disk = system.read_bytes()
    # Every third stretch of three sectors is the first image's, every other the second's.
    pieces = [disk[start : start + 1536] for start in range(0, len(disk), 1536)]
    middle = b"".join(
        b"\xaa" * len(part) if at % 3 == 1 else part for at, part in enumerate(pieces)
    )
    base = b"".join(b"\xbb" * len(part) if at % 3 else part for at, part in enumerate(pieces))
    names = [tmp_path / f"{name}{Path(kind.file).suffix}" for name in ("base", "middle", "top")]
    (tmp_path / "raw").write_bytes(base)
    convert(tmp_path / "raw", names[0], kind)
    (tmp_path / "raw").unlink()
    for below, path, content in (
        (names[0], names[1], Content(middle, base)),
        (names[1], names[2], Content(disk, middle)),
    ):
        differencing(path, content, below)
    before = {path: checksum(path) for path in names}
    assert scanned(tmp_path) == twin
    (row,) = rows_of(tmp_path, "disks")
    assert [Path(path) for path in row["backing_chain"]] == names[1::-1]
    assert {path: checksum(path) for path in names} == before


@pytest.mark.parametrize(
    "kind", [KINDS[number] for number in (0, 5, 9, 10, 13)], ids=lambda kind: kind.id
)
def test_an_archive_is_read_in_place(
    kind: Kind, system: Path, twin: Tables, tmp_path: Path
) -> None:
    convert(system, tmp_path / kind.file, kind)
    ova = archive(tmp_path / "web.ova", [tmp_path / kind.file])
    (tmp_path / kind.file).unlink()
    before = checksum(ova)
    assert scanned(tmp_path) == twin
    (row,) = rows_of(ova, "disks")
    assert (row["path"], row["member"]) == (str(ova), kind.file)
    assert checksum(ova) == before


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Equal systems on raw disks, by the size of the disk's sectors."""
    folder = tmp_path_factory.mktemp("partitioned")
    (folder / "tree").mkdir()
    filesystem = image_of(small_system(folder / "tree"), folder / "fs", 32, "-b", "4096")
    sizes = (512, 4096)
    return {size: gpt_disk(folder / f"{size}.raw", filesystem, size) for size in sizes}


@pytest.fixture(scope="module")
def small_sectors(partitioned: dict[int, Path]) -> Tables:
    return scanned(partitioned[512])


@pytest.mark.parametrize(
    "kind",
    [KINDS[number] for number in (0, 4, 6, 7, 9, 10, 11, 13, 15, 16)],
    ids=lambda kind: kind.id,
)
def test_a_disk_of_large_sectors_is_shown_as_one(
    kind: Kind, partitioned: dict[int, Path], small_sectors: Tables, tmp_path: Path
) -> None:
    convert(partitioned[4096], tmp_path / kind.file, kind)
    found = scanned(tmp_path)
    (partition,) = found["partitions"]
    assert partition["sector_size"] == "4096"
    partition["sector_size"] = "512"
    assert found == small_sectors
    assert [row["sector_size"] for row in rows_of(tmp_path, "disks")] == [4096]


def test_qemu_holds_the_files_of_a_split_disk_and_no_other(system: Path, tmp_path: Path) -> None:
    convert(system, tmp_path / "a.vmdk", KINDS[7])
    (tmp_path / "b.raw").write_bytes(bytes(1 << 20))
    plan = examine(Disk(str(tmp_path / "a.vmdk")), DiskPolicy())
    with prepared().clone() as machine, contextlib.ExitStack() as stack:
        before = files_of(machine.pid)
        machine.plug(0, open_disk(plan, stack), soon())
        opened = files_of(machine.pid) - before
    assert {Path(path).name for path in opened} == {
        "a-s001.vmdk",
        "memfd:fleetscan-descriptor (deleted)",
    }


def files_of(pid: int) -> set[str]:
    """What a process has open that has a name."""
    links = (str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in links if link.startswith("/")}


def test_snapshots_inside_an_image_are_facts_and_do_not_hide_its_state(
    system: Path, twin: Tables, tmp_path: Path
) -> None:
    image = tmp_path / "a.qcow2"
    convert(system, image, KINDS[0])
    subprocess.run(["qemu-img", "snapshot", "-c", "before-upgrade", str(image)], check=True)
    assert scanned(image) == twin
    (row,) = rows_of(image, "disk_snapshots")
    assert (row["disk"], row["name"], row["virtual_size"]) == (0, "before-upgrade", 32 << 20)


def test_extents_of_all_kinds_are_put_together_in_order(
    system: Path, twin: Tables, tmp_path: Path
) -> None:
    content, lines, piece = system.read_bytes(), [], 4 << 20
    for number in range(len(content) // piece):
        name = f"piece{number}"
        part = content[number * piece : (number + 1) * piece]
        if number % 2:
            before = bytes(512 * number)
            (tmp_path / f"{name}.vmdk").write_bytes(before + part)
            lines.append(f'RW {piece // 512} FLAT "{name}.vmdk" {number}')
        else:
            (tmp_path / name).write_bytes(part)
            convert(tmp_path / name, tmp_path / f"{name}.vmdk", KINDS[7])
            (tmp_path / name).unlink()
            (tmp_path / f"{name}.vmdk").unlink()  # the descriptor; its extent stays
            lines.append(f'RDONLY {piece // 512} SPARSE "{name}-s001.vmdk"')
    head = ["# Disk DescriptorFile", "version=1", "CID=00000001", "parentCID=ffffffff"]
    (tmp_path / "all.vmdk").write_text("\n".join([*head, 'createType="custom"', *lines, ""]))
    assert scanned(tmp_path) == twin


@pytest.mark.parametrize("archived", [False, True])
def test_a_vhdx_is_read_as_its_log_would_leave_it_and_stays_as_it_is(
    partitioned: dict[int, Path], small_sectors: Tables, tmp_path: Path, archived: bool
) -> None:
    path = tmp_path / "a.vhdx"
    convert(partitioned[512], path, KINDS[11])
    image = bytearray(path.read_bytes())
    place = image.index(b"small\n")  # the system's name
    leave_log(image, place // 4096 * 4096)
    path.write_bytes(image)
    if archived:
        archive(tmp_path / "a.ova", [path])
        path.unlink()
        path = tmp_path / "a.ova"
    before = checksum(path)
    found = scanned(path)
    assert [row["hostname"] for row in small_sectors["operating_systems"]] == ["small"]
    assert [row["hostname"] for row in found["operating_systems"]] == ["\0" * 6]
    assert [row["mark"] for row in rows_of(path, "disks")] == ["dirty"]
    assert checksum(path) == before


# -- Encrypted images --------------------------------------------------------------------------

PASSPHRASES = {"base.qcow2": "correct horse", "top.qcow2": "battery staple"}


@dataclass(frozen=True)
class Encrypted:
    """An encrypted image on another one, with where their keys are to be had."""

    folder: Path
    keys: dict[str, KeySource]

    @property
    def top(self) -> Path:
        """The image that a machine has."""
        return self.folder / "top.qcow2"


@pytest.fixture(scope="module")
def encrypted(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Encrypted:
    folder = tmp_path_factory.mktemp("encrypted")
    for name, passphrase in PASSPHRASES.items():
        (folder / f"{name}.key").write_text(passphrase)
    # qemu-img times the key derivation, and gives up on one too quick for the host's clock.
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    options += ",encrypt.hash-alg=sha512"
    secret = ["--object", "secret,id=key,file=base.qcow2.key"]
    convert = ["qemu-img", "convert", *secret, "-O", "qcow2", "-o", options, str(system)]
    subprocess.run([*convert, "base.qcow2"], check=True, cwd=folder)
    secret = ["--object", "secret,id=key,file=top.qcow2.key"]
    create = ["qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options, "-u"]
    below = ["-b", "base.qcow2", "-F", "qcow2"]
    subprocess.run([*create, *below, "top.qcow2", "32M"], check=True, cwd=folder)
    keys = {
        name: KeySource(luks_uuid(folder / name), "file", str(folder / f"{name}.key"))
        for name in PASSPHRASES
    }
    return Encrypted(folder, keys)


def luks_uuid(image: Path) -> str:
    """What qemu-img says of the LUKS header inside an image."""
    command = ["qemu-img", "info", "--output=json", str(image)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return str(found["format-specific"]["data"]["encrypt"]["uuid"])


def test_encrypted_images_are_read_each_with_its_own_key(
    encrypted: Encrypted, twin: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = {path: checksum(path) for path in encrypted.folder.iterdir()}
    base, top = encrypted.keys.values()
    found = scanned(encrypted.top, top, base)
    assert found == twin
    assert {path: checksum(path) for path in encrypted.folder.iterdir()} == before
    for passphrase in PASSPHRASES.values():
        assert passphrase not in caplog.text
        assert passphrase not in str(found)


def test_of_several_keys_for_everything_the_one_that_fits_is_taken(encrypted: Encrypted) -> None:
    base, top = (KeySource("all", "file", key.value) for key in encrypted.keys.values())
    sink = inspected_with(encrypted.top, base, top)
    (disk,) = sink.table("disks").to_pylist()
    assert (disk["error"], disk["encryption"], disk["format"]) == (None, "luks", "qcow2")
    assert [row["hostname"] for row in sink.table("operating_systems").to_pylist()] == ["small"]


def inspected_with(path: Path, *keys: KeySource) -> MemorySink:
    sink = MemorySink()
    machine = Machine("machine", (Disk(str(path)),), "test")
    inspect_machine(machine, ScanOptions.of(files="none", keys=keys), sink)
    return sink


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "top.qcow2': encrypted (LUKS, UUID "),
        (["top.qcow2"], "base.qcow2': encrypted (LUKS, UUID "),
        (["swapped"], "base.qcow2': encrypted (LUKS), and the key given for it does not fit"),
    ],
)
def test_without_its_key_an_encrypted_image_stays_closed_and_says_so(
    given: list[str], reason: str, encrypted: Encrypted
) -> None:
    base, top = encrypted.keys.values()
    swapped = [replace(base, value=top.value), top]
    keys = swapped if given == ["swapped"] else [encrypted.keys[name] for name in given]
    sink = inspected_with(encrypted.top, *keys)
    (disk,) = sink.table("disks").to_pylist()
    assert reason in disk["error"]
    assert (disk["device"], disk["encryption"]) == (None, "luks")
    (machine,) = sink.table("machines").to_pylist()
    assert (machine["outcome"], machine["error_kind"]) == ("failed", "LockedError")
    assert reason in machine["error"]


def test_a_machine_goes_on_without_a_disk_that_is_locked(
    encrypted: Encrypted, system: Path
) -> None:
    sink = MemorySink()
    machine = Machine("machine", (Disk(str(encrypted.top)), Disk(str(system))), "test")
    inspect_machine(machine, ScanOptions.of(files="none"), sink)
    assert [row["hostname"] for row in sink.table("operating_systems").to_pylist()] == ["small"]
    (row,) = sink.table("machines").to_pylist()
    assert (row["outcome"], "no key was given" in row["error"]) == ("partial", True)
