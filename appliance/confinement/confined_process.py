"""Starting a program that is to read hostile bytes, and seeing to its end.

bubblewrap (https://github.com/containers/bubblewrap) makes the namespaces and the root and loads
the filter of system calls; our starter gives the Landlock rules and executes the program. The
program is the first process of its pid namespace: when it ends, nothing of it is left. bubblewrap
itself stays outside as its parent, and ends with its status.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Literal

from fleetscan.appliance.confinement import identity, rootfs, starter, syscalls
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host.descriptors import memory_file
from fleetscan.appliance.privileges import (
    CONSOLE_BYTES,
    KVM,
    ProcessLimits,
    environment,
    kvm_group,
    limited,
)

_KILL_SECONDS = 10
_START_SECONDS = 30
_STARTER = "/start"
_STARTER_BYTES = 4096  # bubblewrap writes it into the root; it sets the lower limit itself
_NAMESPACES = ("ipc", "pid", "net", "uts", "cgroup")

Stream = int | IO[bytes] | None
"""As subprocess takes it."""


@dataclass(frozen=True)
class LayersInUse:
    """Which layers of confinement are used.

    Attributes:
        namespaces: made by an unprivileged user inside a user namespace ("user"), or by root
            without one ("root"); None for none, and so no root of its own either.
        exact_root: the root holds what the program needs; else all of /usr.
        user: whom root lets programs be: each a user of its own, or all nobody; "same" where we
            are no root, or one without power over user ids, as in a container that maps no other.
        seccomp: the list of allowed system calls is loaded.
        landlock: the version of Landlock's rules; 0 for none.
    """

    namespaces: str | None
    exact_root: bool
    user: Literal["own", "nobody", "same"]
    seccomp: bool
    landlock: int


@dataclass(frozen=True)
class Needs:
    """What a program needs of us.

    Attributes:
        descriptors: what it inherits.
        reopened: those of them that it opens again by their path in /proc, for reading.
        kvm: whether it uses /dev/kvm.
        creates: whether it opens files as new ones.
        writes: how long the files that it writes may become, in bytes.
        memory_bytes: address space that it may have; None for any.
        cpu_seconds: time on the processor that it may have; None for any.
        open_files: how many it may have at a time.
        readable_by: user and group that may read what it opens again; None where anybody may.
    """

    descriptors: tuple[int, ...] = ()
    reopened: tuple[int, ...] = ()
    kvm: bool = False
    creates: bool = False
    writes: int = CONSOLE_BYTES
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int = 1024
    readable_by: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True)
class _Ends:
    """The program's ends of two pipes: one that reports its process id, and one that we hold."""

    report: int
    alive: int


class Process:
    """A program that runs.

    Attributes:
        name: the program's.
        popen: what we started, whose streams are the program's: bubblewrap, or the program.
        pid: the program's own process id.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], pid: int) -> None:
        self.name = name
        self.popen = popen
        self.pid = pid
        self._handle: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and bubblewrap told us
            self._handle = os.pidfd_open(pid)

    @property
    def status(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it runs."""
        code = self.popen.poll()
        return code if code is None or code <= 128 else 128 - code

    def wait(self, seconds: float) -> None:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self.popen.wait(seconds)

    def kill(self) -> None:
        """Kill it, and do not wait."""
        with contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def end(self) -> None:
        """Kill and reap it, whatever state it is in; nothing of it is left then.

        Raises:
            ApplianceError: the kernel does not let go of it.
        """
        end = time.monotonic() + _KILL_SECONDS
        self.kill()
        ready = self._handle is None or _readable(self._handle, _KILL_SECONDS)
        if self._handle is not None:
            os.close(self._handle)
        try:
            # The group's other processes, if it could have any, and bubblewrap should it hang.
            # Not once it was waited for: the number could be another group's by then.
            alone = self.popen.pid == self.pid
            if self.popen.returncode is None and (alone or not ready):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.popen.pid, signal.SIGKILL)
            with self.popen:  # which closes our ends of its streams
                self.popen.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            ready = False
        if not ready:
            raise ApplianceError(
                f"{self.name} (process {self.pid}) was killed but does not end",
                hint="check whether the storage that holds the images responds",
            )


