"""Every directory entry of a root, by one walk over its tree.

No cases: it lists owners, modes and times, which git does not keep.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.lookups import told
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.files import capability, native
from fleetscan.scanner.tables.files.spec import File, FileType

_TYPES: dict[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_FORMAT_BITS = 0o170000
_PERMISSION_BITS = 0o7777
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_EXECUTABLE = 0o111
_BLOCK = 512  # what st_blocks counts in, whatever the filesystem's own block size (stat(2))
_PATH_LIMIT = 3000  # bytes resolved by one system call; PATH_MAX is 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ATTRIBUTE = (errno.ENODATA, errno.EOPNOTSUPP)

_NAME_FILES = ("/etc/passwd", "/etc/group")
_FD = "/proc/self/fd"
_SELINUX = "security.selinux"

_NOTABLE_TREES = ("/etc/", "/root/", "/boot/")
_NOTABLE_TOPS = ("/etc", "/root", "/boot", "/home")
_HOME_DEPTH = 3  # slashes of /home/user/entry


def collect(root: Root) -> Iterator[File | bytes]:
    """One row a directory entry, the top directory included; parents before their children.

    The appliance has a program for it, whose rows come encoded; elsewhere the walk is done here.

    One directory at a time is held in memory, whatever the size of the tree.

    Raises:
        NotApplicable: the scan does not ask for files.
        OSError: entries could not be read; raised after all rows, naming the first.
        UnreadError: filesystems of the machine's disks are not mounted; raised after all rows.
    """
    if root.options.files == "none":
        raise NotApplicable("not asked for (--files none)")
    with root.lookups.watching():
        yield from _rows(root)
    _raise_for_missing(root)


def _raise_for_missing(root: Root) -> None:
    """Report what the tree lacks.

    Raises:
        UnreadError: files, by the directories that they are below.
        OSError: names of owners or groups, and so something of every row.
    """
    for path in _NAME_FILES:
        if lacks := root.lookups.missing(path):
            raise OSError(f"{path}: {told(lacks)}")
    if lacks := [lack for lack in root.lookups.lacks if lack.local]:
        raise schema.incomplete(told(lacks), (lack.prefix for lack in lacks))


def _rows(root: Root) -> Iterator[File | bytes]:
    if native.is_there():
        yield from native.rows(root, labelled=has_labels(root))
        return
    walk = _Walk(root)
    rows = walk.rows()
    yield from rows if root.options.files == "all" else filter(notable, rows)
    walk.raise_for_unreadable()


def notable(row: File) -> bool:
    """Whether security rules ask about an entry, as the table's description lists it."""
    if row.mode & _SPECIAL_BITS or row.capabilities or row.owner is None or row.group_name is None:
        return True
    if row.mode & stat.S_IWOTH and row.type != "symlink":  # a link's mode means nothing
        return True
    path = row.path
    if row.type in ("character", "block") or path in _NOTABLE_TOPS:
        return True
    if path.startswith("/home/"):
        return path.count("/") <= _HOME_DEPTH
    return path.startswith(_NOTABLE_TREES)


def has_labels(root: Root) -> bool:
    """Whether the tree has SELinux labels: they are kept everywhere or not at all."""
    return any(_has_label(root, path) for path in ("/", "/etc"))


def _has_label(root: Root, path: str) -> bool:
    with contextlib.suppress(OSError):
        descriptor = root.open_fd(path)
        try:
            return bool(os.getxattr(descriptor, _SELINUX))
        finally:
            os.close(descriptor)
    return False


