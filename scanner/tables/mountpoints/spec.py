"""One row a place where a root mounts a filesystem."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import IS_DEVICE, IS_PATH, U8, column, table


@table()
class Mountpoint:
    """Where a root mounts its filesystems, according to its own fstab and systemd's mount units.

    Windows: its drive letters, as its registry maps them to partitions of the machine.
    """

    path: str = column(
        "Directory; swap for swap areas; drive letters are written as C:.",
        example="/var",
        unredacted=IS_PATH,
    )
    device: str | None = column(
        "Device inside the appliance that the entry was resolved to.",
        example="/dev/vg0/var",
        unredacted=IS_DEVICE,
    )
    source: str | None = column(
        "First field of the fstab entry; null for a root that fstab does not list.",
        example="UUID=2f1c...",
    )
    type: str | None = column("Filesystem type according to the entry.")
    options: tuple[str, ...] = column("Mount options of the entry.", example="noexec")
    subvolume: str | None = column("btrfs subvolume that is mounted.")
    check_pass: U8 | None = column("Sixth field of the entry: order of checks at boot.")
    mounted: bool = column(
        "Whether it is part of the tree that was scanned; for Windows that is only the system "
        "drive."
    )
    error: str | None = column("Why it could not be mounted.")
    effective_options: tuple[str, ...] | None = column(
        "Those of ro, nosuid, nodev, noexec and nosymfollow that the options amount to, as "
        "mount(8) reads them: the last of two that contradict each other counts, and user, owner "
        "and group imply some.",
        example="noexec",
        default=None,
    )
    unit: str | None = column(
        "Mount unit of systemd that states it; null for entries of fstab.",
        example="/usr/lib/systemd/system/tmp.mount",
        unredacted=IS_PATH,
        default=None,
    )
