"""The walk by the appliance's own program, ``walk.c``: the same rows, already encoded.

It reads ext filesystems with ``extfs.c`` and not with libext2fs, which takes three to five times as
long to list 1,000 directories and read the inodes of their 101,000 entries (1.47.0 with and without
its inode cache: 145 to 245 ms; ``extfs.c``: 35 to 70 ms, in turns on one host). The kernel reads
what ``extfs.c`` does not understand.

Sources: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fleetscan.appliance.ground import schema
from fleetscan.appliance.guest import tools
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.files import capability

PROGRAM = "/usr/lib/fleetscan/walk"
"""Where the appliance's build puts it."""

_CHUNK = 128 << 10
_FILES = ("names", "rare", "messages")
_EXT = ("ext2", "ext3", "ext4")


def is_there() -> bool:
    """Whether this system has the program."""
    return os.access(PROGRAM, os.X_OK)


def rows(root: Root, *, labelled: bool, program: str = PROGRAM) -> Iterator[bytes]:
    """Encoded rows, many a chunk; the same as those of the walk in Python, in another order.

    Args:
        root: the tree.
        labelled: whether it has SELinux labels.
        program: the compiled ``walk.c``.

    Raises:
        OSError: entries could not be read; raised after all rows, naming the first.
    """
    with contextlib.ExitStack() as stack:
        top = _inherited(stack, root.open_fd("/", os.O_RDONLY | os.O_DIRECTORY))
        names, rare, messages = (stack.enter_context(_memory_file(name)) for name in _FILES)
        names.write(_names(root, labelled=labelled))
        mounts = _mounts(root.top)
        for number, device in _ext_devices(mounts).items():
            descriptor = _inherited(stack, os.open(device, os.O_RDONLY))
            names.write(f"x {number} {descriptor}\n".encode())
        names.writelines(b"m %s\n" % path for path in _below(mounts, root.top))
        names.seek(0)
        failure = None
        try:
            command = [program, str(top), str(rare.fileno())]
            yield from _run(command, names, messages)
        except OSError as error:
            failure = error
        rare.seek(0)
        yield from _with_capabilities(rare)
        if failure is not None:
            raise failure


def _inherited(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    os.set_inheritable(descriptor, True)
    return descriptor


def _mounts(top: str) -> list[list[bytes]]:
    """Fields of the lines about what is mounted at a directory, and below it."""
    lines = map(bytes.split, Path("/proc/self/mountinfo").read_bytes().splitlines())
    path = os.fsencode(top)
    return [fields for fields in lines if (fields[4] + b"/").startswith(path + b"/")]


def _ext_devices(mounts: list[list[bytes]]) -> dict[int, str]:
    """Block devices of the ext filesystems among mounts, by number."""
    found = {}
    for fields in mounts:
        if fields[fields.index(b"-") + 1].decode() in _EXT:
            major, minor = map(int, fields[2].split(b":"))
            found[os.makedev(major, minor)] = _device_node(major, minor)
    return found


def _below(mounts: list[list[bytes]], top: str) -> list[bytes]:
    """Paths from a directory to what is mounted below it, as the kernel writes them."""
    paths = (fields[4].removeprefix(os.fsencode(top)) for fields in mounts)
    return [path for path in paths if path]


def _device_node(major: int, minor: int) -> str:
    name = Path(f"/sys/dev/block/{major}:{minor}").readlink().name
    return "/dev/" + name.replace("!", "/")


def _memory_file(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(name, 0), "w+b")  # the program inherits it


def _names(root: Root, *, labelled: bool) -> bytes:
    lines = [f"d {number} {_json(device)}" for number, device in root.devices.items()]
    for letter, path in (("u", "/etc/passwd"), ("g", "/etc/group")):
        try:
            known = colonfile.names_by_id(root.try_text(path) or "")
        except OSError:
            known = {}
        lines += [f"{letter} {number} {_json(name)}" for number, name in known.items()]
    if labelled:
        lines.append("labelled")
    if root.options.files == "notable":
        lines.append("notable")
    return "".join(f"{line}\n" for line in lines).encode()


def _json(text: str) -> str:
    return json.dumps(schema.escape(text), ensure_ascii=False)


def _run(command: list[str], names: BinaryIO, messages: BinaryIO) -> Iterator[bytes]:
    output, to_output = os.pipe()
    try:
        process = tools.spawn(command, (names.fileno(), to_output, messages.fileno()))
        os.close(to_output)
        to_output = -1
        try:
            yield from _whole_lines(output)
        except BaseException:
            os.kill(process, signal.SIGKILL)
            raise
        finally:
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        for descriptor in (output, to_output):
            if descriptor >= 0:
                os.close(descriptor)
    messages.seek(0)
    text = messages.read(4096).decode("utf-8", "surrogateescape").strip()
    if status != 0:
        raise OSError(errno.EIO, f"the walk ended with {status}: {text}")
    if text:
        count, _, first = text.partition(" ")
        raise unreadable(int(count), first)


def _whole_lines(descriptor: int) -> Iterator[bytes]:
    rest = b""
    while block := os.read(descriptor, _CHUNK):
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest:
        raise OSError(errno.EIO, "the walk's last row is cut off")


def _with_capabilities(rare: BinaryIO) -> Iterator[bytes]:
    """Rows whose capabilities came as the attribute's bytes, put into words."""
    for line in rare:
        row = json.loads(line)
        try:
            row["capabilities"] = capability.decode(bytes.fromhex(row["capabilities"]))
        except ValueError as error:
            del row["capabilities"]
            yield _line(row)
            raise unreadable(1, f"{row['path']}: {error}") from error
        yield _line(row)


def _line(row: dict[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def unreadable(count: int, first: str) -> OSError:
    """The error for entries that a walk had to pass over."""
    entries = "1 entry" if count == 1 else f"{count} entries"
    return OSError(f"could not read {entries}, the first being {first}")
