"""One file of a disk: examined, its format decided and its metadata read."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.descriptors import closing
from fleetscan.scanner.preflight.deciding import (
    decide_format,
    differencing,
    format_of,
    is_certain,
)
from fleetscan.scanner.preflight.image import SECTOR, Image, Read
from fleetscan.scanner.preflight.locks import has_lock_folder, is_written
from fleetscan.scanner.preflight.ova_members import find_member
from fleetscan.scanner.preflight.plan import (
    DiskLayer,
    DiskPolicy,
    file_device,
    file_size,
    identity_of,
    open_checked,
)
from fleetscan.scanner.preflight.qemu_img import UnreplayedLogError, image_info

_GPT_SIGNATURE = b"EFI PART"  # in a disk's second sector (UEFI specification, 5.3.2)
_LARGE_SECTOR = 4096
_BLKSSZGET = 0x1268  # linux/fs.h: a block device's logical sector size


@dataclass(frozen=True)
class Examined:
    """What was seen of one file.

    Attributes:
        layer: how to open it; its extents are not looked at yet.
        image: what its metadata says.
        allocated: space that it occupies on its host, in bytes.
        in_use: a running guest may be writing to it.
        is_device: it is a block device.
        sector_size: logical sector size that it speaks for, in bytes; None if it does for none.
    """

    layer: DiskLayer
    image: Image
    allocated: int
    in_use: bool
    is_device: bool
    sector_size: int | None


def examine_file(
    path: str,
    stated: str | None,
    policy: DiskPolicy,
    member: str | None = None,
    *,
    until: float,
    is_extent: bool = False,
) -> Examined:
    """Look at one image file.

    Args:
        path: absolute, symbolic links resolved.
        stated: its format, where a source or the image above it says.
        policy: what is allowed.
        member: which member of an archive the image is; None when it is the file itself.
        until: ``time.monotonic()`` at which all of the disk is given up.
        is_extent: it holds a part of a disk that another file describes.

    Raises:
        PreflightError: it cannot be read, is malformed, in use, or not supported.
    """
    shown = path if member is None else f"{path}: {member}"
    with closing(open_checked(path)) as fd:
        try:
            deadline = min(time.monotonic() + policy.limits.wall_seconds, until)
            found = _look(fd, path, stated, policy, member, deadline)
            return _confirmed(fd, found, policy) if policy.confirm and not is_extent else found
        except PreflightError as error:
            told = PreflightError(f"{shown!r}: {error}", hint=error.hint)
            told.identity = error.identity
            raise told from error
        except OSError as error:
            raise PreflightError(f"{shown!r} cannot be read: {error.strerror}") from error


def _look(
    fd: int, path: str, stated: str | None, policy: DiskPolicy, member: str | None, deadline: float
) -> Examined:
    if time.monotonic() > deadline:
        raise PreflightError("its files take too long to check")
    status, size = os.fstat(fd), file_size(fd)
    in_use = is_written(fd) or has_lock_folder(path)
    if in_use and not policy.live:
        raise PreflightError(
            "in use by a running guest or by this host",
            hint="shut the guest down, scan a snapshot, or read it as it is with --live",
        )
    try:
        start, length = _extent_in(fd, size, member)
        read = reader(fd, start, length)
        chosen = decide_format(stated, member or path, read, length)
        certain = is_certain(stated, member or path, chosen)
        image = _read(chosen, read, length, deadline, certain=certain)
    except PreflightError as error:
        # Not for a timeout on this host, nor for a device, whose times mean nothing.
        if time.monotonic() <= deadline and stat.S_ISREG(status.st_mode) and not in_use:
            times = (status.st_mtime_ns, status.st_ctime_ns)
            error.identity = identity_of([(path, status.st_ino, size, *times)])
        raise
    driver, part = format_of(chosen).driver, length if member else None
    if image.plain_bytes is not None:
        driver, part = "raw", image.plain_bytes
    return Examined(
        layer=DiskLayer(
            path=path,
            format=chosen,
            device=file_device(status),
            inode=status.st_ino,
            size=size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            driver=driver,
            start=start,
            length=part,
            cid=image.cid if image.extents else None,
            luks_uuid=image.luks_uuid,
            virtual_size=image.virtual_size,
            certain=certain,
        ),
        image=image,
        allocated=status.st_blocks * 512,
        in_use=in_use,
        is_device=stat.S_ISBLK(status.st_mode),
        sector_size=_device_sector_size(fd, status) or _sector_size(read, image),
    )


def _extent_in(fd: int, size: int, member: str | None) -> tuple[int, int]:
    """Where in its file an image begins, and its length.

    Raises:
        PreflightError: there is none, or it is not in whole sectors.
    """
    start, length = find_member(reader(fd), size, member) if member else (0, size)
    if length == 0:
        raise PreflightError("empty")
    if member and length % SECTOR:
        raise PreflightError(f"its length in the archive, {length} bytes, is not in whole sectors")
    return start, length


def _read(chosen: str, read: Read, length: int, deadline: float, *, certain: bool) -> Image:
    """As the format reads it; a header that nothing else speaks for must not name other files.

    Raises:
        PreflightError: as there, or it does.
    """
    if certain or chosen == "raw":
        return format_of(chosen).read_image(read, length, deadline)
    hint = f"state its format, in an inventory or with --format: raw, or {chosen} if it is that"
    try:
        image = format_of(chosen).read_image(read, length, deadline)
    except PreflightError as error:
        # What to do about a broken image would be bad advice for a raw disk: programs that are
        # told to repair or convert it may open what its guest names.
        raise PreflightError(str(error), hint=hint) from error
    if image.backing_file or image.extents or image.parent:
        raise PreflightError(
            f"its {chosen} header refers to another file, and nothing else says that it is "
            f"{chosen}: a guest can write such a header into its raw disk",
            hint=hint,
        )
    return image


def _confirmed(fd: int, found: Examined, policy: DiskPolicy) -> Examined:
    """The same, once QEMU reads it as we do, so that our checks are of what it opens.

    Raises:
        PreflightError: it does not.
    """
    layer, image = found.layer, found.image
    if layer.driver == "raw" or image.extents or image.parent:
        return found  # QEMU does not read it by this format
    format_of(layer.format).check_whole(image)
    try:
        info = image_info(fd, layer.driver, policy.limits, layer.start, layer.length)
    except UnreplayedLogError:
        # qemu-img reads it once its log is replayed, when the disk is opened.
        return replace(found, layer=replace(layer, replay=True), image=replace(image, mark="dirty"))
    return replace(found, image=_agreed(layer.format, image, info))


# Any: values are whatever qemu-img says of a hostile image.
def _agreed(image_format: str, image: Image, info: Mapping[str, Any]) -> Image:
    if info.get("virtual-size") == image.chs_size is not None:
        # QEMU shows only whole cylinders of a vhd by some programs, as those programs do.
        image = replace(image, virtual_size=image.chs_size)
    pairs: list[tuple[str, object, object]] = [
        ("virtual size", image.virtual_size, info.get("virtual-size"))
    ]
    pairs += format_of(image_format).compared(image, info)
    pairs += [(what, None, name) for what, name in _files_opened(info)]
    for what, mine, theirs in pairs:
        if mine != theirs:
            raise PreflightError(
                f"malformed {image_format} image: its {what} is {mine!r} to us "
                f"but {theirs!r} to qemu-img"
            )
    return image


def _files_opened(info: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What qemu-img opened besides the image, which was sound: someone has changed it since."""
    details = info.get("format-specific", {}).get("data", {})
    if name := details.get("data-file"):
        yield "external data file", name
    for extent in details.get("extents", ()):
        if extent.get("format"):  # a sparse file's own stretch has none
            yield "extent", extent.get("filename")


