"""One row a directory entry."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import (
    IS_DEVICE,
    IS_NAME,
    IS_PATH,
    U32,
    U64,
    Timestamp,
    column,
    table,
)

FileType = Literal["file", "directory", "symlink", "character", "block", "fifo", "socket"]


@table(walks=True)
class File:
    """Every entry of a root's tree, including the filesystems that its fstab mounts.

    ``--files notable`` keeps the entries that security rules need: those with set-user-id,
    set-group-id or sticky bits, capabilities or world-writable mode, device nodes, entries whose
    owner the root does not know, and everything in /etc, /root, /boot and the top of /home
    directories.

    Windows: modes and owners are what a Linux kernel makes of NTFS, and say nothing about rights.
    """

    path: str = column("Absolute path in the root.", example="/etc/shadow", unredacted=IS_PATH)
    type: FileType = column("Type of the entry.")
    mode: U32 = column("Permission bits, with set-id and sticky; 0 to 4095.", example="2541")
    uid: U32 = column("Numeric owner.")
    gid: U32 = column("Numeric group.")
    owner: str | None = column(
        "Owner's name in this root; null if it has none.", example="root", unredacted=IS_NAME
    )
    group_name: str | None = column(
        "Group's name in this root; null if it has none.", unredacted=IS_NAME
    )
    size: U64 = column("Apparent size.", unit="bytes")
    allocated: U64 = column("Space occupied.", unit="bytes")
    links: U32 = column("Number of hard links.")
    inode: U64 = column("Inode number in its filesystem.")
    device: str | None = column(
        "Filesystem it is on, as in filesystems.device.", unredacted=IS_DEVICE
    )
    accessed: Timestamp = column("Last access.")
    modified: Timestamp = column("Last change of content.")
    changed: Timestamp = column("Last change of metadata.")
    target: str | None = column("Target of a symbolic link.", unredacted=IS_PATH)
    selinux: str | None = column(
        "SELinux label.",
        example="system_u:object_r:etc_t:s0",
        unredacted="a label, of the words of a policy",
    )
    capabilities: str | None = column(
        "Capabilities of an executable file, as getcap -n prints them.",
        example="cap_net_raw=ep",
        unredacted="written by us, of a fixed vocabulary",
    )
