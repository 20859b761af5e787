"""What preflight decides about a disk, and what it may allow."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.descriptors import closing_on_error
from fleetscan.scanner.preflight.image import ExtentReference, Mark, Snapshot


@dataclass(frozen=True)
class QemuImgLimits:
    """What one run of ``qemu-img`` on a hostile file may use.

    ``qemu-img info`` of a sound image takes 10 ms of CPU time, 100 MiB of address space and less
    than 4 KiB of output; the defaults leave a hundred times that for slow, loaded hosts.

    Attributes:
        cpu_seconds: CPU time.
        address_space: virtual memory, in bytes.
        output_bytes: standard output and error, each, in bytes.
        wall_seconds: time by the clock; also bounds the check of one image's tables.
        disk_seconds: time by the clock for all files of a disk, of which there may be thousands.
    """

    cpu_seconds: int = 5
    address_space: int = 1 << 30
    output_bytes: int = 1 << 20
    wall_seconds: float = 20.0
    disk_seconds: float = 60.0


@dataclass(frozen=True)
class DiskPolicy:
    """What a disk may refer to.

    Attributes:
        allowed_directories: where backing files may be, besides the top image's own directory.
        max_depth: most layers of a backing chain, the top one included.
        limits: for helpers that read the image.
        live: images in use by a running guest are read, and said to be so, instead of refused.
        confirm: headers are read a second time by ``qemu-img``. Who opens no image by its plan may
            do without, which takes a tenth of the time.
    """

    allowed_directories: tuple[str, ...] = ()
    max_depth: int = 16
    limits: QemuImgLimits = field(default_factory=QemuImgLimits)
    live: bool = False
    confirm: bool = True


@dataclass(frozen=True)
class DiskLayer:
    """One file of a backing chain, as it was when preflight looked at it.

    Attributes:
        path: absolute, symbolic links resolved.
        format: the format to open it as; never to be guessed again.
        device: ``st_dev`` of the file; ``st_rdev`` of a block device.
        inode: ``st_ino``.
        size: length in bytes.
        mtime_ns: last change of content, nanoseconds since 1970 UTC.
        ctime_ns: last change of any kind, likewise; nobody can set it back.
        driver: QEMU's driver that reads it.
        start: where in the file the image begins, in bytes.
        length: how much of the file the driver gets, in bytes; None for all that follows.
        replay: it has a log that must be replayed, onto an overlay, before it is read.
        extents: the files that hold the disk's content, when this one only describes it.
        cid: the content ids of a vmdk that only describes a disk.
        luks_uuid: UUID of the LUKS header in an encrypted image; None for others.
        mapped: it is part of a chain of differencing images, which QEMU reads through tables that
            are made when it is opened.
        virtual_size: the size that a guest sees, in bytes.
        certain: more than the file's own header speaks for its format.
    """

    path: str
    format: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    driver: str
    start: int = 0
    length: int | None = None
    replay: bool = False
    extents: tuple[Extent, ...] = ()
    cid: tuple[int, int] | None = None
    luks_uuid: str | None = None
    mapped: bool = False
    virtual_size: int = 0
    certain: bool = False


@dataclass(frozen=True)
class Extent:
    """A stretch of a disk in a file of its own.

    Attributes:
        reference: as the image's descriptor has it.
        file: the file that it names.
    """

    reference: ExtentReference
    file: DiskLayer


@dataclass(frozen=True)
class DiskPlan:
    """How to open a disk.

    Attributes:
        layers: the backing chain, top first.
        virtual_size: the size that a guest sees, in bytes.
        cluster_size: cluster size of the top layer in bytes; None for raw.
        allocated: space that the top layer occupies on its host, in bytes.
        sector_size: logical sector size that a guest is to see, in bytes.
        snapshots: the top layer's internal snapshots.
        mark: what the top layer is marked as.
        identity: SHA-256 over what identifies each layer's content, in hex; None when nothing
            does, as a block device's times do not follow its content, nor a running guest's.
        in_use: a running guest may be writing to it; only ever true under ``DiskPolicy.live``.
    """

    layers: tuple[DiskLayer, ...]
    virtual_size: int
    cluster_size: int | None
    allocated: int
    sector_size: int
    snapshots: tuple[Snapshot, ...]
    mark: Mark | None
    identity: str | None
    in_use: bool = False

    @property
    def backing_chain(self) -> tuple[str, ...]:
        """Paths of the layers below the top one, nearest first."""
        return tuple(layer.path for layer in self.layers[1:])

    @property
    def format_certain(self) -> bool:
        """Whether the disk's format was stated, or its file's name and header agree on it.

        Only such an image is believed when it says that other files belong to it.
        """
        return self.layers[0].certain

    @property
    def encrypted(self) -> bool:
        """Whether a layer's format encrypts its content, so that it takes a key to be opened."""
        return any(layer.luks_uuid is not None for layer in self.layers)

    @property
    def extent_files(self) -> tuple[str, ...]:
        """Paths of the files that hold content of layers that only describe it."""
        return tuple(extent.file.path for layer in self.layers for extent in layer.extents)