class _Walk:
    """State of one walk: what is known of the root, and what could not be read."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._unreadable = 0
        self._first = ""
        self._owners = self._names("/etc/passwd")
        self._groups = self._names("/etc/group")
        self._devices = root.devices
        self._labelled = has_labels(root)
        self._without_attributes: set[int] = set()

    def raise_for_unreadable(self) -> None:
        """Report what the walk passed over.

        Raises:
            OSError: something could not be read.
        """
        if self._unreadable:
            raise native.unreadable(self._unreadable, self._first)

    def rows(self) -> Iterator[File]:
        """All entries, depth first, those of a directory together."""
        top = self._open("/")
        try:
            row = self._row("/", os.fstat(top), top, ".", None)
        finally:
            os.close(top)
        if row:
            yield row
        pending: list[tuple[str, str | None]] = [("/", row.device if row else None)]
        while pending:
            path, device = pending.pop()
            try:
                fd = self._open(path)
            except OSError as error:
                self._note(path, error)
                continue
            try:
                yield from self._entries(fd, path, device, pending)
            except OSError as error:
                self._note(path, error)
            finally:
                os.close(fd)

    def _entries(
        self, fd: int, path: str, device: str | None, pending: list[tuple[str, str | None]]
    ) -> Iterator[File]:
        prefix = path if path == "/" else f"{path}/"
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                child = prefix + name
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._note(child, error)
                    continue
                row = self._row(child, status, fd, name, device)
                if row is None:
                    continue
                if row.type == "directory":
                    pending.append((child, row.device))
                yield row

    def _row(
        self, path: str, status: os.stat_result, fd: int, name: str, device: str | None
    ) -> File | None:
        mode = status.st_mode
        kind = _TYPES.get(mode & _FORMAT_BITS)
        if kind is None:
            self._note(path, OSError(errno.EUCLEAN, "unknown type of file"))
            return None
        target = capabilities = None
        if kind == "file":
            # Only programs gain anything by capabilities; asking for all files costs a fifth more.
            if mode & _EXECUTABLE and status.st_dev not in self._without_attributes:
                capabilities = self._capabilities(fd, name, path, status.st_dev)
        elif kind == "symlink":
            target = self._target(fd, name, path)
        return File(
            path=path,
            type=kind,
            mode=mode & _PERMISSION_BITS,
            uid=status.st_uid,
            gid=status.st_gid,
            owner=self._owners.get(status.st_uid),
            group_name=self._groups.get(status.st_gid),
            size=status.st_size,
            allocated=status.st_blocks * _BLOCK,
            links=status.st_nlink,
            inode=status.st_ino,
            # btrfs gives each subvolume a device number of its own: the parent's device it is.
            device=self._devices.get(status.st_dev, device),
            accessed=schema.microseconds(status.st_atime_ns),
            modified=schema.microseconds(status.st_mtime_ns),
            changed=schema.microseconds(status.st_ctime_ns),
            target=target,
            selinux=self._label(fd, name, path) if self._labelled else None,
            capabilities=capabilities,
        )

    def _open(self, path: str) -> int:
        encoded = os.fsencode(path)
        if len(encoded) < _PATH_LIMIT:
            return self._root.open_fd(path, _DIRECTORY)
        cut = encoded.rindex(b"/", 0, _PATH_LIMIT)
        fd = self._root.open_fd(os.fsdecode(encoded[:cut]), _DIRECTORY)
        for name in encoded[cut + 1 :].split(b"/"):
            try:
                deeper = os.open(name, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
        return fd

    def _target(self, fd: int, name: str, path: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            self._note(path, error)
            return None

    def _label(self, fd: int, name: str, path: str) -> str | None:
        value = self._attribute(fd, name, path, _SELINUX)
        return value.rstrip(b"\0").decode("utf-8", "surrogateescape") if value else None

    def _capabilities(self, fd: int, name: str, path: str, device: int) -> str | None:
        try:
            value = self._attribute(fd, name, path, "security.capability", device)
            return None if value is None else capability.decode(value)
        except ValueError as error:
            self._note(path, OSError(errno.EINVAL, str(error)))
            return None

    def _attribute(
        self, fd: int, name: str, path: str, attribute: str, device: int | None = None
    ) -> bytes | None:
        try:
            # There is no lgetxattr below a descriptor before Linux 6.13.
            return os.getxattr(f"{_FD}/{fd}/{name}", attribute, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTE:
                self._note(path, error)
            elif error.errno == errno.EOPNOTSUPP and device is not None:
                self._without_attributes.add(device)
            return None

    def _names(self, path: str) -> dict[int, str]:
        try:
            return colonfile.names_by_id(self._root.try_text(path) or "")
        except OSError as error:
            self._note(path, error)
            return {}

    def _note(self, path: str, error: OSError) -> None:
        self._unreadable += 1
        self._first = self._first or f"{path}: {reason(error)}"
