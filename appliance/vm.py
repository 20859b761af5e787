"""The virtual machine that one scanned machine is opened in, and its local twin.

Both give a :class:`Session` with an agent that is ready for work, and both are gone, with
everything they used, when their block ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from fleetscan.appliance import initrd, qemu_args
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.cgroup import memory_group
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import Needs, confined
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, DeadlineError, WireError
from fleetscan.appliance.ground.wire import PROTOCOL
from fleetscan.appliance.host.descriptors import memory_copy, memory_file, reopened
from fleetscan.appliance.host.printable import escaped
from fleetscan.appliance.monitor import Monitor
from fleetscan.appliance.plugging import PluggedLayer, Plugger
from fleetscan.appliance.privileges import CONSOLE_BYTES, bound_to_us, running
from fleetscan.appliance.qemu_args import Descriptors, RanBy, VMOptions
from fleetscan.appliance.session import RowsHandler, Session, SessionLimits

log = logging.getLogger(__name__)

_TAIL_BYTES = 16_000
_CRIES = ("BUG:", "Oops", "RIP:", "general protection", "Out of memory", "Kernel panic")
_WORDS = 600


class Agent(Protocol):
    """What inspection needs of an appliance, real or local."""

    def call(
        self, op: str, deadline: Deadline, on_rows: RowsHandler | None = None, **args: object
    ) -> Any:
        """As :meth:`fleetscan.appliance.session.Session.call`."""

    @property
    def accelerator(self) -> RanBy:
        """What runs it: kvm, tcg, or none."""


class ApplianceVM:
    """A fresh virtual machine with a ready agent in it.

    Args:
        appliance: what runs in it.
        options: how to run it.
        deadline: when the agent must be ready.
        limits: what the guest may send.
        state: the saved state that it begins from; without one it is booted.
        memory: with a state, the memory that belongs to it, mapped copy-on-write; without one,
            the file that is to hold the guest's memory, or none.

    Entering raises:
        ApplianceError: QEMU cannot be started, or the guest does not come up.
        DeadlineError: the agent was not ready in time.
    """

    def __init__(
        self,
        appliance: Appliance,
        options: VMOptions,
        deadline: Deadline,
        limits: SessionLimits,
        *,
        state: int | None = None,
        memory: int | None = None,
    ) -> None:
        self._state = state
        self._memory = memory
        self._appliance = appliance
        self._options = options
        self._deadline = deadline
        self._limits = limits
        self._cleanup = contextlib.ExitStack()

    @property
    def accelerator(self) -> RanBy:
        """What runs the VM: kvm or tcg."""
        return self._options.accelerator

    @property
    def pid(self) -> int:
        """The process id of QEMU itself; its parent is bubblewrap, which is our child."""
        return self._process.pid

    def __enter__(self) -> ApplianceVM:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            hello(self, self._deadline)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        agent, agent_peer = _socket_pair(stack)
        monitor, monitor_peer = _socket_pair(stack)
        self._console = memory_file(stack, "console", b"")
        self._messages = memory_file(stack, "messages", b"")
        with contextlib.ExitStack() as ours:  # our copies of what only QEMU needs
            files = self._open_files(ours, agent_peer, monitor_peer)
            argv_of = qemu_args.boot_argv if self._state is None else qemu_args.clone_argv
            group = stack.enter_context(memory_group(qemu_args.address_space(self._options)))
            self._process = stack.enter_context(
                confined(
                    argv_of(self._options, files),
                    self._needs(files),
                    layers.current(),
                    stdout=self._messages,
                    stderr=self._messages,
                )
            )
            if group:
                with contextlib.suppress(OSError):  # it has ended, which is noticed soon enough
                    group.add(self._process.pid)
        agent_peer.close()
        monitor_peer.close()
        self._session = Session(agent, self._limits, gone=self._what_happened)
        try:
            self._monitor = Monitor(monitor, self._deadline)
            self._plugger = Plugger(self._monitor)
            stack.callback(self._monitor.close)
            if self._state is not None:
                self._resume(self._state)
        except DeadlineError:
            raise
        except ApplianceError as error:
            raise ApplianceError(f"{error}: {self._what_happened()}") from error

    def _open_files(
        self, stack: contextlib.ExitStack, agent: socket.socket, monitor: socket.socket
    ) -> Descriptors:
        files = Descriptors(
            root=self._appliance.opened(stack, self._appliance.root),
            agent=agent.fileno(),
            qmp=monitor.fileno(),
            console=reopened(stack, self._console, os.O_WRONLY | os.O_APPEND),
            memory=self._memory,
        )
        if self._state is not None:
            return files
        return dataclasses.replace(
            files,
            kernel=memory_copy(
                stack, "kernel", self._appliance.opened(stack, self._appliance.kernel)
            ),
            initrd=memory_file(stack, "initrd", _whole_initrd(self._appliance)),
        )

    def _needs(self, files: Descriptors) -> Needs:
        return Needs(
            descriptors=files.all(),
            kvm=self._options.accelerator == "kvm",
            writes=self._may_write(),
            memory_bytes=qemu_args.address_space(self._options),
        )

    def _may_write(self) -> int:
        """How long the files that QEMU writes may become, in bytes."""
        making_template = self._state is None and self._memory is not None
        return (self._options.memory_mib << 20) if making_template else CONSOLE_BYTES

    def _resume(self, state: int) -> None:
        """Load the state that the VM begins from and let it run."""
        self._set_migration()
        self._receive_descriptor("state", state)
        self._monitor.execute("migrate-incoming", self._deadline, {"uri": "fd:state"})
        self._wait_for("query-status", {"paused", "prelaunch"})
        self._monitor.execute("cont", self._deadline)

    def save(self, state: int, deadline: Deadline) -> None:
        """Stop the VM and write all of its state but the memory; it ends with this.

        Args:
            state: where to, open for writing.
            deadline: when it must be done.
        """
        self._deadline = deadline
        self._monitor.execute("stop", deadline)
        self._set_migration()
        self._receive_descriptor("state", state)
        self._monitor.execute("migrate", deadline, {"uri": "fd:state"})
        self._wait_for("query-migrate", {"completed"})

    def _set_migration(self) -> None:
        capability = {"capability": "x-ignore-shared", "state": True}
        self._monitor.execute(
            "migrate-set-capabilities", self._deadline, {"capabilities": [capability]}
        )

    def _receive_descriptor(self, name: str, descriptor: int) -> None:
        self._monitor.send_descriptor(descriptor)
        self._monitor.execute("getfd", self._deadline, {"fdname": name})

    def _wait_for(self, query: str, wanted: set[str]) -> None:
        while (status := self._monitor.execute(query, self._deadline).get("status")) not in wanted:
            if status in ("failed", "cancelled", "internal-error"):
                raise ApplianceError(f"the appliance's state could not be moved: {status}")
            time.sleep(0.001)

    def plug(
        self,
        index: int,
        chain: Sequence[PluggedLayer],
        deadline: Deadline,
        *,
        sector_size: int = 512,
    ) -> None:
        """Give the guest one more disk, read-only.

        Args:
            index: the disk's place on the machine.
            chain: the disk's layers, top first.
            deadline: when QEMU must have opened it.
            sector_size: the disk's logical sector size, in bytes.

        Raises:
            LockedError: it is encrypted, and none of its keys fits.
            ForeignFileError: opening it, QEMU opened another file; the VM must end.
            ApplianceError: QEMU cannot open it.
        """
        self._plugger.plug(index, chain, deadline, sector_size)

    def call(
        self, op: str, deadline: Deadline, on_rows: RowsHandler | None = None, **args: object
    ) -> Any:
        """As :meth:`fleetscan.appliance.session.Session.call`."""
        return self._session.call(op, deadline, on_rows, **args)

    def _what_happened(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        words = [
            _ended(self._process.status),
            _tail(self._messages),
            _last_words(_tail(self._console)),
        ]
        log.debug("console of the appliance: %s", escaped(_tail(self._console)))
        return "; ".join(escaped(word.strip()[-_WORDS:]) for word in words if word.strip())


class LocalAppliance:
    """The agent as a local process on a directory tree: no VM, no isolation, no disks.

    For unit tests, and for trees that are mounted already (``--directory``).

    Args:
        directory: top of the tree.
        deadline: when the agent must be ready.
        limits: what it may send.
    """

    accelerator: RanBy = "none"
    agent: Sequence[str] | None = None
    """Command of another agent than ours; it gets the directory and the socket's descriptor."""

    def __init__(self, directory: Path, deadline: Deadline, limits: SessionLimits) -> None:
        self._directory = directory
        self._deadline = deadline
        self._limits = limits
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> LocalAppliance:
        with contextlib.ExitStack() as stack:
            ours, peer = _socket_pair(stack)
            messages = memory_file(stack, "messages", b"")
            agent = self.agent or initrd.agent_command()
            argv = [*agent, str(self._directory), str(peer.fileno())]
            stack.enter_context(
                running(bound_to_us(argv), (peer.fileno(),), messages, cwd=initrd.PROJECT)
            )
            peer.close()
            self._session = Session(ours, self._limits, gone=lambda: _tail(messages))
            hello(self, self._deadline)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def call(
        self, op: str, deadline: Deadline, on_rows: RowsHandler | None = None, **args: object
    ) -> Any:
        """As :meth:`fleetscan.appliance.session.Session.call`."""
        return self._session.call(op, deadline, on_rows, **args)


def hello(agent: Agent, deadline: Deadline) -> None:
    """Wait until the agent is ready and make sure that it is ours.

    Raises:
        WireError: it speaks another protocol.
        ApplianceError, DeadlineError: it does not come up.
    """
    answer = agent.call("hello", deadline)
    if answer != {"protocol": PROTOCOL}:
        raise WireError("the agent speaks another version of the protocol")


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, peer = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(peer)


def _whole_initrd(appliance: Appliance) -> bytes:
    with contextlib.ExitStack() as stack:
        descriptor = appliance.opened(stack, appliance.initrd)
        first_stage = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return first_stage + initrd.agent_archive()


def _ended(status: int | None) -> str:
    if status is None:
        return "QEMU is running"
    if status == -signal.SIGSYS:
        return "QEMU was killed for a system call that it may not make"
    return f"QEMU ended with status {status}"


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode("utf-8", "replace")


def _last_words(console: str) -> str:
    """Why the guest ended: what its kernel cried, else what others than the kernel said."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    cries = [line for line in lines if any(cry in line for cry in _CRIES)]
    others = [line for line in lines if not line.startswith("[")]
    return "\n".join(dict.fromkeys(cries or others or lines))
