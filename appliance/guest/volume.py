"""What maps block devices to further ones, as the agent opened it or found it closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lvm", "md", "ldm", "luks", "bitlocker", "bcache", "raid", "btrfs_subvolume"]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume. Its attributes are the columns of the ``volumes`` table, which describes them."""

    kind: Kind
    device: str | None = None
    name: str
    group_name: str | None = None
    uuid: str | None = None
    group_uuid: str | None = None
    size: int | None = None
    layout: str | None = None
    members: tuple[str, ...]
    active: bool
    snapshot: bool
    degraded: bool | None = None
    error: str | None = None