def file_device(status: os.stat_result) -> int:
    """The number that names a file's filesystem, or the block device that it is."""
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev


def file_size(fd: int) -> int:
    """Length of a file or block device in bytes."""
    return os.lseek(fd, 0, os.SEEK_END)


def open_checked(path: str) -> int:
    """Open a regular file or block device read-only, following no symbolic link anywhere.

    Args:
        path: absolute, symbolic links resolved.

    Raises:
        PreflightError: it cannot be opened, is something else, or has moved.
    """
    try:
        # Looked at before it is opened: opening a FIFO or tape drive has effects of its own.
        _check_kind(os.lstat(path).st_mode, path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        hint = "run as a user who may read it" if isinstance(error, PermissionError) else ""
        raise PreflightError(f"{path!r} cannot be opened: {error.strerror}", hint=hint) from error
    with closing_on_error(fd):
        _check_kind(os.fstat(fd).st_mode, path)
        _check_place(fd, path)
    return fd


def _check_place(fd: int, path: str) -> None:
    """Make sure that no folder on the way has become a link since its links were resolved."""
    if os.readlink(f"/proc/self/fd/{fd}") != "/" + path.lstrip("/"):  # noqa: PTH115 - as text
        raise PreflightError(
            f"{path!r} no longer leads to the same file: something on the way to it is a link now",
            hint="scan it when nothing renames or replaces it",
        )


def open_layer(layer: DiskLayer, *, live: bool = False) -> int:
    """Open a layer read-only to read its content, and make sure it is the same file.

    Args:
        layer: as a plan has it.
        live: the file may have been written to since, being in use; it must still be that file.

    Returns:
        A descriptor that is closed on exec.

    Raises:
        PreflightError: it cannot be opened, or is not what preflight saw.
    """
    fd = open_checked(layer.path)
    with closing_on_error(fd):
        status = os.fstat(fd)
        same = (file_device(status), status.st_ino) == (layer.device, layer.inode)
        if not live and same:
            now = (file_size(fd), status.st_mtime_ns, status.st_ctime_ns)
            same = now == (layer.size, layer.mtime_ns, layer.ctime_ns)
        if not same:
            raise PreflightError(
                f"{layer.path!r} changed while being scanned",
                hint="scan it when nothing writes to it, or use --live",
            )
    return fd


def identity_of(files: Sequence[tuple[str, int, int, int, int]]) -> str:
    """SHA-256 over what identifies the content of a chain's files, in hex.

    The device number stays out: it changes with reboots and mounts where the file does not. So do
    the folders above the chain, as another mount point is no change.

    Args:
        files: path, inode number, length in bytes, and times of the last change of content and of
            any change, in nanoseconds, of each layer, top first, and then of each extent. The
            first three can be restored after a change, the last cannot.
    """
    top = os.path.dirname(files[0][0])  # noqa: PTH120 - paths stay text
    digest = hashlib.sha256()
    for path, *state in files:
        digest.update(repr((os.path.relpath(path, top), *state)).encode())
    return digest.hexdigest()


def identity_of_token(token: str) -> str:
    """The same for a token that an inventory gives; then only the token decides."""
    return f"token-{hashlib.sha256(os.fsencode(token)).hexdigest()}"


def _check_kind(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise PreflightError(f"{path!r} is neither a regular file nor a block device")
