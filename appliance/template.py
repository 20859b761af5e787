"""Templates: an appliance that is booted once, warmed up and saved; every machine gets a clone.

A template is two files of the cache, the guest's memory and the rest of the VM's state, with
their checksums in a third. It is keyed by all that decides what is in it, so a change of any of
these makes a new one, as does damage.

A clone maps the memory privately: what it writes is its own. That it cannot write the template
itself does not rest on QEMU (which before 8.2 opens the file for writing even to map it
privately), but on the kernel: the clones of a host map a memory file that is sealed against
writing, resizing and unsealing, made from the template's file and shared by all processes of the
user.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from fleetscan.appliance import accelerator, qemu_args
from fleetscan.appliance.built import Appliance, verify
from fleetscan.appliance.cache import cache_directory, trusted
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust, writing
from fleetscan.appliance.host.descriptors import closing, closing_on_error
from fleetscan.appliance.initrd import agent_id
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.verified import identity
from fleetscan.appliance.vm import ApplianceVM

log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_BLOCK = 1 << 20
_KEPT = 3  # templates kept; an older one was for a QEMU, kernel or agent that has gone
_SAVE_SECONDS = 60.0
_RETRY_SECONDS = 600.0  # after a failure; each try may take as long as a boot may


@dataclass(frozen=True)
class Template:
    """A saved appliance, ready to be cloned.

    Attributes:
        key: what it is of.
        memory: sealed memory file with the guest's memory, open in this process.
        state: the rest of the VM's state.
    """

    key: str
    memory: int
    state: bytes


def key_of(appliance: Appliance, options: VMOptions) -> str:
    """Content address of all that decides what is in a template: 16 hex digits."""
    nothing = qemu_args.Descriptors(root=0, agent=0, qmp=0, console=0, kernel=0, initrd=0, memory=0)
    parts = [
        accelerator.qemu_build(),
        appliance.content,
        agent_id(),
        *qemu_args.boot_argv(options, nothing),
    ]
    if options.accelerator == "kvm":
        parts.append(_host_processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _host_processor() -> str:
    """The host's processor: under KVM a named model still shows through what it has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    return "|".join(line for line in lines[:40] if line.split("\t")[0].strip() in wanted)


def prepare(appliance: Appliance, options: VMOptions) -> Template:
    """The template for these options, made now when there is none yet, or a damaged one.

    Processes that want the same template at once wait for the one that makes it. After a failure
    it is not tried again for ten minutes: the machines of a fleet must not each wait for it.

    Raises:
        ApplianceError: the appliance cannot be booted, saved, or kept in the cache.
    """
    key = key_of(appliance, options)
    until, reason = _failures.get(key, (0.0, ""))
    if time.monotonic() < until:
        raise ApplianceError(f"{reason} (tried before)")
    try:
        return _prepared(appliance, options, key)
    except (ApplianceError, OSError) as error:
        _failures[key] = (time.monotonic() + _RETRY_SECONDS, str(error))
        raise ApplianceError(f"the template could not be made: {error}") from error


_failures: dict[str, tuple[float, str]] = {}
"""Until when, by time.monotonic(), not to try for a template again, and why."""


@functools.cache
def _prepared(appliance: Appliance, options: VMOptions, key: str) -> Template:
    folder = cache_directory() / "template"
    place = folder / key
    with trusted(folder):
        writing.make_directory(folder)
    with writing.locked(folder / "lock"):
        template = _load(place)
        if template is None:
            _make(appliance, options, place)
            _forget_old(folder)
            template = _load(place)
        if template is None:
            raise ApplianceError(f"{place} does not hold what was written to it")
        os.utime(place)
        return template


