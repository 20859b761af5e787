"""Which images there are: the example fleet, and further ones that only tests want."""

from __future__ import annotations

from dataclasses import dataclass

TREES = {
    "debian12": (
        "bookworm",
        "systemd-sysv openssh-server sudo cron iputils-ping libcap2-bin ca-certificates telnetd "
        "linux-image-cloud-amd64 tiny-initramfs logrotate iproute2",
    ),
    "debian13": ("trixie", "systemd-sysv openssh-server sudo nftables iproute2"),
    "large": (
        "bookworm",
        "systemd-sysv openssh-server sudo cron linux-image-cloud-amd64 tiny-initramfs "
        "build-essential linux-headers-amd64 golang-src python3-django python3-scipy python3-sympy "
        "vim git emacs-el nodejs adwaita-icon-theme gnome-icon-theme",
    ),
    "rpm": ("", ""),
    "tools": (
        "trixie",
        "bcache-tools erofs-utils exfatprogs f2fs-tools jfsutils makefs nilfs-tools squashfs-tools "
        "udftools xorriso",
    ),
    "windows": ("", ""),
    "images": ("", ""),
}
"""Name to Debian suite and packages; rpm and windows are made from the folders of their names,
tools make odd filesystems, and images are those that source packages hold."""


@dataclass(frozen=True)
class Disk:
    """A disk file of an image.

    Attributes:
        file: its name, the machine's folder included where it has one.
        size: virtual size, as qemu-img takes it; empty for that of the backing file.
        backing: file name of the qcow2 image below it.
    """

    file: str
    size: str = ""
    backing: str = ""

    @property
    def format(self) -> str:
        """``raw`` or ``qcow2``, as the file's name says."""
        return "qcow2" if self.file.endswith(".qcow2") else "raw"


@dataclass(frozen=True)
class Image:
    """One machine, or a base image that another one needs.

    Attributes:
        name: also that of its script, fleet/NAME.sh.
        disks: what the script fills; the first names the folder of expectations.
        tree: the tree it unpacks.
        needs: images that must be there before.
        cut_from: built without a script: the first ``cut_bytes`` bytes of this image's disk.
        cut_bytes: see ``cut_from``.
        empty_files: built without a script or a VM: the tree and so many files in /srv.
    """

    name: str
    disks: tuple[Disk, ...]
    tree: str = ""
    needs: tuple[str, ...] = ()
    cut_from: str = ""
    cut_bytes: int = 0
    empty_files: int = 0

    @property
    def expected(self) -> str:
        """Name of the folder with what a scan has to find."""
        machine, _, _ = self.disks[0].file.partition("/")
        return f"{machine}.expected"


FLEET = (
    Image("rpm-base", (Disk("rpm-base.qcow2", "1G"),), tree="rpm"),
    Image("rpm", (Disk("rpm.qcow2", backing="rpm-base.qcow2"),), tree="rpm", needs=("rpm-base",)),
    Image("blank", (Disk("blank.raw", "256M"),)),
    Image("debian12", (Disk("debian12.qcow2", "4G"),), tree="debian12"),
    Image("debian13", (Disk("debian13.raw", "2G"),), tree="debian13"),
    Image(
        "twodisk",
        (Disk("twodisk/disk0.qcow2", "256M"), Disk("twodisk/disk1.qcow2", "256M")),
        tree="debian12",
    ),
    # Its header and tables are whole, most of what they point at is gone.
    Image(
        "truncated",
        (Disk("truncated.qcow2"),),
        needs=("debian12",),
        cut_from="debian12",
        cut_bytes=32 << 20,
    ),
)
"""What quickstart.sh scans."""

EXTRA = (
    Image("dirty-ext4", (Disk("dirty-ext4.raw", "256M"),), tree="rpm"),
    Image("dirty-xfs", (Disk("dirty-xfs.raw", "512M"),), tree="rpm"),
    Image("dirty-btrfs", (Disk("dirty-btrfs.raw", "512M"),), tree="rpm"),
    Image("bare-ext4", (Disk("bare-ext4.raw", "128M"),), tree="rpm"),
    Image("rpm-bdb", (Disk("rpm-bdb.raw", "128M"),), tree="rpm"),
    Image("luks", (Disk("luks.raw", "128M"),)),
    Image("logical", (Disk("logical.raw", "256M"),), tree="rpm"),
    Image("md", tuple(Disk(f"md/disk{number}.raw", "112M") for number in range(4))),
    Image("locked", (Disk("locked.raw", "168M"),)),
    Image("lvm", (Disk("lvm/disk0.raw", "200M"), Disk("lvm/disk1.raw", "200M"))),
    Image("lvm-plain", tuple(Disk(f"lvm-plain/disk{number}.raw", "64M") for number in range(2))),
    Image("layouts", tuple(Disk(f"layouts/disk{number}.raw", "136M") for number in range(3))),
    Image(
        "filesystems",
        (Disk("filesystems/disk0.raw", "320M"), Disk("filesystems/disk1.raw", "16M")),
        tree="tools",
    ),
    Image("bitlocker", (Disk("bitlocker.raw", "100M"),), tree="images"),
    Image("bcache", (Disk("bcache.raw", "136M"),), tree="tools"),
    Image("windows10", (Disk("windows10.raw", "128M"),), tree="windows"),
    Image("zero", (Disk("zero.raw"),), cut_from="bare-ext4", needs=("bare-ext4",)),
)
"""What tests/vm scans beside them."""

HUGE = (Image("million", (Disk("million.raw", "1G"),), tree="rpm", empty_files=1_000_000),)
"""What takes a minute or more to build, for tests of memory."""

LARGE = (Image("large", (Disk("large.qcow2", "6G"),), tree="large"),)
"""What takes ten minutes to build and 3 GB, for benchmarks."""

SETS = {"fleet": FLEET, "extra": EXTRA, "huge": HUGE, "large": LARGE}
