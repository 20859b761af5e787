"""The example guests as machines to measure, and overlays of them as a fleet."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.build_fleet import default_directory
from examples.builder.images import SETS
from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources.base import Machine


@dataclass(frozen=True)
class Guest:
    """An example guest that has been built.

    Attributes:
        name: as the examples call it.
        disks: its disk files.
        format: ``raw`` or ``qcow2``, the same for all of them.
    """

    name: str
    disks: tuple[Path, ...]
    format: str

    def machine(self) -> Machine:
        """The guest, as a source would name it."""
        disks = tuple(Disk(str(path), self.format) for path in self.disks)
        return Machine(self.name, disks, "example guest")


def find(name: str) -> Guest:
    """The example guest of this name.

    Raises:
        UsageError: there is none, or it has not been built.
    """
    for folder, images in SETS.items():
        for image in images:
            if image.name == name:
                top = default_directory() / folder
                disks = tuple(top.absolute() / disk.file for disk in image.disks)
                if missing := [disk for disk in disks if not disk.exists()]:
                    raise UsageError(f"{missing[0]} has not been built")
                return Guest(name, disks, image.disks[0].format)
    raise UsageError(f"no example guest is called {name}")


def make_fleet(guests: Sequence[Guest], count: int, folder: Path) -> None:
    """Fill a folder with machines: overlays of the guests, in turn.

    Args:
        guests: what they are copies of.
        count: how many.
        folder: where; a machine of several disks gets a sub-folder there.
    """
    for number in range(count):
        guest = guests[number % len(guests)]
        name = f"{number:04d}-{guest.name}"
        if len(guest.disks) == 1:
            _overlay(guest.disks[0], guest.format, folder / f"{name}.qcow2")
            continue
        place = folder / name
        place.mkdir()
        files = [f"disk{index}.qcow2" for index in range(len(guest.disks))]
        for disk, file in zip(guest.disks, files, strict=True):
            _overlay(disk, guest.format, place / file)
        (place / "machine.yaml").write_text("disks:\n" + "".join(f"  - {file}\n" for file in files))


def _overlay(base: Path, base_format: str, path: Path) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", base_format]
    subprocess.run([*command, str(path)], check=True)
