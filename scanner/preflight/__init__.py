"""What a disk file is and what it refers to, found under limits, before any VM starts.

The format of every layer is decided here, once (:mod:`formats`); backing files are found here,
and only where the policy allows; whoever opens a layer later opens it with
:func:`open_layer`, which makes sure that it is still the file that was looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from scanner.errors import PreflightError
from scanner.preflight import qcow2
from scanner.preflight.formats import decide_format
from scanner.preflight.locks import is_written
from scanner.preflight.plan import (
    DiskPlan,
    Layer,
    Limits,
    Policy,
    file_device,
    file_size,
    identity_of,
    open_checked,
    open_layer,
)
from scanner.preflight.qemu_img import qcow2_info
from scanner.sources.base import Disk

__all__ = ["DiskPlan", "Layer", "Limits", "Policy", "backing_file", "examine", "open_layer"]

_SECTOR = 512  # a raw disk's last sector is padded to this size by QEMU


@dataclass(frozen=True)
class _Examined:
    layer: Layer
    virtual_size: int
    cluster_size: int | None
    allocated: int
    in_use: bool
    is_device: bool
    backing_file: bytes | None
    backing_format: str | None


def examine(disk: Disk, policy: Policy) -> DiskPlan:
    """Decide how a disk is to be opened.

    Raises:
        PreflightError: a layer cannot be read, is malformed, in use, or out of the policy's
            bounds; the message names it.
    """
    name, stated = os.path.abspath(disk.path), disk.format  # noqa: PTH100 - ".." before links
    path = os.path.realpath(name)
    allowed = _allowed_directories(name, path, policy)
    chain: list[_Examined] = []
    while True:
        found = _examine_layer(path, stated, policy)
        _check_chain(found, chain, policy)
        chain.append(found)
        if found.backing_file is None:
            return _plan(chain)
        name = _backing_name(found.backing_file, name, found.layer.path)
        path = os.path.realpath(name)
        _check_bounds(path, found, allowed)
        stated = found.backing_format


def backing_file(disk: Disk) -> str | None:
    """The file, symbolic links resolved, that a sound qcow2 image names as its backing file.

    For sources that must tell images from the layers below them. Reads the header alone.

    Returns:
        None for all other disks, unreadable and malformed ones included.
    """
    try:
        path = os.path.realpath(disk.path)
        fd = open_checked(path)
        try:
            size = file_size(fd)
            read = _reader(fd)
            if decide_format(disk.format, path, read, size) == "raw":
                return None
            name = qcow2.parse_header(read, size).backing_file
        finally:
            os.close(fd)
        return None if name is None else os.path.realpath(_joined(name, disk.path))
    except (PreflightError, OSError):
        return None


def _examine_layer(path: str, stated: str | None, policy: Policy) -> _Examined:
    fd = open_checked(path)
    try:
        return _look(fd, path, stated, policy)
    except PreflightError as error:
        raise PreflightError(f"{path!r}: {error}", hint=error.hint) from error
    except OSError as error:
        raise PreflightError(f"{path!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _look(fd: int, path: str, stated: str | None, policy: Policy) -> _Examined:
    status, size, read = os.fstat(fd), file_size(fd), _reader(fd)
    if size == 0:
        raise PreflightError("empty")
    in_use = is_written(fd)
    if in_use and not policy.live:
        raise PreflightError(
            "in use by a running guest or by this host",
            hint="shut the guest down, scan a snapshot, or read it as it is with --live",
        )
    chosen = decide_format(stated, path, read, size)
    header = None
    if chosen == "qcow2":
        header = qcow2.parse_header(read, size)
        qcow2.check_complete(read, size, header, seconds=policy.limits.wall_seconds)
        _check_agreement(header, qcow2_info(fd, policy.limits))
    return _Examined(
        layer=Layer(path, chosen, file_device(status), status.st_ino, size, status.st_mtime_ns),
        virtual_size=header.virtual_size if header else -(-size // _SECTOR) * _SECTOR,
        cluster_size=header.cluster_size if header else None,
        allocated=status.st_blocks * 512,
        in_use=in_use,
        is_device=stat.S_ISBLK(status.st_mode),
        backing_file=header.backing_file if header else None,
        backing_format=header.backing_format if header else None,
    )


def _check_agreement(header: qcow2.Header, info: dict[str, object]) -> None:
    """Make sure that QEMU reads the header as we do, so that our checks are of what it opens."""
    name = header.backing_file
    try:
        ours = name.decode() if name else None
    except UnicodeDecodeError:
        ours = None  # JSON cannot carry it; the name is still resolved by us alone
    pairs: list[tuple[str, object, object]] = [
        ("virtual size", header.virtual_size, info.get("virtual-size")),
        ("cluster size", header.cluster_size, info.get("cluster-size")),
    ]
    if name is None or ours is not None:
        pairs.append(("backing file", ours, info.get("backing-filename")))
    for what, mine, theirs in pairs:
        if mine != theirs:
            raise PreflightError(
                f"malformed qcow2 image: its {what} is {mine!r} to us but {theirs!r} to qemu-img"
            )


def _check_chain(found: _Examined, above: Sequence[_Examined], policy: Policy) -> None:
    layer = found.layer
    if above and found.is_device:
        raise PreflightError(f"{layer.path!r} is a backing file but not a regular file")
    if any((layer.device, layer.inode) == (up.layer.device, up.layer.inode) for up in above):
        raise PreflightError(f"{layer.path!r} is its own backing file: the chain is a circle")
    if len(above) >= policy.max_depth:
        raise PreflightError(
            f"{above[0].layer.path!r} has a backing chain of more than {policy.max_depth} layers",
            hint="flatten it with: qemu-img convert -O qcow2",
        )


def _plan(chain: Sequence[_Examined]) -> DiskPlan:
    top = chain[0]
    layers = tuple(found.layer for found in chain)
    steady = not any(found.in_use or found.is_device for found in chain)
    return DiskPlan(
        layers=layers,
        virtual_size=top.virtual_size,
        cluster_size=top.cluster_size,
        allocated=top.allocated,
        identity=_identity(layers) if steady else None,
        in_use=any(found.in_use for found in chain),
    )


def _allowed_directories(name: str, path: str, policy: Policy) -> tuple[str, ...]:
    """Directories, links resolved, below which backing files may lie.

    Args:
        name: the top image, as it was named.
        path: the same, links resolved.
        policy: may name more.
    """
    folders = (os.path.dirname(name), os.path.dirname(path), *policy.allowed_directories)  # noqa: PTH120
    return tuple(os.path.realpath(folder) for folder in folders)


def _backing_name(backing: bytes, overlay: str, shown: str) -> str:
    """The path that a backing file name means, its links unresolved.

    Raises:
        PreflightError: the name is no plain path.
    """
    # QEMU's own rule: what has a colon before its first slash is a protocol ("json:", "nbd:").
    if b":" in backing.split(b"/", 1)[0]:
        raise PreflightError(
            f"{shown!r} names the backing file {os.fsdecode(backing)!r}, "
            "which is not a plain path and is never opened",
            hint="flatten the image with: qemu-img convert -O qcow2",
        )
    return _joined(backing, overlay)


def _check_bounds(path: str, overlay: _Examined, allowed: Sequence[str]) -> None:
    if not any(os.path.commonpath((path, folder)) == folder for folder in allowed):
        raise PreflightError(
            f"{overlay.layer.path!r} has the backing file {path!r}, "
            "which lies outside the allowed directories",
            hint="if it may be read, allow its directory with --allow-dir",
        )


def _joined(backing: bytes, overlay: str) -> str:
    """A backing file name, relative ones starting from the overlay's directory as QEMU does."""
    folder = os.path.dirname(os.path.abspath(overlay))  # noqa: PTH100, PTH120
    return os.path.join(folder, os.fsdecode(backing))  # noqa: PTH118


def _reader(fd: int) -> qcow2.Read:
    return lambda offset, length: os.pread(fd, length, offset)


def _identity(layers: Sequence[Layer]) -> str:
    return identity_of((layer.path, layer.inode, layer.size, layer.mtime_ns) for layer in layers)