def _load(place: Path) -> Template | None:
    """The template that is there; None when there is none, or not as we wrote it."""
    try:
        trust.check_directory(place)
        state = _ours(place / "state")
        sums = json.loads(_ours(place / "sums.json"))
        if sums["state"] != zlib.crc32(state):
            return None
        memory = _shared_memory(place, sums["memory"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except trust.UntrustedError as error:
        log.warning("making a template anew: %s", error)
        return None
    return None if memory is None else Template(place.name, memory, state)


def _ours(path: Path) -> bytes:
    """The content of a file that nobody else can have written."""
    with path.open("rb") as stream:
        trust.check_file(path, stream.fileno())
        return stream.read()


def _make(appliance: Appliance, options: VMOptions, place: Path) -> None:
    """Boot, warm up, save; what a crash leaves is swept away by the next call."""
    begun = time.monotonic()
    for leftover in place.parent.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    memory = os.memfd_create("fleetscan-template", os.MFD_CLOEXEC)
    try:
        verify(appliance)
        os.ftruncate(memory, options.memory_mib << 20)
        with writing.new_file(work / "state") as state:
            _boot_and_save(appliance, options, memory, state)
        with writing.new_file(work / "memory") as stream:
            _copy_sparse(memory, stream.fileno())
        sums = {"state": zlib.crc32((work / "state").read_bytes()), "memory": _checksum(memory)}
        with writing.new_file(work / "sums.json") as stream:
            stream.write(json.dumps(sums).encode())
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)  # a template is there as a whole or not at all
    finally:
        os.close(memory)
        shutil.rmtree(work, ignore_errors=True)
    log.info("made template %s in %.1f s", place.name, time.monotonic() - begun)


def _boot_and_save(
    appliance: Appliance, options: VMOptions, memory: int, state: BufferedWriter
) -> None:
    seconds = accelerator.BOOT_SECONDS[options.accelerator]
    deadline = Deadline(seconds, "the template's boot")
    with ApplianceVM(appliance, options, deadline, SessionLimits(), memory=memory) as vm:
        vm.call("warm_up", Deadline(seconds, "the template's warm-up"))
        vm.save(state.fileno(), Deadline(_SAVE_SECONDS, "saving the template"))


def _copy_sparse(source: int, target: int) -> None:
    """Copy a file's data, leaving its holes out."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in _extents(source, size):
        for offset in range(start, end, _BLOCK):
            os.pwrite(target, os.pread(source, min(_BLOCK, end - offset), offset), offset)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data, as pairs of offsets."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no data from here on
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _checksum(descriptor: int) -> int:
    """A checksum of a sparse file's content: the same whether its zeros are holes or data."""
    extents = _extents(descriptor, os.fstat(descriptor).st_size)
    starts = {at for start, end in extents for at in range(start - start % _BLOCK, end, _BLOCK)}
    value = 0
    for start in sorted(starts):
        block = os.pread(descriptor, _BLOCK, start)
        if block != bytes(len(block)):
            value = zlib.crc32(block, zlib.crc32(b"%d" % start, value))
    return value


def _forget_old(folder: Path) -> None:
    kept = sorted(folder.glob("*/state"), key=lambda path: -path.parent.stat().st_mtime)
    for state in kept[_KEPT:]:
        shutil.rmtree(state.parent, ignore_errors=True)


# -- The sealed memory file of this host -----------------------------------------------------------


def _shared_memory(place: Path, checksum: int) -> int | None:
    """A descriptor of the sealed memory file, another process' when one has it already.

    The caller holds the templates' lock. The descriptor stays open as long as this process.
    None when the template's file has another checksum.
    """
    note = place / "shared.json"
    shared = _open_shared(note, place)
    if shared is not None:
        return shared
    descriptor = _sealed_copy(place / "memory")
    if _checksum(descriptor) != checksum:
        os.close(descriptor)
        return None
    file = identity(os.fstat(descriptor))
    content = json.dumps({"pid": os.getpid(), "descriptor": descriptor, "file": file})
    with writing.replacing(note, durable=False) as stream:
        stream.write(content.encode())
    return descriptor


def _open_shared(note: Path, place: Path) -> int | None:
    try:
        kept = json.loads(_ours(note))
        path = f"/proc/{int(kept['pid'])}/fd/{int(kept['descriptor'])}"
        # Not blocking: the number may be that of another user's process by now, and lead anywhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError, KeyError, TypeError, trust.UntrustedError):
        return None
    if _is_sealed_copy(descriptor, kept.get("file"), place):
        return descriptor
    os.close(descriptor)
    return None


def _is_sealed_copy(descriptor: int, noted: object, place: Path) -> bool:
    """Whether it is the memory file that was noted, and no other that was made to look like it.

    Whoever gets the number of a process that ended can choose much of a file's, but neither its
    owner nor the time at which it was last changed.
    """
    status = os.fstat(descriptor)
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:  # not a memory file: the number was given to another process
        return False
    size = (place / "memory").stat().st_size
    ours = status.st_uid == os.geteuid() and list(identity(status)) == noted
    return seals == _SEALS and ours and status.st_size == size


def _sealed_copy(memory: Path) -> int:
    """A new memory file with the template's memory, sealed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create("fleetscan-memory", flags)
    with closing_on_error(descriptor):
        with memory.open("rb") as stream:
            trust.check_file(memory, stream.fileno())
            _copy_sparse(stream.fileno(), descriptor)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


@contextlib.contextmanager
def clone(
    appliance: Appliance,
    template: Template,
    options: VMOptions,
    deadline: Deadline,
    limits: SessionLimits,
) -> Iterator[ApplianceVM]:
    """A fresh clone of a template, its agent ready.

    Raises: as :class:`fleetscan.appliance.vm.ApplianceVM`.
    """
    with closing(os.memfd_create("fleetscan-state", os.MFD_CLOEXEC)) as state:
        os.write(state, template.state)
        os.lseek(state, 0, os.SEEK_SET)
        with ApplianceVM(
            appliance, options, deadline, limits, state=state, memory=template.memory
        ) as vm:
            yield vm
