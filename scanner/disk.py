"""A disk as a source names it and preflight takes it: named, not yet opened."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Disk:
    """One disk of a machine, as its source names it.

    Attributes:
        path: image file or block device, absolute, symbolic links unresolved.
        format: image format where the source states one; None leaves it to preflight.
        member: which member of the archive ``path`` the image is; None when it is no archive.
        within: directories, links resolved, below one of which the file must be when it is opened;
            empty for a disk that the user named, which may be anywhere.
    """

    path: str
    format: str | None = None
    member: str | None = None
    within: tuple[str, ...] = field(default=(), compare=False)
