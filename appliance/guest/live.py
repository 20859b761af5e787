"""Live media: the system that they start is in an image file on them, such as a SquashFS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleetscan.appliance.ground.reasons import in_words
from fleetscan.appliance.guest import disks, filesystems, mapping
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.filesystems import Filesystem
from fleetscan.appliance.guest.root import Root

_MEDIA = ("iso9660", "udf", "vfat")
_MOST_IMAGES = 16
_MOST_LEVELS = 2  # Fedora's squashfs.img holds a rootfs.img
_PLACES = (
    ("live", "*.squashfs"),  # Debian
    ("casper", "*.squashfs"),  # Ubuntu
    ("LiveOS", "squashfs.img"),  # Fedora
    ("LiveOS", "rootfs.img"),
    ("arch/x86_64", "airootfs.*fs"),  # Arch: sfs or erofs
)

_FOLDERS = frozenset(folder.partition("/")[0].lower() for folder, _ in _PLACES)


@dataclass
class LiveImages:
    """Opens the image files of live media.

    Args:
        directories: where the filesystems are mounted, one after another.

    Attributes:
        opened: the filesystems in them.
        warnings: which could not be opened, a line each.
    """

    directories: Iterator[str]
    opened: list[Filesystem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def open(self, filesystem: Filesystem, level: int = 1) -> None:
        """Open the images on a filesystem, and those in them; what cannot be is a warning."""
        if filesystem.top is None or (level == 1 and filesystem.type not in _MEDIA):
            return
        with Root("", filesystem.top) as root:
            for path in images(root) if _may_hold_images(root) else ():
                name = f"{filesystem.device.path}[/{path}]"
                if level > _MOST_LEVELS or len(self.opened) >= _MOST_IMAGES:
                    self.warnings.append(
                        f"{name}: images are nested too deeply, so it is not opened"
                    )
                    return
                try:
                    inner = self._open(root, path, name, filesystem.device)
                except (OSError, ValueError) as error:
                    self.warnings.append(f"{name}: a live system's image: {in_words(error)}")
                    continue
                self.opened.append(inner)
                if inner.error:
                    self.warnings.append(f"{name}: a live system's image: {inner.error}")
                self.open(inner, level + 1)

    def holds(self, outer: Filesystem) -> bool:
        """Whether a filesystem that was opened holds another that was."""
        return any(outer.device.path in inner.device.members for inner in self.opened)

    def _open(self, root: Root, path: str, name: str, below: BlockDevice) -> Filesystem:
        with root.open(path) as image:
            size = os.fstat(image.fileno()).st_size
            place = mapping.loop(f"/proc/{os.getpid()}/fd/{image.fileno()}")
        device = BlockDevice(place, size, members=(below.path,), snapshot=below.snapshot)
        disks.probe([device])
        opened = filesystems.open_filesystem(device, next(self.directories))
        if opened.top is None and not opened.error:
            opened.error = "it contains no known filesystem"
        device.path = name
        return opened


def _may_hold_images(root: Root) -> bool:
    try:
        names = root.listdir("/")
    except OSError:
        return False
    return not _FOLDERS.isdisjoint(map(str.lower, names))


def images(root: Root) -> Iterator[str]:
    """The image files where live media have them."""
    for folder, pattern in _PLACES:
        try:
            found = root.glob(folder, pattern)
        except OSError:
            continue
        yield from filter(root.is_file, found)
