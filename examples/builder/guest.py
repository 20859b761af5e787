"""First process of the builder's VM: runs one image's script as root on empty disks.

The appliance's first stage hands over to whatever agent came along in the second initrd archive;
here that is this file. Disks are known by their virtio serial: ``job`` (tar of scripts),
``tree`` (tar of a system), ``disk0``, ``disk1``... (what is being made) and ``report``, onto
which the expectations are written as a tar, only if all went well.

Runs on the appliance's Python: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import traceback
from pathlib import Path

_MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", "/mnt"))  # noqa: S108
_MODULES = ("virtio_rng", "dm_mod")  # the kernel asks for those of filesystems by itself
_JOB = Path("/tmp/job")  # noqa: S108 - the VM's own, empty at boot
_EXPECTED = Path("/tmp/expected")  # noqa: S108
_POWER_OFF = 0x4321FEDC  # reboot(2), LINUX_REBOOT_CMD_POWER_OFF: neither syncs nor unmounts


def main() -> None:
    """Run the job, say how it went, and cut the power in any case."""
    try:
        _prepare()
        disks = _disks()
        _run_job(disks)
        _write_report(disks["report"])
        print("builder: done", flush=True)
    except Exception:
        traceback.print_exc()
        print("builder: failed", flush=True)
    finally:
        ctypes.CDLL(None).reboot(_POWER_OFF)


def _prepare() -> None:
    for kind, place in _MOUNTS:
        subprocess.run(["/bin/mount", "-t", kind, kind, place], check=True)
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8", HOME="/tmp")  # noqa: S108
    console = os.open("/dev/console", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(console, descriptor)
    for module in _MODULES:  # some are built into some kernels
        subprocess.run(["modprobe", "-q", module], check=False)


def _disks() -> dict[str, str]:
    serials = Path("/sys/block").glob("vd*/serial")
    return {path.read_text().strip(): f"/dev/{path.parent.name}" for path in serials}


def _run_job(disks: dict[str, str]) -> None:
    _JOB.mkdir()
    _EXPECTED.mkdir()
    subprocess.run(["tar", "-C", _JOB, "-xf", disks["job"]], check=True)
    variables = {name.upper(): device for name, device in disks.items()}
    environment = {**os.environ, **variables, "EXPECTED": str(_EXPECTED)}
    subprocess.run(["sh", "-eu", "image.sh"], cwd=_JOB, env=environment, check=True)


def _write_report(device: str) -> None:
    subprocess.run(["tar", "-C", _EXPECTED, "-cf", device, "."], check=True)
    # Only this one disk: images with a dirty journal must stay as they are.
    with open(device, "rb+") as disk:  # noqa: PTH123 - a device, not a path to reason about
        os.fsync(disk.fileno())
    sys.stdout.flush()


main()
