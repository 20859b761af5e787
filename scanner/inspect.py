"""One machine, from its disks to checked rows.

It reads like the way of the data: preflight decides how each disk is opened, a fresh appliance
gets the disks, the agent in it finds volumes, filesystems and roots, and one collector a table
gathers rows, which are checked here before they go anywhere.

Whatever goes wrong ends in the machine's own rows. Nothing but a bug or a cancellation is raised.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleetscan.appliance import accelerator, build, template
from fleetscan.appliance.build import Appliance
from fleetscan.appliance.confinement import Wanted, layers
from fleetscan.appliance.guest.root import FilesMode, PackagesMode
from fleetscan.appliance.initrd import agent_id
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.session import Limits, printable
from fleetscan.appliance.vm import Agent, ApplianceVM, LocalAppliance
from fleetscan.scanner import preflight, usage
from fleetscan.scanner.deadline import Deadline
from fleetscan.scanner.errors import (
    ApplianceError,
    FleetscanError,
    GuestError,
    LockedError,
    PreflightError,
    RowError,
    WireError,
)
from fleetscan.scanner.findings import Findings, Status
from fleetscan.scanner.preflight.opening import open_disk
from fleetscan.scanner.schema import MICROSECOND, Origin, Scope, Table
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.sources.keys import KeySource, KeyUnavailableError, read_keys
from fleetscan.scanner.store.arrow import decode_rows, host_rows
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage
from fleetscan.scanner.tables.directory_usage.spec import DEPTH
from fleetscan.scanner.tables.disk_snapshots.spec import DiskSnapshot
from fleetscan.scanner.tables.disks.spec import Disk
from fleetscan.scanner.tables.left_out.spec import LeftOut
from fleetscan.scanner.tables.machines.spec import Machine as MachineRow

log = logging.getLogger(__name__)

_ENTROPY_BYTES = 64
_NAME, _TEXT, _DEVICE = 1000, 500, 100  # characters that are kept of what a guest says

# What takes longer than this to get a template made it just now, or waited for who did.
_MADE_SECONDS = 1.0

# LUKS2 derives keys in up to 1 GiB of memory unless told otherwise (cryptsetup-luksFormat(8)).
_UNLOCKING_MIB = 1536

# Dear tables come last, so that the others are there when time runs out.
_LAST = ("files",)

_USAGE = "directory_usage"
_Taker = Callable[[pa.Table], None]


@dataclass(frozen=True)
class InspectOptions:
    """How machines are inspected.

    Attributes:
        files: which directory entries the ``files`` table keeps.
        packages: where packages of languages are looked for.
        registry: keys that the ``registry`` table holds besides.
        usage_depth: how deep directories have a row in ``directory_usage``.
        deadline: seconds that one machine may take in all, not counting those in which its host
            made the template, as the first machine on it finds.
        live: read images that a running guest is using.
        allowed_directories: where backing files may lie, besides the top image's directory.
        memory_mib: memory of the appliance.
        run_id: the run that the facts are written to; empty outside of a run.
        keys: where keys for encrypted volumes of every machine come from.
        template: start from a clone of the host's template; else boot afresh.
        confinement: the layers that must hold before anything of an image is opened.
    """

    files: FilesMode = "all"
    packages: PackagesMode = "known"
    registry: tuple[str, ...] = ()
    usage_depth: int = DEPTH
    deadline: float = 900.0
    live: bool = False
    allowed_directories: tuple[str, ...] = ()
    memory_mib: int = 512
    run_id: str = ""
    template: bool = True
    keys: tuple[KeySource, ...] = ()
    confinement: Wanted = Wanted.LEAST


@dataclass(frozen=True)
class MachineSummary:
    """What became of one machine: the gist of its ``machines`` row."""

    machine_id: str
    outcome: Literal["ok", "partial", "failed"]
    error: str | None
    roots: int
    seconds: float


class _Discovery(BaseModel):
    """What the guest says it found; it may say anything."""

    model_config = ConfigDict(strict=True, extra="forbid")

    devices: list[str] = Field(max_length=256)
    roots: list[str] = Field(max_length=64)
    warnings: list[str] = Field(max_length=1000)


def inspect_machine(
    machine: Machine, options: InspectOptions, sink: RowSink, *, attempt: int = 1
) -> MachineSummary:
    """Inspect a machine in a fresh appliance and hand its checked rows to a sink.

    Args:
        machine: the machine and its disks.
        options: how.
        sink: takes the rows, those of ``machines``, ``coverage`` and ``disks`` included.
        attempt: how often this run has tried the machine, this time included.
    """
    inspection = _Inspection(machine, options, sink)
    return inspection.run(inspection.read_disks, attempt)


def inspect_directory(directory: Path, options: InspectOptions, sink: RowSink) -> MachineSummary:
    """Inspect a tree that is mounted already, without a VM and so without isolation."""
    machine = Machine(str(directory), (), source=str(directory))
    inspection = _Inspection(machine, options, sink)
    return inspection.run(lambda: inspection.read_directory(directory), 1)


def appliance_address(appliance: Appliance) -> str:
    """Content address of an appliance with this version's agent in it."""
    return f"{appliance.content}-{agent_id()}"


