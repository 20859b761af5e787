"""One machine's disk: an image file, an OVA archive or a block device."""

from __future__ import annotations

from pathlib import Path

from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources.base import Machine, SourceOptions
from fleetscan.scanner.sources.source_kind import SourceKind, is_there


class ImageSource(SourceKind):
    """Whatever exists and is not another source."""

    name = "image"
    form = "an image file or a block device"
    rank = 9

    def accepts(self, source: str) -> bool:
        """Whether it exists."""
        return is_there(source)

    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        """The one machine, named after its file."""
        from fleetscan.scanner.sources.ova import machine_of

        path = Path(source)
        return [machine_of(path.name, (Disk(str(path.absolute())),), source)]


KIND = ImageSource()
