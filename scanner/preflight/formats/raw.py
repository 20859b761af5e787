"""Raw disks: the disk as it is, without any metadata."""

from __future__ import annotations

from fleetscan.scanner.preflight.disk_format import DiskFormat
from fleetscan.scanner.preflight.image import SECTOR, Image, Read


class _Raw(DiskFormat):
    name = driver = "raw"
    suffixes = (".raw",)

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        return Image(-(-file_size // SECTOR) * SECTOR, first_block=0)  # as QEMU rounds it


FORMAT = _Raw()
