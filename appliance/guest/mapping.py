"""Device mapper: views of a read-only device, made in the appliance's memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fleetscan.appliance.guest.tools import WORK, run

_OVERLAY_BYTES = 256 << 20  # as a sparse file in memory; a replay touches a journal's worth
_CHUNK_SECTORS = 8
_MANGLED = re.compile(r"[^\w.+-]", re.ASCII)
_SECTOR = 512


def overlay(path: str, size: int) -> str:
    """A writable device over a read-only one; what is written stays in memory and is lost.

    Args:
        path: the device below.
        size: its length in bytes.

    Raises:
        ToolError: device mapper refused.
    """
    name = f"overlay-{_kernel_name(path)}"
    store = f"{WORK}/{name}"
    with open(store, "wb") as stream:
        stream.truncate(_OVERLAY_BYTES)
    run(["modprobe", "-a", "loop", "dm_snapshot"])
    loop = run(["losetup", "--find", "--show", store]).strip()
    below = os.path.realpath(path)
    table = f"0 {size // _SECTOR} snapshot {below} {loop} N {_CHUNK_SECTORS}"
    run(["dmsetup", "create", name, "--table", table])
    return f"/dev/mapper/{name}"


def overlay_once(path: str, size: int) -> str:
    """As :func:`overlay`; of a device that has one already, that."""
    name = f"/dev/mapper/overlay-{_kernel_name(path)}"
    return name if os.path.exists(name) else overlay(path, size)


def create(name: str, table: str, *, read_only: bool = True) -> None:
    """Make a device of a table.

    Args:
        name: the device's, which may hold anything.
        table: its lines, each as dmsetup(8) has it.
        read_only: whether it can only be opened for reading.

    Raises:
        ToolError: device mapper refused.
    """
    run(["modprobe", "-q", "dm_raid"] if " raid " in table else ["modprobe", "dm_mod"])
    options = ["--readonly"] if read_only and " raid " not in table else []
    run(["dmsetup", "create", *options, "--", _mapped_name(name)], stdin=table.encode())


def path_of(name: str) -> str:
    """The path of a device that :func:`create` made."""
    return f"/dev/mapper/{_mapped_name(name)}"


def _mapped_name(name: str) -> str:
    """A name that device mapper takes: of what it would mangle, only what is left."""
    return _MANGLED.sub("_", name)[:120]


def read_only(devices: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Devices that pass on to others what is read, and may be opened as if for writing.

    A write-protected disk cannot; some drivers ask for it although they will only read.

    Args:
        devices: path and length in bytes of each.

    Returns:
        The new device of each path.

    Raises:
        ToolError: device mapper refused.
    """
    names = [f"member-{_kernel_name(path)}" for path, _ in devices]
    tables = [
        f"{name},,,ro,0 {size // _SECTOR} linear {os.path.realpath(path)} 0"
        for name, (path, size) in zip(names, devices, strict=True)
    ]
    run(["dmsetup", "create", "--concise", ";".join(tables)])
    return {path: f"/dev/mapper/{name}" for name, (path, _) in zip(names, devices, strict=True)}


def loop(path: str, *, partitions: bool = False) -> str:
    """A read-only device with the content of another, which may be in use.

    Args:
        path: the device.
        partitions: have the kernel look for partitions in it.

    Raises:
        ToolError: there can be no more of them.
    """
    run(["modprobe", "loop"])
    wanted = ["--partscan"] if partitions else []
    return run(["losetup", "--read-only", *wanted, "--find", "--show", path]).strip()


def _kernel_name(path: str) -> str:
    return os.path.basename(os.path.realpath(path))
