"""A folder of images."""

from __future__ import annotations

from pathlib import Path

from fleetscan.scanner.sources.base import Machine, SourceOptions
from fleetscan.scanner.sources.source_kind import SourceKind, is_there


class FolderSource(SourceKind):
    """A folder of machines; see :mod:`fleetscan.scanner.sources.folder`."""

    name = "folder"
    form = "a folder of images"

    def accepts(self, source: str) -> bool:
        """Whether it is a directory."""
        return is_there(source) and Path(source).is_dir()

    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        """The folder's machines, sorted by id."""
        from fleetscan.scanner.sources.folder import folder_machines

        return folder_machines(source, options, options.wants)


KIND = FolderSource()
