"""What volumes are called: as the agent opens them, and as their table lists them."""

from __future__ import annotations

from typing import Literal

VolumeType = Literal["lvm", "md", "ldm", "luks", "bitlocker", "bcache", "raid", "btrfs_subvolume"]
