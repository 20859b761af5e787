"""What an error says to people: the reason in words, never a number of the kernel's."""

from __future__ import annotations

import errno
import os

# What the kernel's own words do not explain to those who have not written a filesystem. ext4, XFS
# and btrfs give EUCLEAN for structures that contradict each other and EBADMSG for checksums.
_WORDS = {
    errno.EUCLEAN: "damaged: its structure contradicts itself (structure needs cleaning)",
    errno.EBADMSG: "damaged: a checksum does not match what it stands for",
    errno.ENOKEY: "encrypted, and its key is not here",
    errno.ENXIO: "a device or socket, not a file",
}


def reason(error: BaseException) -> str:
    """Why something failed; of an OSError without the file's name."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    known = os.strerror(error.errno)
    stated = error.strerror or known
    return _WORDS.get(error.errno, stated) if stated == known else stated


def in_words(error: BaseException) -> str:
    """As :func:`reason`, after the name of the file where the error has one."""
    name = error.filename if isinstance(error, OSError) and error.errno is not None else None
    if not isinstance(name, (str, bytes)) or not name:
        return reason(error)
    return f"{os.fsdecode(name)}: {reason(error)}"
