"""What an agent finds and gathers, as checked rows.

The agent finds volumes, filesystems and roots, and one collector a table gathers rows. What it
sends was written by a guest that may be hostile: each answer is checked before it goes anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleetscan.appliance.ground.errors import FleetscanError, GuestError, RowError, WireError
from fleetscan.appliance.ground.schema import NotApplicable, Origin, Scope, Table
from fleetscan.appliance.host.printable import escaped
from fleetscan.appliance.vm import Agent
from fleetscan.scanner.attempt import Attempt
from fleetscan.scanner.derived import Derivation, begin, derived_from
from fleetscan.scanner.store.arrow import decode_rows
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from fleetscan.scanner.tables.machines.spec import Stage

log = logging.getLogger(__name__)

_NAME, _TEXT, _DEVICE = 1000, 500, 100  # characters that are kept of what a guest says

_Taker = Callable[[pa.Table], None]


class _Discovery(BaseModel):
    """What the guest says it found; it may say anything."""

    model_config = ConfigDict(strict=True, extra="forbid")

    devices: list[str] = Field(max_length=256)
    roots: list[str] = Field(max_length=64)
    warnings: list[str] = Field(max_length=1000)


def gather(attempt: Attempt, agent: Agent) -> None:
    """Have an agent find what the machine holds and collect every table.

    Raises:
        FleetscanError: the agent went away, broke the rules, or took too long; what was gathered
            before is kept.
    """
    with attempt.found.at(Stage.DISCOVER):
        _discover(attempt, agent)
    with attempt.found.at(Stage.COLLECT):
        _Collection(attempt, agent).collect()


def _discover(attempt: Attempt, agent: Agent) -> None:
    found = attempt.found
    wanted = list(found.plans)
    answer = agent.call(
        "discover",
        attempt.deadline,
        disks=wanted,
        options=asdict(attempt.options.facts),
        keys=[{"selector": selector, "secret": key.hex()} for selector, key in attempt.keys],
    )
    try:
        discovery = _Discovery.model_validate(answer)
    except ValidationError as error:
        raise WireError("the appliance sent a discovery of the wrong shape") from error
    roots = [_short(name, _NAME) for name in discovery.roots]
    if len(set(roots)) < len(roots):
        raise WireError("the appliance named a root twice")
    found.roots = roots
    found.warnings += [_short(text, _TEXT) for text in discovery.warnings]
    for index, device in zip(wanted, discovery.devices, strict=False):
        found.name_disk(index, _short(device, _DEVICE))


class _Collection:
    """Collects one table after the other from an agent."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self._options = attempt.options
        self._deadline = attempt.deadline
        self._found = attempt.found
        self._sink = attempt.sink
        self._machine_id = attempt.machine.machine_id
        self._agent = agent

    def collect(self) -> None:
        """Collect every table that a guest fills."""
        tables = [table for table in load_tables().values() if table.origin is Origin.GUEST]
        for table in tables:
            if table.scope is Scope.MACHINE:
                self._collect_table(table, None)
        of_roots = [table for table in tables if table.scope is Scope.ROOT]
        for walks in (False, True):  # last, so that the others are there when time runs out
            for index in range(len(self._found.roots)):
                for table in of_roots:
                    if table.walks is walks:
                        self._collect_root(table, index)

    def _collect_root(self, table: Table, index: int) -> None:
        """Gather a table of a root, and those that are made of its rows along with them."""
        root = self._found.roots[index]
        begun = {name: self._begin(name) for name in derived_from(table.name)}
        made = {name: one for name, one in begun.items() if not isinstance(one, NotApplicable)}
        self._collect_table(table, index, [derivation.add for derivation in made.values()])
        source = self._found.coverage[-1]
        for name, outcome in begun.items():
            if isinstance(outcome, NotApplicable):
                self._found.cover(name, root, CoverageStatus.NOT_APPLICABLE, error=str(outcome))
            else:
                self._write_derived(name, outcome, root, source)

    def _begin(self, name: str) -> Derivation | NotApplicable:
        try:
            return begin(name, self._options.facts)
        except NotApplicable as outcome:
            return outcome

    def _write_derived(
        self, name: str, derivation: Derivation, root: str, source: Coverage
    ) -> None:
        """Write what was made of a table's rows; it is as complete as they are."""
        begun, rows = time.monotonic(), 0
        for some in derivation.tables(self._machine_id, root):
            rows += some.num_rows
            self._sink.write(name, some)
        self._found.cover(
            name,
            root,
            source.status,
            rows=rows,
            seconds=time.monotonic() - begun,
            error=source.error,
            unread=derivation.unread(source.unread),
        )

    def _collect_table(self, table: Table, index: int | None, also: Sequence[_Taker] = ()) -> None:
        """Gather one table, for the sink and further takers; a failure is a row of coverage."""
        root = None if index is None else self._found.roots[index]
        receiver = _Receiver(table, self._machine_id, root, self._sink, also)
        begun = time.monotonic()
        status = CoverageStatus.FAILED
        reason: str | None = "the scan ended while this table was gathered"
        unread: tuple[str, ...] | None = None
        try:
            self._agent.call("collect", self._deadline, receiver, table=table.name, root=index)
            if receiver.refused:
                reason = f"rows were refused: {receiver.refused}"
            else:
                status = CoverageStatus.OK if receiver.rows else CoverageStatus.EMPTY
                reason = None
        except GuestError as error:
            not_applicable = error.name == "NotApplicable" and not receiver.refused
            if not_applicable:
                status = CoverageStatus.NOT_APPLICABLE
            reason = error.args[0].partition(": ")[2] if not_applicable else str(error)
            if not not_applicable and not receiver.refused:
                unread = error.unread
            log.debug("%s: %s: %s", self._machine_id, table.name, error.remote_traceback)
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


def _short(text: str, length: int) -> str:
    """Guest text, harmless and no longer than that, at a cost that does not depend on the guest."""
    return escaped(text[:length])[:length]


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
        also: Sequence[_Taker] = (),
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
        for take in self._also:
            take(rows)