def _sector_size(read: Read, image: Image) -> int | None:
    """Sector size by what the image states, or by where a GUID partition table begins."""
    if image.sector_size not in (None, SECTOR):
        return image.sector_size
    first, length = image.first_block, len(_GPT_SIGNATURE)
    if first is None or (image.cluster_size or _LARGE_SECTOR * 2) <= _LARGE_SECTOR:
        return image.sector_size
    small, large = (read(first + size, length) for size in (SECTOR, _LARGE_SECTOR))
    return _LARGE_SECTOR if large == _GPT_SIGNATURE != small else SECTOR


def _device_sector_size(fd: int, status: os.stat_result) -> int | None:
    """Logical sector size of a block device with large ones."""
    if not stat.S_ISBLK(status.st_mode):
        return None
    (size,) = struct.unpack("@i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
    return int(size) if size == _LARGE_SECTOR else None


def file_identity(path: str, image_format: str) -> bytes | None:
    """What differencing images know an image file by; None when it is none that can be read."""
    try:
        with closing(open_checked(path)) as fd:
            return differencing(image_format).identity(reader(fd), file_size(fd))
    except (PreflightError, OSError):
        return None


def reader(fd: int, start: int = 0, length: int | None = None) -> Read:
    """Reads a part of an open file, offsets counted from the part's beginning.

    Args:
        fd: the file.
        start: where the part begins, in bytes.
        length: its length in bytes; None for all that the file has now.
    """
    end = file_size(fd) - start if length is None else length

    def read(offset: int, count: int) -> bytes:
        most = min(count, end - offset)
        return os.pread(fd, most, start + offset) if most > 0 else b""

    return read
