"""libblkid: what a block device holds, found out without starting a program."""

from __future__ import annotations

import ctypes
import functools
import os

# Source of names and numbers: libblkid's blkid.h. What ``blkid -p`` asks for.
_LABEL, _UUID, _TYPE, _SECTYPE, _USAGE, _VERSION, _FSINFO = (
    1 << bit for bit in (1, 3, 5, 6, 7, 8, 11)
)
_SUPERBLOCKS = _LABEL | _UUID | _TYPE | _SECTYPE | _USAGE | _VERSION | _FSINFO
_ENTRY_DETAILS = 1 << 2

_FOUND, _NOTHING, _AMBIVALENT = 0, 1, -2
_ONLY_IN = 2  # BLKID_FLTR_ONLYIN
_NOT_IN = 1  # BLKID_FLTR_NOTIN
# What libblkid looks for only outside of partitions, for which it follows the partition table.
_OUTSIDE_PARTITIONS = (
    *("zfs_member", "linux_raid_member", "ddf_raid_member", "isw_raid_member", "LVM2_member"),
    *("lsi_mega_raid_member", "via_raid_member", "silicon_medley_raid_member", "drbd"),
    *("nvidia_raid_member", "promise_fasttrack_raid_member", "highpoint_raid_member"),
    *("adaptec_raid_member", "jmicron_raid_member", "LVM1_member", "bcache"),
)
_OUTSIDE = (ctypes.c_char_p * (len(_OUTSIDE_PARTITIONS) + 1))(
    *(name.encode() for name in _OUTSIDE_PARTITIONS), None
)
_BITLOCKER = (ctypes.c_char_p * 2)(b"BitLocker", None)


def probe(path: str, *, partitions: bool = True) -> dict[str, str]:
    """What libblkid says of a device, by its own names (TYPE, UUID, PART_ENTRY_TYPE ...).

    Nothing where it recognises nothing, or signatures that contradict each other.

    Args:
        path: the device.
        partitions: whether to read partition tables, its own and that which it is part of; and
            so to look for what lies outside of partitions.

    Raises:
        OSError: the device cannot be read.
    """
    library = _library()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    handle = library.blkid_new_probe()
    try:
        if not handle:
            raise MemoryError("libblkid has no memory for a probe")
        library.blkid_probe_enable_superblocks(handle, 1)
        library.blkid_probe_set_superblocks_flags(handle, _SUPERBLOCKS)
        library.blkid_probe_enable_partitions(handle, int(partitions))
        library.blkid_probe_set_partitions_flags(handle, _ENTRY_DETAILS)
        if library.blkid_probe_set_device(handle, descriptor, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot be probed", path)
        if not partitions:
            library.blkid_probe_filter_superblocks_type(handle, _NOT_IN, _OUTSIDE)
        outcome = library.blkid_do_safeprobe(handle)
        if outcome == _AMBIVALENT:
            # A removable drive that BitLocker encrypted has a FAT for show, with its unlocker.
            library.blkid_probe_filter_superblocks_type(handle, _ONLY_IN, _BITLOCKER)
            outcome = library.blkid_do_safeprobe(handle)
        if outcome not in (_FOUND, _NOTHING, _AMBIVALENT):
            raise OSError(ctypes.get_errno(), "cannot be probed", path)
        return _values(library, handle) if outcome == _FOUND else {}
    finally:
        library.blkid_free_probe(handle)
        os.close(descriptor)


def _values(library: ctypes.CDLL, handle: int) -> dict[str, str]:
    found = {}
    name, data, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    for number in range(library.blkid_probe_numof_values(handle)):
        library.blkid_probe_get_value(
            handle, number, ctypes.byref(name), ctypes.byref(data), ctypes.byref(size)
        )
        value = ctypes.string_at(data.value or 0, size.value).rstrip(b"\0")
        found[(name.value or b"").decode()] = value.decode("utf-8", "surrogateescape")
    return found


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libblkid.so.1", use_errno=True)
    handle, pointer = ctypes.c_void_p, ctypes.c_void_p
    library.blkid_new_probe.restype = handle
    library.blkid_free_probe.argtypes = (handle,)
    library.blkid_probe_set_device.argtypes = (
        handle,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
    )
    for name in ("superblocks", "partitions"):
        getattr(library, f"blkid_probe_enable_{name}").argtypes = (handle, ctypes.c_int)
        getattr(library, f"blkid_probe_set_{name}_flags").argtypes = (handle, ctypes.c_int)
    for name in ("blkid_do_safeprobe", "blkid_probe_numof_values"):
        getattr(library, name).argtypes = (handle,)
    library.blkid_probe_filter_superblocks_type.argtypes = (handle, ctypes.c_int, pointer)
    library.blkid_probe_get_value.argtypes = (handle, ctypes.c_int, pointer, pointer, pointer)
    return library
