"""One row a snapshot inside a disk image, as the host sees it."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import U16, U64, Origin, Scope, Timestamp, column, table


@table(scope=Scope.MACHINE, origin=Origin.HOST)
class DiskSnapshot:
    """Snapshots stored inside disk images; facts always describe the current state.

    Only qcow2 images contain any. Backing files are not snapshots: see disks.backing_chain.
    """

    disk: U16 = column("The disk, as in disks.disk.")
    snapshot_id: str = column("Its id inside the image.", example="1")
    name: str = column("Its name.", example="before-upgrade")
    created: Timestamp = column("When it was taken.")
    virtual_size: U64 | None = column("Size of the disk at that time.", unit="bytes")
    state_size: U64 = column(
        "Length of the running guest's state saved with it; 0 if none was saved.", unit="bytes"
    )
