"""A root: one operating system's tree, opened below its mount and never out of it.

Collectors touch files through this object alone. Every path is resolved by the kernel with
openat2(2) and RESOLVE_IN_ROOT, so that symbolic links, absolute ones included, mean what they
mean inside the scanned system, and can never lead into the appliance or (with LocalAppliance)
the host.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeVar, cast, runtime_checkable

from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.lookups import Lack, Lookups, LostLookups
from fleetscan.appliance.guest.resolving import openat2

READ_LIMIT = 16 << 20
"""Largest file that a collector reads whole, in bytes, unless it asks for another limit."""

_TELLING = frozenset(("windows", "winnt", "etc"))
_SHELLS = ("bin/sh", "usr/bin/sh", "bin/busybox")
_WINDOWS_HIVES = ("SYSTEM", "SOFTWARE")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_READ_FLAGS = os.O_NOCTTY | os.O_NONBLOCK  # a FIFO or a terminal must not hold a collector up


@dataclass(frozen=True)
class Mount:
    """One line of a root's mount table, as resolved by the agent.

    Attributes: as the columns of the ``mountpoints`` table; and
        remote: whether what belongs there is not on this machine's disks.
    """

    path: str
    device: str | None
    mounted: bool
    source: str | None = None
    type: str | None = None
    options: tuple[str, ...] = ()
    subvolume: str | None = None
    check_pass: int | None = None
    error: str | None = None
    remote: bool = False

    @property
    def lack(self) -> Lack | None:
        """What the tree lacks for its not being mounted; None for nothing."""
        if self.error is None:
            return None
        optional = bool({"noauto", "nofail"} & set(self.options))
        return Lack(self.path, self.error, local=not (optional or self.remote))


@runtime_checkable
class Closable(Protocol):
    """What has to be let go of."""

    def close(self) -> None:
        """Let go of it."""


T = TypeVar("T")


class FileTooLargeError(OSError):
    """A file is longer than the limit its reader set."""


@dataclass
class Root:
    """One operating system's tree.

    Args:
        name: the value of the ``root`` column, such as ``/dev/sda2``.
        top: directory where the tree is mounted.
        mounts: the tree's mount table.
        options: what the scan asks for.
        devices: device number (``st_dev``) of each mounted filesystem to its device name.
        problems: why the mount table may not be the system's whole.
        unknown: why anything may be mounted anywhere; empty when the mount table is known.

    Use it as a context manager, or call :meth:`close`.

    Names in a Windows tree are found whatever the case of their letters, as Windows does.
    """

    name: str
    top: str
    mounts: tuple[Mount, ...] = ()
    options: FactOptions = field(default_factory=FactOptions)
    devices: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unknown: str = ""

    def __post_init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}
        self._made: dict[Callable[[Root], object], tuple[object, LostLookups]] = {}
        self._fd = os.open(self.top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        lacks = [mount.lack for mount in self.mounts if mount.lack]
        lacks += [Lack("/", self.unknown)] if self.unknown else []
        self.lookups = Lookups(lacks, self._link)

    def once(self, make: Callable[[Root], T]) -> T:
        """What a function makes of this root: made once, for collectors that need the same.

        It is closed with the tree, if it can be closed.

        Raises: as the function.
        """
        if make not in self._made:
            with self.lookups.watching() as lost:
                self._made[make] = make(self), lost
        made, lost = self._made[make]
        self.lookups.add(lost)
        return cast("T", made)

    def close(self) -> None:
        """Let go of the tree, so that it can be unmounted."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        while self._made:
            made = self._made.popitem()[1][0]
            if isinstance(made, Closable):
                made.close()

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @functools.cached_property
    def windows(self) -> str | None:
        """The directory that Windows is installed in, such as ``/Windows``; None without one."""
        names = self._listed(".", _TELLING)
        # A Unix may have mounted a Windows disk; programs leave a folder etc on a Windows one.
        if "etc" in names and any(map(self._is_there, _SHELLS)):
            return None
        for name in (name for name in names if name != "etc"):
            config = f"{name}/System32/config"
            if any(self._as_stored(f"{config}/{hive}") for hive in _WINDOWS_HIVES):
                return f"/{name}"
        return None

    def open_fd(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a path of the guest and return its descriptor.

        Raises:
            OSError: as open(2) would.
        """
        name = path.lstrip("/") or "."
        try:
            if self.lookups.lacks:
                return self._open_noted(path, flags)
            return self._open_exactly(name, flags)
        except FileNotFoundError:
            stored = self._as_stored(name) if name != "." and self.windows else None
            if stored is None or stored == name:
                raise
        return self._open_exactly(stored, flags)

    def _open_noted(self, path: str, flags: int) -> int:
        """Open a path and note what is missing of the way there.

        The kernel says whether there are links on the way. Only these must be read one by one.
        """
        plain = self.lookups.plain(path)
        if plain is not None:
            try:
                return self._open_exactly(plain or ".", flags, links=False)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
        self.lookups.note(path)
        return self._open_exactly(path.lstrip("/") or ".", flags)

    def _open_exactly(self, name: str, flags: int, *, links: bool = True) -> int:
        if not flags & os.O_PATH:  # openat2 refuses flags that mean nothing beside O_PATH
            flags |= _READ_FLAGS
        return openat2(self._fd, name, flags | os.O_CLOEXEC, links=links)

    def _link(self, path: str) -> str | None:
        """What a path holds that is a symbolic link, without its being a lookup."""
        with contextlib.suppress(OSError):
            fd = self._open_exactly(path.lstrip("/") or ".", os.O_PATH | os.O_NOFOLLOW)
            try:
                is_link = stat.S_ISLNK(os.fstat(fd).st_mode)
                return os.readlink("", dir_fd=fd) if is_link else None
            finally:
                os.close(fd)
        return None

    def _is_there(self, path: str) -> bool:
        """Whether there is something of exactly this name, if only a link."""
        with contextlib.suppress(OSError):
            os.close(self._open_exactly(path, os.O_PATH | os.O_NOFOLLOW))
            return True
        return False

    def _as_stored(self, path: str) -> str | None:
        """A path with the letters that its directories have it by; None when there is no such."""
        stored = ""
        for part in path.split("/"):
            if part in ("", ".", ".."):
                stored += f"{part}/"
                continue
            if stored not in self._names:
                self._names[stored] = self._names_by_lower(stored)
            name = self._names[stored].get(part.lower())
            if name is None:
                return None
            stored += f"{name}/"
        return stored.rstrip("/")

    def _names_by_lower(self, directory: str) -> dict[str, str]:
        return {name.lower(): name for name in self._listed(directory or ".")}

    def _listed(self, directory: str, only: frozenset[str] = frozenset()) -> list[str]:
        """Names in a directory, sorted; none where it cannot be read.

        Args:
            directory: the directory.
            only: in lower case, the names that are wanted; none for all.
        """
        try:
            fd = self._open_exactly(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            with os.scandir(fd) as entries:
                names = (entry.name for entry in entries)
                return sorted(name for name in names if not only or name.lower() in only)
        except OSError:  # it is damaged
            return []
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a regular file for reading bytes.

        Raises:
            OSError: it does not exist or cannot be opened.
            IsADirectoryError: it is a directory.
            OSError (EINVAL): it is a device, FIFO or socket.
        """
        with os.fdopen(self._open_regular(path), "rb") as stream:
            yield stream

    def _open_regular(self, path: str) -> int:
        try:
            descriptor = self.open_fd(path)
        except PermissionError as error:
            # The tree is mounted with "nodev", so that no device can be opened.
            if self.exists(path) and not self.is_file(path):
                raise OSError(errno.EINVAL, "not a regular file", path) from error
            raise
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a regular file", path)

    def read_bytes(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """A file's whole content.

        Raises:
            FileTooLargeError: it is longer than ``limit`` bytes.
            OSError: as :meth:`open`.
        """
        # Without a buffered stream: collectors read hundreds of small files.
        descriptor = self._open_regular(path)
        try:
            size = min(os.fstat(descriptor).st_size, limit) + 1
            blocks = []
            left = limit + 1
            while left > 0 and (block := os.read(descriptor, min(size, left))):
                blocks.append(block)
                left -= len(block)
        finally:
            os.close(descriptor)
        if left <= 0:
            raise FileTooLargeError(errno.EFBIG, f"larger than {limit} bytes", path)
        return b"".join(blocks)

    def read_text(self, path: str, limit: int = READ_LIMIT) -> str:
        """A file's whole content as text; bytes that are not UTF-8 become surrogates.

        Raises: as :meth:`read_bytes`.
        """
        return self.read_bytes(path, limit).decode("utf-8", "surrogateescape")

    def try_text(self, path: str, limit: int = READ_LIMIT) -> str | None:
        """As :meth:`read_text`, or None where there is no such file."""
        try:
            return self.read_text(path, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        """As os.stat, links resolved inside the root.

        Raises:
            OSError: it does not exist.
        """
        fd = self.open_fd(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Whether the path leads to anything, links followed."""
        return self._mode(path) is not None

    def is_dir(self, path: str) -> bool:
        """Whether the path leads to a directory."""
        mode = self._mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def is_file(self, path: str) -> bool:
        """Whether the path leads to a regular file."""
        mode = self._mode(path)
        return mode is not None and stat.S_ISREG(mode)

    def is_link(self, path: str) -> bool:
        """Whether the path itself is a symbolic link."""
        mode = self._mode(path, follow=False)
        return mode is not None and stat.S_ISLNK(mode)

    def _mode(self, path: str, *, follow: bool = True) -> int | None:
        try:
            return self.stat(path, follow=follow).st_mode
        except OSError as error:
            # What cannot be read is not absent: whoever asked for it lacks it.
            if error.errno not in _ABSENT:
                self.lookups.add(LostLookups(unseen={path: reason(error)}))
            return None

    def readlink(self, path: str) -> str:
        """What a symbolic link holds, as it stands.

        Raises:
            OSError: it is not a symbolic link.
        """
        fd = self.open_fd(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; an empty list where there is no such directory."""
        try:
            fd = self.open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def glob(self, directory: str, pattern: str = "*") -> list[str]:
        """Paths of a directory's entries whose names match a shell pattern, sorted."""
        base = directory.rstrip("/")
        return [
            f"{base}/{name}" for name in self.listdir(directory) if fnmatch.fnmatch(name, pattern)
        ]

    def copy_out(self, path: str, destination: str, limit: int) -> None:
        """Copy a file to the appliance's own memory, for libraries that want a writable path.

        Raises:
            FileTooLargeError: it is longer than ``limit`` bytes.
            OSError: as :meth:`open`.
        """
        with self.open(path) as source, open(destination, "wb") as target:
            if os.fstat(source.fileno()).st_size > limit:
                raise FileTooLargeError(errno.EFBIG, f"larger than {limit} bytes", path)
            left = limit
            while left > 0 and (block := source.read(min(1 << 20, left))):
                left -= len(block)
                target.write(block)
