"""One row a disk of a machine, as the host sees it."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_DEVICE, U16, U32, U64, Origin, Scope, column, table


@table(scope=Scope.MACHINE, origin=Origin.HOST)
class DiskRow:
    """The machine's disks: image files or block devices, with their backing chains."""

    disk: U16 = column("Position among the machine's disks, from 0.")
    device: str | None = column(
        "Its device name inside the appliance.", example="/dev/sda", unredacted=IS_DEVICE
    )
    path: str = column("The file or block device, as the source named it.")
    member: str | None = column("For OVA archives, the name of the image inside the archive.")
    format: Literal["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "parallels"] | None = column(
        "Image format, as decided by preflight."
    )
    virtual_size: U64 | None = column("Disk size that a guest sees.", unit="bytes")
    file_size: U64 | None = column("Length of the file itself.", unit="bytes")
    allocated: U64 | None = column("Space that the file occupies on its host.", unit="bytes")
    cluster_size: U32 | None = column("Cluster size of the image format.", unit="bytes")
    sector_size: U32 | None = column("Logical sector size that the guest saw.", unit="bytes")
    mark: Literal["dirty", "corrupt"] | None = column(
        "How the image is marked: dirty, if it was not closed cleanly; corrupt, if it was found "
        "damaged."
    )
    encryption: Literal["luks"] | None = column(
        "How the image format itself, or one of its backing files, is encrypted."
    )
    backing_chain: tuple[str, ...] = column("Backing files, nearest first.")
    extents: tuple[str, ...] = column("Files that hold the content, if it is split.")
    error: str | None = column("Why the disk could not be opened.")
