"""Which files an image may refer to: plain paths, in its own folder or where the user allows."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.descriptors import closing
from fleetscan.scanner.preflight.plan import DiskPolicy


def resolved(path: str) -> str:
    """A path with its symbolic links resolved, as far as they lead anywhere.

    The kernel resolves them: it gives up after 40, where `os.path.realpath` would follow a thousand
    in a row, for each of the files that somebody made of them, and then raise RecursionError.

    Raises:
        PreflightError: it is not a path, or has too many links.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PreflightError(f"{path!r} leads through too many symbolic links") from error
        return os.path.realpath(path)  # what is there of it; whoever opens it will say the rest
    except ValueError as error:
        raise PreflightError(f"{path!r} is not a path: {error}") from error
    with closing(fd):
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - as text


def allowed_directories(name: str, path: str, policy: DiskPolicy) -> tuple[str, ...]:
    """Directories, links resolved, below which files that an image refers to may lie.

    Args:
        name: the top image, as it was named.
        path: the same, links resolved.
        policy: may name more.
    """
    folders = (os.path.dirname(name), os.path.dirname(path), *policy.allowed_directories)  # noqa: PTH120
    return tuple(resolved(folder) for folder in folders)


def referred_name(reference: bytes, image: str, shown: str, role: str) -> str:
    """The path that a file name in an image means, its links unresolved.

    Args:
        reference: the name.
        image: the image that has it, as it was named.
        shown: the same for messages.
        role: what the name is for, such as "backing file".

    Raises:
        PreflightError: the name is not a plain path.
    """
    # QEMU's own rule: what has a colon before its first slash is a protocol ("json:", "nbd:").
    if b":" in reference.split(b"/", 1)[0]:
        raise PreflightError(
            f"{shown!r} names the {role} {os.fsdecode(reference)!r}, "
            "which is not a plain path and is never opened",
            # qemu-img would open what the image names, whatever that is.
            hint="if you trust whoever made the image, flatten it there: qemu-img convert",
        )
    return joined(reference, image)


def check_bounds(path: str, shown: str, role: str, allowed: Sequence[str]) -> None:
    """Make sure that a file, links resolved, lies below one of the allowed directories.

    Raises:
        PreflightError: it does not.
    """
    if not any(os.path.commonpath((path, folder)) == folder for folder in allowed):
        raise PreflightError(
            f"{shown!r} has the {role} {path!r}, which lies outside the allowed directories",
            hint="if fleetscan may read it, allow its directory with --allow-dir",
        )


def check_source(name: str, path: str, within: Sequence[str]) -> None:
    """Make sure that a disk found in a source has not been led out of it since it was listed.

    Args:
        name: the disk, as it was found.
        path: the same, links resolved.
        within: directories, links resolved, that it must be in; none for anywhere.

    Raises:
        PreflightError: it has been.
    """
    if within and not any(os.path.commonpath((path, folder)) == folder for folder in within):
        raise PreflightError(
            f"{name!r} leads to {path!r}, which lies outside of its source",
            hint="scan that file by its own name, or allow its directory with --allow-dir",
        )


def joined(reference: bytes, image: str) -> str:
    """A file name, relative ones starting from the image's directory as QEMU has it."""
    folder = os.path.dirname(os.path.abspath(image))  # noqa: PTH100, PTH120
    return os.path.join(folder, os.fsdecode(reference))  # noqa: PTH118
