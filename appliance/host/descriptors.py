"""Descriptors that are closed: with a block, with a stack, or when what follows fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor when the block ends."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def closing_on_error(descriptor: int) -> Iterator[int]:
    """Close a descriptor when the block fails; else whoever gets it closes it."""
    try:
        yield descriptor
    except BaseException:
        os.close(descriptor)
        raise


def held(stack: contextlib.ExitStack, descriptor: int) -> int:
    """A descriptor that a stack closes."""
    stack.callback(os.close, descriptor)
    return descriptor


def opened(stack: contextlib.ExitStack, path: Path) -> int:
    """A descriptor of a file, for reading."""
    return held(stack, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def memory_file(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A descriptor of a new file in memory, for reading and writing.

    Args:
        stack: closes it.
        name: for whoever looks at /proc.
        content: what it holds at first.
    """
    descriptor = held(stack, os.memfd_create(f"fleetscan-{name}", os.MFD_CLOEXEC))
    os.write(descriptor, content)
    return descriptor


def memory_copy(stack: contextlib.ExitStack, name: str, descriptor: int) -> int:
    """A descriptor of a file in memory with another's content, which any user may open again."""
    copy = memory_file(stack, name, b"")
    os.sendfile(copy, descriptor, 0, os.fstat(descriptor).st_size)
    return copy


def reopened(stack: contextlib.ExitStack, descriptor: int, flags: int) -> int:
    """The same file under another access mode: a descriptor set is matched by its mode."""
    return held(stack, os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC))
