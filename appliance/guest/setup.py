"""What the appliance's first process does before it can serve: kernel interfaces and modules."""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import os
import resource
import time
from glob import glob

from fleetscan.appliance.guest import blkid, resident
from fleetscan.appliance.guest.mounting import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from fleetscan.appliance.guest.tools import WORK, run
from fleetscan.appliance.guest.volume import load_kinds

_WORK_OPTIONS = "size=320m,mode=700"
_PORT_SECONDS = 10.0
_MEMORY_KEPT = 192 << 20
"""Bytes of memory that no process gets: the kernel's and its cache, and files in /tmp."""

_MODULES = ("virtio_scsi", "sd_mod", "virtio-rng")
_TEMPLATE_MODULES = (
    *("ext4", "xfs", "btrfs", "vfat", "ntfs3"),
    *("nls_utf8", "nls_cp437", "nls_ascii", "nls_iso8859_1"),
    *("dm_mod", "dm_snapshot", "loop"),
)
_CODECS = ("utf-16-le", "utf-16-be", "latin-1", "ascii")  # that names and texts on disks are in
_WARM_COMMANDS = (
    ["btrfs", "version"],
    ["dmsetup", "version"],
    ["losetup", "--version"],
)
_SAFE = MS_NODEV | MS_NOEXEC | MS_NOSUID


def mount_pseudo_filesystems() -> None:
    """Mount /proc, /sys and the writable places, all in memory."""
    mount("proc", "/proc", "proc", _SAFE)
    mount("sysfs", "/sys", "sysfs", _SAFE)
    mount("tmp", "/tmp", "tmpfs", _SAFE, _WORK_OPTIONS)  # noqa: S108
    mount("sysroot", "/sysroot", "tmpfs", _SAFE, "size=1m,mode=700")
    os.mkdir(WORK)
    os.makedirs("/run/lock/lvm", exist_ok=True)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["TMPDIR"] = WORK
    # There is no udev: these make their device nodes themselves.
    os.environ["DM_DISABLE_UDEV"] = os.environ["MDADM_NO_UDEV"] = "1"


def limit_memory() -> None:
    """Let an allocation fail before the machine's memory is full.

    A collector then fails alone, where the kernel would have to end the first process, this one.
    """
    with open("/proc/meminfo") as stream:
        total = int(stream.readline().split()[1]) << 10
    limit = max(total - _MEMORY_KEPT, total // 2)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def load_modules() -> None:
    """Load the drivers of the devices that QEMU gives us."""
    run(["modprobe", "-a", *_MODULES])


def hold_disks() -> None:
    """Have disks that are plugged wait until they are attached: see disks.py."""
    with open("/sys/bus/scsi/drivers_autoprobe", "w") as switch:
        switch.write("0")


def warm_up() -> None:
    """Load every driver and start every program that a scan may need, for their pages' sake."""
    run(["modprobe", "-a", *_TEMPLATE_MODULES])
    resident.load()
    blkid.probe("/dev/vda")
    for kind in load_kinds():
        kind.warm_up()
    for command in _WARM_COMMANDS:
        run(command, accept=range(256))
    for name in _CODECS:
        codecs.lookup(name)  # which imports a module of its own
    for name in ("rpm", "sqlite3", "hivex"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def settle() -> None:
    """End the warm-up: what is there now stays, and need not be copied for being looked at."""
    gc.collect()
    gc.freeze()


def agent_port() -> str:
    """The device that leads to the host.

    Raises:
        FileNotFoundError: QEMU was started without it.
    """
    end = time.monotonic() + _PORT_SECONDS
    while time.monotonic() < end:
        for name_file in glob("/sys/class/virtio-ports/*/name"):
            with open(name_file) as stream:
                if stream.read().strip() == "agent":
                    return f"/dev/{os.path.basename(os.path.dirname(name_file))}"
        time.sleep(0.005)
    raise FileNotFoundError("there is no virtio-serial port named agent")