class _Inspection:
    """One machine's way from source to rows."""

    def __init__(self, machine: Machine, options: InspectOptions, sink: RowSink) -> None:
        self._machine = machine
        self._options = options
        self._sink = sink
        self._found = Findings(machine)
        self._deadline = Deadline(options.deadline, "the machine's scan")
        self._limits = Limits()
        self._keys = (*machine.keys, *options.keys)

    def run(self, read: Callable[[], None], attempt: int) -> MachineSummary:
        """Read the machine and write the rows about the scan itself."""
        started, begun = time.time(), time.monotonic()
        try:
            if self._machine.error:
                raise FleetscanError(self._machine.error)
            read()
        except FleetscanError as error:
            self._found.error = error
            log.debug("%s: %s", self._machine.machine_id, error, exc_info=True)
        self._found.cover_unreached()
        row = self._found.machine_row(
            started=started,
            seconds=time.monotonic() - begun,
            attempt=attempt,
            run_id=self._options.run_id,
        )
        self._write("machines", [row])
        self._write("coverage", self._found.coverage)
        self._write("disks", self._found.disks)
        self._write("disk_snapshots", self._found.snapshots)
        self._write("left_out", self._found.left_out_rows())
        return MachineSummary(
            self._machine.machine_id, row.outcome, row.error, row.roots, row.seconds
        )

    def read_disks(self) -> None:
        """Preflight, appliance, discovery, collection."""
        with self._found.at("preflight"):
            layers.require(self._options.confinement)
            self._found.confinement = layers.names(layers.current())
            self._examine_disks()
        with contextlib.ExitStack() as stack:
            with self._found.at("appliance"):
                vm = stack.enter_context(self._appliance())
                self._personalize(vm)
                self._plug_disks(vm)
            self._gather(vm)

    def read_directory(self, directory: Path) -> None:
        """The same without disks and VM."""
        with LocalAppliance(directory, self._deadline, self._limits) as agent:
            self._found.ran_by = agent.accelerator
            self._gather(agent)

    # -- preflight ---------------------------------------------------------------------------

    def _examine_disks(self) -> None:
        """Decide how each disk is opened; the machine goes on with those that can be.

        Raises:
            PreflightError: none can be.
            DeadlineError: it takes too long.
        """
        policy = preflight.Policy(
            allowed_directories=self._options.allowed_directories, live=self._options.live
        )
        failure = None
        for disk in self._machine.disks:
            self._deadline.left()  # a machine of very many disks ends in time, too
            try:
                plan = preflight.examine(disk, policy)
            except FleetscanError as error:
                failure = failure or error
                self._found.add_disk(disk, error=error)
            else:
                self._found.add_disk(disk, plan)
        if failure is not None:
            self._found.warnings.append(failure.told)
            if not self._found.plans:
                raise failure

    # -- appliance ---------------------------------------------------------------------------

    def _appliance(self) -> AbstractContextManager[ApplianceVM]:
        """A clone of the host's template, or an appliance that boots where there can be none."""
        appliance = build.find()
        chosen = accelerator.choose(appliance)
        self._found.ran_by = chosen
        self._found.appliance = appliance_address(appliance)
        memory_mib = max(self._options.memory_mib, _UNLOCKING_MIB if self._keys else 0)
        options = VMOptions(chosen, memory_mib)
        prepared = self._template(appliance, options) if self._options.template else None
        deadline = self._deadline.within(accelerator.BOOT_SECONDS[chosen], "the appliance's start")
        if prepared is None:
            return ApplianceVM(appliance, options, deadline, self._limits)
        return template.clone(appliance, prepared, options, deadline, self._limits)

    def _template(self, appliance: Appliance, options: VMOptions) -> template.Template | None:
        """The host's template; None where there can be none."""
        begun = time.monotonic()
        try:
            return template.prepare(appliance, options)
        except ApplianceError as error:
            log.warning("booting the appliance anew for each machine: no template: %s", error)
            return None
        finally:
            if time.monotonic() - begun > _MADE_SECONDS:
                self._deadline = Deadline(self._options.deadline, "the machine's scan")

    def _personalize(self, vm: ApplianceVM) -> None:
        entropy = os.urandom(_ENTROPY_BYTES).hex()
        vm.call(
            "personalize", self._deadline, entropy=entropy, time_us=int(time.time() * MICROSECOND)
        )

    def _plug_disks(self, vm: ApplianceVM) -> None:
        """Give the appliance its disks; the machine goes on with those that can be opened.

        Raises:
            LockedError, PreflightError: none can be.
        """
        for index, plan in list(self._found.plans.items()):
            try:
                self._plug(vm, index, plan)
            except (LockedError, PreflightError) as error:
                self._found.close_disk(index, error)
                if not self._found.plans:
                    raise

    def _plug(self, vm: ApplianceVM, index: int, plan: preflight.DiskPlan) -> None:
        with contextlib.ExitStack() as stack:
            keys = self._secrets if plan.encrypted else ()
            chain = open_disk(plan, stack, live=self._options.live, keys=keys)
            vm.plug(index, chain, self._deadline, sector_size=plan.sector_size)

    # -- discovery and collection ------------------------------------------------------------

    def _gather(self, agent: Agent) -> None:
        with self._found.at("discover"):
            self._discover(agent)
        with self._found.at("collect"):
            self._collect(agent)

    def _discover(self, agent: Agent) -> None:
        wanted = list(self._found.plans)
        answer = agent.call(
            "discover",
            self._deadline,
            disks=wanted,
            files=self._options.files,
            keys=[{"selector": selector, "secret": key.hex()} for selector, key in self._secrets],
            packages=self._options.packages,
            registry=self._options.registry,
        )
        try:
            discovery = _Discovery.model_validate(answer)
        except ValidationError as error:
            raise WireError("the appliance sent a discovery of the wrong shape") from error
        roots = [_short(name, _NAME) for name in discovery.roots]
        if len(set(roots)) < len(roots):
            raise WireError("the appliance named a root twice")
        self._found.roots = roots
        self._found.warnings += [_short(text, _TEXT) for text in discovery.warnings]
        for index, device in zip(wanted, discovery.devices, strict=False):
            self._found.name_disk(index, _short(device, _DEVICE))

    @functools.cached_property
    def _secrets(self) -> list[tuple[str, bytes]]:
        """Selector and key, of each key that can be read; what cannot be is a warning."""
        keys: list[tuple[str, bytes]] = []
        for source in self._keys:
            try:
                keys += read_keys([source])
            except KeyUnavailableError as error:
                self._found.warnings.append(str(error))
        return keys

    def _collect(self, agent: Agent) -> None:
        tables = [table for table in load_tables().values() if table.origin is Origin.GUEST]
        for table in tables:
            if table.scope is Scope.MACHINE:
                self._collect_table(agent, table, None)
        for last in (False, True):
            for index in range(len(self._found.roots)):
                for table in tables:
                    if table.scope is not Scope.ROOT or (table.name in _LAST) is not last:
                        continue
                    if table.name == "files":
                        self._collect_files(agent, table, index)
                    else:
                        self._collect_table(agent, table, index)

    def _collect_files(self, agent: Agent, table: Table, index: int) -> None:
        """Gather the files of a root, and what its directories hold along with them."""
        usages = usage.DirectoryUsages(self._options.usage_depth)
        complete = self._options.files == "all"
        self._collect_table(agent, table, index, usages.add if complete else None)
        files, root = self._found.coverage[-1], self._found.roots[index]
        if not complete:
            self._found.cover(
                _USAGE, root, "not_applicable", error="not every file was listed (--files)"
            )
            return
        begun, rows = time.monotonic(), 0
        for some in usages.tables(self._machine.machine_id, root):
            rows += some.num_rows
            self._sink.write(_USAGE, some)
        seconds = time.monotonic() - begun
        self._found.cover(
            _USAGE,
            root,
            files.status,
            rows=rows,
            seconds=seconds,
            error=files.error,
            unread=usage.unread(files.unread, self._options.usage_depth),
        )

    def _collect_table(
        self, agent: Agent, table: Table, index: int | None, also: _Taker | None = None
    ) -> None:
        """Gather one table, for the sink and a further taker; a failure is a row of coverage."""
        root = None if index is None else self._found.roots[index]
        receiver = _Receiver(table, self._machine.machine_id, root, self._sink, also)
        begun = time.monotonic()
        status: Status = "failed"
        reason: str | None = "the scan ended while this table was gathered"
        unread: tuple[str, ...] | None = None
        try:
            agent.call("collect", self._deadline, receiver, table=table.name, root=index)
            if receiver.refused:
                reason = f"rows were refused: {receiver.refused}"
            else:
                status, reason = ("ok" if receiver.rows else "empty"), None
        except GuestError as error:
            not_applicable = error.name == "NotApplicable" and not receiver.refused
            status = "not_applicable" if not_applicable else "failed"
            reason = error.args[0].partition(": ")[2] if not_applicable else str(error)
            if status == "failed" and not receiver.refused:
                unread = error.unread
            log.debug("%s: %s: %s", self._machine.machine_id, table.name, error.remote_traceback)
        except FleetscanError as error:
            reason = str(error)
            raise
        finally:
            seconds = time.monotonic() - begun
            self._found.cover(
                table.name,
                root,
                status,
                rows=receiver.rows,
                seconds=seconds,
                error=reason,
                unread=unread,
            )

    def _write(
        self,
        name: str,
        rows: Sequence[MachineRow | Coverage | Disk | DiskSnapshot | LeftOut],
    ) -> None:
        for some in host_rows(load_tables()[name], rows, machine_id=self._machine.machine_id):
            self._sink.write(name, some)


def _short(text: str, length: int) -> str:
    """Guest text, harmless and no longer than that, at a cost that does not depend on the guest."""
    return printable(text[:length])[:length]


class _Receiver:
    """Checks one table's rows as they arrive and hands them on.

    Rows that are refused end the table, not the machine: what follows of it is dropped, and what
    came before is kept.
    """

    def __init__(
        self,
        table: Table,
        machine_id: str,
        root: str | None,
        sink: RowSink,
        also: _Taker | None = None,
    ) -> None:
        self._also = also
        self._table = table
        self._machine_id = machine_id
        self._root = root
        self._sink = sink
        self.rows = 0
        self.refused: RowError | None = None

    def __call__(self, name: str, payload: bytes) -> None:
        if name != self._table.name:
            raise WireError("the appliance sent rows of a table that was not asked for")
        if self.refused is not None:
            return
        try:
            rows = decode_rows(self._table, payload, machine_id=self._machine_id, root=self._root)
        except RowError as error:
            self.refused = error
            return
        self.rows += rows.num_rows
        self._sink.write(self._table.name, rows)
        if self._also is not None:
            self._also(rows)
