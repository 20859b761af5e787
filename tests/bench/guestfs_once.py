"""libguestfs at its best on one machine: one handle for all that a scan asks of it.

Run by Debian's own Python, which is the one that has the binding::

    /usr/bin/python3 tests/bench/guestfs_once.py FORMAT DISK...

Prints one JSON object: seconds a step, and how much was found.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

# As many names a call as stay well below the 4 MiB that its reply may have.
_NAMES = 5000

_steps: dict[str, float] = {}


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    _steps[name] = time.monotonic() - begun


def main(image_format: str, disks: list[str]) -> None:
    """Inspect a machine and print what it took."""
    begun = time.monotonic()
    found: dict[str, int] = {}
    with _step("launch"):
        handle = _launch(image_format, disks)
    with _step("inspect"):
        roots = handle.inspect_os()
    mounted: set[str] = set()
    for root in roots:
        with _step("mount"):
            places = _mount(handle, root)
        with _step("usage"):
            for place in places.values():
                handle.statvfs(place)
        with _step("applications"):
            found["applications"] = len(handle.inspect_list_applications2(root))
        with _step("listing"):
            found["entries"] = _list(handle)
        handle.umount_all()
        mounted |= set(places)
    with _step("usage of others"):
        found["filesystems"] = len(mounted) + _usage(handle, mounted)
    with _step("close"):
        handle.close()
    seconds = time.monotonic() - begun
    print(json.dumps({"seconds": seconds, "steps": _steps, "found": found}))


def _launch(image_format: str, disks: list[str]) -> Any:  # Any: the binding has no types
    guestfs = importlib.import_module("guestfs")
    handle = guestfs.GuestFS(python_return_dict=True)
    for disk in disks:
        handle.add_drive_opts(disk, readonly=True, format=image_format)
    handle.launch()
    return handle


def _mount(handle: Any, root: str) -> dict[str, str]:
    """Mount a root's filesystems, outer ones first, and give device and place of each.

    Those that fstab has wrong are left out.
    """
    mounted = {}
    for place, device in sorted(handle.inspect_get_mountpoints(root).items()):
        with contextlib.suppress(RuntimeError):
            handle.mount_ro(device, place)
            mounted[device] = place
    return mounted


def _list(handle: Any) -> int:
    """Every entry's metadata, in the fewest calls: names by find, then lstat a directory at once.

    Slower are ls0 or readdir for the names, and lstatns for an entry at once. filesystem_walk is
    one call a filesystem, but has neither owners nor modes.
    """
    with tempfile.NamedTemporaryFile() as listed:
        handle.find0("/", listed.name)
        paths = listed.read().split(b"\0")[:-1]
    folders: dict[str, list[str]] = {}
    for path in paths:
        with contextlib.suppress(UnicodeDecodeError):  # the binding cannot pass such names on
            folder, _, name = path.decode().rpartition("/")
            folders.setdefault(folder, []).append(name)
    entries = 0
    for folder, names in folders.items():
        for start in range(0, len(names), _NAMES):
            entries += len(handle.lstatnslist(f"/{folder}", names[start : start + _NAMES]))
    return entries


def _usage(handle: Any, known: set[str]) -> int:
    """Usage of the filesystems that no root mounts, each mounted on its own as virt-df does it."""
    others = {
        device: kind
        for device, kind in handle.list_filesystems().items()
        if device not in known and kind not in ("swap", "unknown")
    }
    for device in others:
        with contextlib.suppress(RuntimeError):
            handle.mount_ro(device, "/")
            handle.statvfs("/")
            handle.umount_all()
    return len(others)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
