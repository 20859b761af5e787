"""What a scan asks of the agent; part of the request on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FilesMode = Literal["all", "notable", "none"]
PackagesMode = Literal["known", "all"]


@dataclass(frozen=True)
class ScanOptions:
    r"""What a scan asks of the collectors.

    Attributes:
        files: which directory entries the ``files`` table keeps.
        packages: where to look for packages of languages: where their own tools put them, or
            everywhere.
        registry: keys that the ``registry`` table holds besides, as ``HKLM\\...`` or ``HKU\\...``
    """

    files: FilesMode = "all"
    packages: PackagesMode = "known"
    registry: tuple[str, ...] = ()
