"""``qemu-img`` on hostile files: confined as QEMU is, limited, and killed in time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from typing import Any

from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import Needs, Process, confined
from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.command import OutputTooLongError, Printed
from fleetscan.scanner.preflight.image import SECTOR
from fleetscan.scanner.preflight.plan import QemuImgLimits

_VHDX_LOG = b"contains a log that needs to be replayed"
_OVERLAY_BYTES = 256 << 20  # a log has 1 MiB as a rule; each of its pages may fill a cluster
_OPEN_FILES = 64


class UnreplayedLogError(PreflightError):
    """An image's log must be replayed before it can be read."""


def image_info(
    fd: int, driver: str, limits: QemuImgLimits, start: int = 0, length: int | None = None
) -> dict[str, Any]:
    """What ``qemu-img info`` says of an open image; its backing file is not opened.

    Call it only for images that refer to no other file for their data: qemu-img would open that.

    Args:
        fd: descriptor of the image.
        driver: QEMU's driver that reads it.
        limits: for the helper.
        start: where in the file the image begins, in bytes.
        length: its length in bytes; None when it is the whole file.

    Returns:
        The JSON object as qemu-img prints it; ``Any``, as its values are whatever the image says.

    Raises:
        UnreplayedLogError: its log must be replayed before it can be read.
        PreflightError: qemu-img refuses the image, or exceeded its limits.
    """
    command = info_command(fd, driver, start, length)
    try:
        answer = json.loads(run_limited(command, limits, fd))
    except ValueError as error:
        raise PreflightError("qemu-img gave no answer that can be read") from error
    if not isinstance(answer, dict):
        raise PreflightError("qemu-img gave no answer that can be read")
    return answer


def info_command(fd: int, driver: str, start: int = 0, length: int | None = None) -> list[str]:
    """The arguments for :func:`image_info`.

    The image is named by its descriptor, so that no file name is ever taken for an option or a
    protocol, and nothing can be put in its place meanwhile.
    """
    info = ("qemu-img", "info", "--force-share", "--output=json")
    return [*info, *_image_words(fd, driver, start, length)]


def replay_log(fd: int, limits: QemuImgLimits, start: int, length: int, overlay: int) -> None:
    """Replay the log of a vhdx that was not closed cleanly, onto an overlay instead of it.

    Args:
        fd: descriptor of the image.
        limits: for the helper.
        start: where in the file the image begins, in bytes.
        length: its length in bytes.
        overlay: an empty file, open for writing, which becomes a qcow2 image. On top of the image
            file it holds what the file would be.

    Raises:
        PreflightError: qemu-img cannot replay it, or exceeded its limits.
    """
    top, sectors = f"/proc/self/fd/{overlay}", -(-length // SECTOR)
    part = f"file.backing.driver=raw,file.backing.offset={start},file.backing.read-only=on"
    below = f"file.backing.file.driver=file,file.backing.file.filename=/proc/self/fd/{fd}"
    below += ",file.backing.file.locking=off"
    above = f"file.driver=qcow2,file.file.driver=file,file.file.filename={top}"
    for words in (
        ("create", "-q", "-f", "qcow2", top, str(sectors * SECTOR)),
        ("check", "-q", "-r", "all", "--image-opts", f"driver=vhdx,{above},{part},{below}"),
    ):
        run_limited(["qemu-img", *words], limits, fd, overlay, writes=_OVERLAY_BYTES)


def _image_words(fd: int, driver: str, start: int, length: int | None) -> list[str]:
    path = f"/proc/self/fd/{fd}"
    if length is None:
        return ["-f", driver, path]
    part = f"file.driver=raw,file.offset={start},file.size={length}"
    file = f"file.file.driver=file,file.file.filename={path}"
    return ["--image-opts", f"driver={driver},{part},{file}"]


def readers(status: os.stat_result) -> tuple[int | None, int | None]:
    """User and group that the helper must be to read a file; None where anybody will do.

    Args:
        status: of the file.
    """
    if status.st_mode & stat.S_IROTH:
        return None, None
    if status.st_mode & stat.S_IRGRP:
        return None, status.st_gid
    return status.st_uid, status.st_gid


def run_limited(argv: list[str], limits: QemuImgLimits, *fds: int, writes: int = 0) -> bytes:
    """Run a helper that inherits some descriptors, the image's first, and return what it prints.

    Args:
        argv: the helper's words.
        limits: what it may use.
        fds: what it inherits, and may open again by its path.
        writes: how long a file that it writes may become, in bytes.

    Raises:
        UnreplayedLogError: the image has a log that must be replayed before it can be read.
        PreflightError: the helper failed, printed too much or took too long.
        ApplianceError: the helper cannot be started.
    """
    needs = Needs(
        descriptors=fds,
        reopened=fds,
        creates=writes > 0,
        writes=writes,
        memory_bytes=limits.address_space,
        cpu_seconds=limits.cpu_seconds,
        open_files=_OPEN_FILES,
        readable_by=readers(os.fstat(fds[0])),
    )
    pipe = subprocess.PIPE
    with confined(argv, needs, layers.current(), stdout=pipe, stderr=pipe) as process:
        output, errors = _collect(process, limits)
    if _VHDX_LOG in errors:
        raise UnreplayedLogError("it was not closed cleanly and has a log to be replayed")
    if process.status:
        raise PreflightError(f"qemu-img refuses it: {_reason(errors, process.status, fds[0])}")
    return output


def _collect(process: Process, limits: QemuImgLimits) -> tuple[bytes, bytes]:
    """Both outputs of a helper that has ended in time."""
    deadline = time.monotonic() + limits.wall_seconds
    printed = Printed(limits.output_bytes)
    try:
        printed.read_all(process.popen, deadline)
        process.wait(max(0.0, deadline - time.monotonic()))
    except OutputTooLongError as error:
        raise PreflightError(f"qemu-img printed more than {limits.output_bytes} bytes") from error
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise PreflightError(f"qemu-img took more than {limits.wall_seconds:g} seconds") from error
    return bytes(printed.output), bytes(printed.errors)


def _reason(errors: bytes, status: int, fd: int) -> str:
    text = errors.decode("utf-8", "backslashreplace").strip()
    if status < 0:
        return f"killed by signal {-status} (its limits are CPU time, memory and output)"
    line = text.splitlines()[-1] if text else f"status {status}"
    for noise in ("qemu-img: ", f"Could not open '/proc/self/fd/{fd}': "):
        line = line.removeprefix(noise)
    return line[:500]
