"""bcache: a backing device that holds all of its data is read past its header.

The driver itself writes to a device when it starts. It is not needed where the cache has nothing
that the device lacks, as the device's header says.

Layout: the kernel's include/uapi/linux/bcache.h, struct cache_sb.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence

from fleetscan.appliance.guest import mapping
from fleetscan.appliance.guest.disks import BlockDevice, read_at
from fleetscan.appliance.guest.tools import ToolError
from fleetscan.appliance.guest.volume import Volume, VolumeKind

_HEADER_AT = 4096
_HEADER = struct.Struct("<8xQQ16s16s16s32sQQ64xQ")
_MAGIC = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
_BACKING, _BACKING_WITH_OFFSET = 1, 4  # versions; those of caches are 0, 3 and 5
_DATA_AT = 16  # sectors, where the header does not say
_STATES: Mapping[int, str] = {
    2: "its cache holds data that was not written back",
    3: "its cache was lost with data that was not written back",
}
"""A backing device's state; 0 stands for no cache, 1 for a cache with nothing of its own."""


class CachedDevices(VolumeKind):
    """The machine's bcache devices."""

    members = ("bcache",)  # as blkid calls both the devices that are cached and the caches

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Map what each of these devices holds."""
        self.volumes += map(_opened, fresh)


def _opened(device: BlockDevice) -> Volume:
    """Map what a backing device holds; of what cannot be mapped, the reason."""
    name, error, size = f"bcache-{os.path.basename(os.path.realpath(device.path))}", "", 0
    try:
        start = data_start(read_at(device.path, _HEADER_AT, _HEADER.size))
        size = device.size // 512 - start
        if size <= 0:
            raise ValueError("its data would begin beyond its end")
        mapping.create(name, f"0 {size} linear {os.path.realpath(device.path)} {start}")
    except (ValueError, ToolError) as reason:
        error = str(reason)
    return Volume(
        kind="bcache",
        device=None if error else mapping.path_of(name),
        name=device.probe.get("LABEL") or device.path,
        uuid=device.probe.get("UUID"),
        size=device.size if error else size * 512,
        members=(device.path,),
        active=not error,
        error=f"bcache: {error}" if error else None,
    )


def data_start(header: bytes) -> int:
    """Where a backing device's data begins, in sectors.

    Raises:
        ValueError: it has no data, or not all of it.
    """
    if len(header) < _HEADER.size:
        raise ValueError("its header is cut short")
    _, version, magic, _, _, _, flags, _, start = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise ValueError("its header is damaged")
    if version not in (_BACKING, _BACKING_WITH_OFFSET):
        raise ValueError("a cache device, which fleetscan does not read")
    if reason := _STATES.get(flags >> 61 & 3):
        raise ValueError(reason)
    if version == _BACKING:
        return _DATA_AT
    if start < _DATA_AT:
        raise ValueError("its data would begin within its header")
    return int(start)


KIND = CachedDevices