@contextlib.contextmanager
def confined(
    argv: Sequence[str],
    needs: Needs,
    layers: LayersInUse,
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
) -> Iterator[Process]:
    """A program that runs confined until the block ends; then it is dead and reaped.

    Raises:
        ApplianceError: it cannot be started; at the end: the kernel does not let go of it.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as ours:
            report, reported = os.pipe()
            ours.callback(os.close, report)
            alive, held = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ours.callback(os.close, alive)
            stack.callback(os.close, held)  # it closes when we end, which the program sees
            user = _user(stack, needs, layers)
            if user is not None and user[0] == 0 and layers.namespaces:
                # Since Linux 5.12 whoever has no capability cannot map root into a user namespace.
                layers = replace(layers, namespaces="root")
            try:
                ends = _Ends(reported, alive)
                command, passed = _command(ours, argv, needs, layers, user, ends)
                popen = _started(command, passed, (stdin, stdout, stderr))
            finally:
                os.close(reported)
            try:
                pid = popen.pid if layers.namespaces is None else _reported(report)
                process = Process(argv[0], popen, pid)
            except (OSError, ValueError) as error:
                raise _not_started(popen, argv, stderr) from error
        stack.callback(process.end)
        yield process


def _user(
    stack: contextlib.ExitStack, needs: Needs, layers: LayersInUse
) -> tuple[int, int, tuple[int, ...]] | None:
    """User, group and further groups that the program gets; None to stay whom we are."""
    if layers.user == "same":
        return None
    own = identity.NOBODY
    if layers.user == "own":
        own = stack.enter_context(identity.own_user())
    user, group = needs.readable_by
    groups = (kvm_group(),) if needs.kvm else ()
    return (
        own if user is None else user,
        own if group is None else group,
        tuple(number for number in groups if number is not None),
    )


def _command(
    stack: contextlib.ExitStack,
    argv: Sequence[str],
    needs: Needs,
    layers: LayersInUse,
    user: tuple[int, int, tuple[int, ...]] | None,
    ends: _Ends,
) -> tuple[list[str], tuple[int, ...]]:
    """What is executed, and the descriptors that it inherits: those of ours are the stack's."""
    inside = layers.namespaces == "root"  # the namespaces are made before the user is changed
    become = user if inside and user is not None and user[0] != 0 else None
    passed = needs.descriptors
    command = list(argv)
    if layers.namespaces is not None:
        own, command = _wrapped(stack, argv, needs, layers, become, ends)
        passed += own
    writes = needs.writes if layers.namespaces is None else max(needs.writes, _STARTER_BYTES)
    limits = ProcessLimits(writes, needs.memory_bytes, needs.cpu_seconds, needs.open_files)
    return limited(command, limits, None if inside else user, keep=inside), passed


def _wrapped(
    stack: contextlib.ExitStack,
    argv: Sequence[str],
    needs: Needs,
    layers: LayersInUse,
    become: tuple[int, int, tuple[int, ...]] | None,
    ends: _Ends,
) -> tuple[tuple[int, ...], list[str]]:
    """The descriptors and the command of bubblewrap."""
    root = (rootfs.needed if layers.exact_root else rootfs.whole_usr)(argv[0])
    steps = starter.Steps(
        needs.writes, ends.alive, layers.landlock, needs.reopened, needs.kvm, become
    )
    start = _file(stack, "start", starter.program(steps))
    passed = [ends.report, start]
    command = [
        *_bubblewrap(layers, needs, root, become=bool(become)),
        "--info-fd",
        str(ends.report),
    ]
    command += ["--perms", "0555", "--file", str(start), _STARTER]
    command += ["--remount-ro", "/proc", "--remount-ro", "/"]
    if layers.seccomp:
        rules = syscalls.program(kvm=needs.kvm, becoming=bool(become), creating=needs.creates)
        passed.append(_file(stack, "syscalls", rules))
        command += ["--seccomp", str(passed[-1])]
    starts = []
    if layers.seccomp or layers.landlock or become:
        starts = [_STARTER]
        passed.append(ends.alive)
    return tuple(passed), [*command, "--", *starts, root.program, *argv[1:]]


def _bubblewrap(
    layers: LayersInUse, needs: Needs, root: rootfs.SandboxRoot, *, become: bool
) -> list[str]:
    devices = ("/dev/null", "/dev/urandom", *((KVM,) if needs.kvm else ()))
    kept = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if become else ()
    return [
        "bwrap",
        *(f"--unshare-{kind}" for kind in _NAMESPACES),
        *(("--unshare-user",) if layers.namespaces == "user" else ("--cap-drop", "ALL", *kept)),
        *("--as-pid-1", "--new-session", "--die-with-parent", "--chdir", "/"),
        *root.arguments(),
        *("--proc", "/proc", "--dir", "/dev"),
        *(word for device in devices for word in ("--dev-bind", device, device)),
    ]


def _started(
    command: list[str], passed: Sequence[int], streams: tuple[Stream, Stream, Stream]
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=passed,
            start_new_session=True,
            cwd="/",
            env=environment(),
        )
    except OSError as error:
        raise ApplianceError(
            f"cannot start {command[0]}: {error}", hint="run fleetscan doctor"
        ) from error


def _reported(report: int) -> int:
    """The program's process id, which bubblewrap reports once it has made the namespaces.

    Raises:
        ValueError: it ended without reporting one.
        OSError: it does not report one.
    """
    text = b""
    while _readable(report, _START_SECONDS):
        if not (block := os.read(report, 4096)):
            return int(json.loads(text)["child-pid"])
        text += block
    raise TimeoutError("bubblewrap does not start")


def _not_started(
    popen: subprocess.Popen[bytes], argv: Sequence[str], stderr: Stream
) -> ApplianceError:
    """End what did not start; what it said goes into the error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    said = b""
    with popen:
        if popen.stderr is not None:
            said = popen.stderr.read()
        elif isinstance(stderr, int) and stderr >= 0:
            said = os.pread(stderr, 4096, 0)
    words = said.decode("utf-8", "replace").strip().splitlines()
    return ApplianceError(
        f"{argv[0]} could not be confined: {words[-1] if words else 'no output'}",
        hint="run fleetscan doctor, which tries each layer again",
    )


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _file(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A file in memory, to be read from its beginning."""
    descriptor = memory_file(stack, name, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
