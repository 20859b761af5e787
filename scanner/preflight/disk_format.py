"""What preflight knows of a disk image format: how to recognise it, and what its files state.

Each module of ``formats/`` has one, as ``FORMAT``, and is found by being there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from fleetscan.scanner.preflight.image import Image, Parent, Read, Runs

Compared = list[tuple[str, object, object]]
"""What two programs say of an image: in words, ours, and qemu-img's."""


class KnownFormat:
    """A format that is recognised, whether it can be opened or not.

    Attributes:
        name: what people call it.
        aliases: what the headers of overlays call it besides.
        suffixes: those, in lower case, by which a file claims to have it.
        magics: offset and bytes that every file of the format has; an offset is counted from the
            file's end if it is negative.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()
    magics: ClassVar[tuple[tuple[int, bytes], ...]] = ()


class DiskFormat(KnownFormat, ABC):
    """A format that can be opened.

    ``read`` reads the file; ``file_size`` is in bytes; ``deadline`` is the ``time.monotonic()`` at
    which the check of tables is given up. Every method raises PreflightError for a file that is
    malformed, truncated, or of a kind that cannot be opened.

    Attributes:
        driver: QEMU's driver that reads it.
    """

    driver: ClassVar[str]

    @abstractmethod
    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        """What an image's metadata says, all of it checked."""

    def references(self, read: Read, file_size: int) -> tuple[bytes, ...]:
        """Names of the files that an image refers to, as they stand; its tables stay unread."""
        return ()

    def read_parent(self, read: Read, file_size: int) -> Parent | None:
        """What a differencing image adds to; None for all others. Its tables stay unread."""
        return None

    def check_whole(self, image: Image) -> None:
        """Make sure that an image that a source names is more than a part of a disk."""

    # Any: values are whatever qemu-img says of a hostile image.
    def compared(self, image: Image, info: Mapping[str, Any]) -> Compared:
        """What qemu-img must say as we do, besides the disk's size."""
        return []


class DifferencingFormat(DiskFormat):
    """A format whose images can add to a parent, which QEMU does not read."""

    @abstractmethod
    def read_parent(self, read: Read, file_size: int) -> Parent | None:
        """What an image adds to; None when it stands alone. Its tables stay unread."""

    @abstractmethod
    def identity(self, read: Read, file_size: int) -> bytes:
        """What images that add to this one know it by."""

    @abstractmethod
    def runs(self, read: Read, file_size: int, deadline: float) -> Runs:
        """Which stretches of the disk an image decides on."""
