"""Whether others than we could have changed what is in a directory.

Others are all users but us and root. A directory is ours alone when nobody else could have put,
replaced or changed anything on the way to it: each directory and link that its path leads through
belongs to us or to root, and none of the directories can be written by its group or by everybody.
Directories in which each user can only replace his own files (the sticky bit, as /tmp has it) may
be on the way, as what follows is looked at as well.

OpenSSH judges the way to a user's keys alike (``safe_path`` in its misc.c).
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from fleetscan.appliance.ground.errors import FleetscanError

_MOST_LINKS = 40  # as path_resolution(7)
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_ACL = "system.posix_acl_access"  # acl(5); its entries may stand behind the group's bits


class UntrustedError(FleetscanError):
    """Other users could have changed something that must be ours alone."""


def check_directory(path: Path) -> None:
    """Make sure that a directory, as far as it is there, is ours alone.

    Raises:
        UntrustedError: it is not.
        OSError: it cannot be looked at.
    """
    for place, status in _way(path.absolute()):
        check_owner(place, status)
        if not stat.S_ISLNK(status.st_mode) and not status.st_mode & stat.S_ISVTX:
            check_mode(place, status)
    with contextlib.suppress(FileNotFoundError):
        check_mode(path, path.stat())  # for which the sticky bit is not enough


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The directories and links that a path leads through, as path_resolution(7) says."""
    left, here, links = list(reversed(path.parts)), Path("/"), 0
    while left:
        part = left.pop()
        here = here.parent if part == ".." else here / part
        try:
            status = here.lstat()
        except FileNotFoundError:
            return
        yield here, status
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise UntrustedError(f"{path} leads through too many links")
            left += reversed(here.readlink().parts)
            here = here.parent


def check_file(path: Path, descriptor: int) -> os.stat_result:
    """Make sure that an open file is a regular one that only we and root could have written.

    Args:
        path: for errors; nobody else can write to the directory that it is in.
        descriptor: the file.

    Raises:
        UntrustedError: it is not.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError(f"{path} is not a regular file", hint="remove it")
    check_owner(path, status)
    check_mode(path, status)
    return status


def check_owner(path: Path, status: os.stat_result) -> None:
    """Make sure that something belongs to us or to root.

    Raises:
        UntrustedError: it does not.
    """
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(
            f"{path} belongs to {_user(status.st_uid)}, who could have changed its content"
        )


def check_mode(path: Path, status: os.stat_result) -> None:
    """Make sure that neither group nor others may write something.

    Raises:
        UntrustedError: they may.
    """
    others = status.st_mode & _WRITABLE
    if not others or (others == stat.S_IWGRP and _is_private_group(path, status)):
        return
    mode = stat.S_IMODE(status.st_mode)
    raise UntrustedError(
        f"{path} can be written by other users (mode {mode:04o}), who could have changed what is "
        "used from it",
        hint=f"if you trust its content: chmod go-w {path}",
    )


def _is_private_group(path: Path, status: os.stat_result) -> bool:
    """Whether the group is its owner's own, with nobody else in it, as many systems have it."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    with contextlib.suppress(OSError):  # a filesystem without extended attributes has no ACLs
        if _ACL in os.listxattr(path, follow_symlinks=False):
            return False
    alone = set(group.gr_mem) <= {owner.pw_name}
    return alone and owner.pw_gid == status.st_gid and group.gr_name == owner.pw_name


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"
