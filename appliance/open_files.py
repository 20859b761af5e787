"""Files that are open for as long as a stack is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def opened(stack: contextlib.ExitStack, path: Path) -> int:
    """A descriptor of a file, for reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def memory_file(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A descriptor of a new file in memory, for reading and writing.

    Args:
        stack: closes it.
        name: for whoever looks at /proc.
        content: what it holds at first.
    """
    descriptor = os.memfd_create(f"fleetscan-{name}", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.write(descriptor, content)
    return descriptor


def memory_copy(stack: contextlib.ExitStack, name: str, descriptor: int) -> int:
    """A descriptor of a file in memory with another's content, which any user may open again."""
    copy = memory_file(stack, name, b"")
    os.sendfile(copy, descriptor, 0, os.fstat(descriptor).st_size)
    return copy


def reopened(stack: contextlib.ExitStack, descriptor: int, flags: int) -> int:
    """The same file under another access mode: a descriptor set is matched by its mode."""
    again = os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    stack.callback(os.close, again)
    return again
