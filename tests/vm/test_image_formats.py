"""One system in every image format, through a real appliance: the facts are those of its twin."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from scanner.inspect import InspectOptions, inspect_machine
from scanner.sources import find_machines
from scanner.store.staging import MemorySink
from tests.vm.machines import checksum, image_of, small_system
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


def scanned(path: Path) -> Tables:
    """A source's only machine, its disks' own rows aside, which tell of the format."""
    (machine,) = find_machines([str(path)])
    sink = MemorySink()
    summary = inspect_machine(machine, InspectOptions(), sink)
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
