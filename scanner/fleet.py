"""The fleet: many machines inspected side by side by Dask workers, one task a machine.

The coordinator hands out no more tasks than there are slots, so that it stays flat in the fleet's
size and knows, when a worker dies, which machine it died of. Whatever becomes of a machine, it
ends as a row in ``machines``; whatever becomes of the coordinator, the run can be resumed.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Protocol

from fleetscan.scanner.cluster import Cluster, ClusterOptions, Task, WorkerLostError, open_cluster
from fleetscan.scanner.errors import DeadlineError, FleetscanError, StoreError
from fleetscan.scanner.findings import Findings
from fleetscan.scanner.inspect import InspectOptions, MachineSummary, inspect_machine
from fleetscan.scanner.reuse import EarlierFacts, summary_of
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.arrow import host_rows
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.store.text import printable
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage
from fleetscan.scanner.tables.left_out.spec import LeftOut
from fleetscan.scanner.tables.machines.spec import Machine as MachineRow

log = logging.getLogger(__name__)

_OVERDUE_SECONDS = 60.0
"""How long after its deadline a machine's worker is killed; inspection ends itself before."""

_OUTCOMES = ("ok", "partial", "failed")
_POLL_SECONDS = 0.5  # how soon a machine is seen to be overdue
_KEPT_SLOWEST = 5
_KEPT_FAILURES = 1000

_Row = MachineRow | Coverage | LeftOut


class Inspect(Protocol):
    """What a task calls: a function of an importable module, as ``inspect_machine`` is."""

    def __call__(
        self, machine: Machine, options: InspectOptions, sink: RowSink, *, attempt: int
    ) -> MachineSummary:
        """Write a machine's rows, and say what became of it."""


@dataclass(frozen=True)
class FleetOptions:
    """How a fleet is scanned.

    Attributes:
        machine: how each of its machines is inspected.
        cluster: where.
        retries: how often a machine whose worker died is tried again.
        inspect: what does the work.
        earlier: where to look for machines that need not be scanned again.
        overdue_seconds: how long after its deadline a machine's worker is killed.
    """

    machine: InspectOptions = field(default_factory=InspectOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    retries: int = 1
    inspect: Inspect = inspect_machine
    earlier: EarlierFacts | None = None
    overdue_seconds: float = _OVERDUE_SECONDS


@dataclass(frozen=True)
class MachineStarted:
    """A machine was handed to a worker."""

    machine_id: str


@dataclass(frozen=True)
class MachineFinished:
    """A machine has its rows."""

    summary: MachineSummary


FleetEvent = MachineStarted | MachineFinished


@dataclass
class FleetSummary:
    """What became of a fleet.

    Attributes:
        run_id: the run.
        machines: machines planned.
        resumed: machines that were finished before.
        unchanged: machines whose facts of an earlier run serve again.
        scanned: machines finished now.
        outcomes: number of finished machines by outcome; of the whole run, once it is complete.
        seconds: time by the clock.
        slots: machines at a time.
        slowest: the slowest machines, slowest first.
        failures: machines that failed or are partial, the first thousand.
        interrupted: stopped before all machines were finished; the run can be resumed.
    """

    run_id: str
    machines: int
    resumed: int = 0
    unchanged: int = 0
    scanned: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0))
    seconds: float = 0.0
    slots: int = 0
    slowest: list[MachineSummary] = field(default_factory=list)
    failures: list[MachineSummary] = field(default_factory=list)
    interrupted: bool = False

    def add(self, summary: MachineSummary) -> None:
        """Count one more machine."""
        self.scanned += 1
        self.outcomes[summary.outcome] += 1
        self.slowest = heapq.nlargest(
            _KEPT_SLOWEST, [*self.slowest, summary], key=lambda machine: machine.seconds
        )
        if summary.outcome != "ok" and len(self.failures) < _KEPT_FAILURES:
            self.failures.append(summary)


def scan_fleet(
    machines: Sequence[Machine],
    run: Run,
    options: FleetOptions,
    on_event: Callable[[FleetEvent], None] = lambda event: None,
) -> FleetSummary:
    """Scan the machines of a run that are not finished, and finish the run.

    On the first SIGINT or SIGTERM, workers are killed, what is finished stays so, and the run is
    left to be resumed; on the second the process exits at once.

    Args:
        machines: the run's machines; those that the run does not plan are passed over.
        run: where their rows go.
        options: how.
        on_event: told what happens, in the calling thread.

    Raises:
        FleetscanError: no cluster, or the one given was lost; the run can be resumed.
        StoreError: rows could not be written; likewise.
    """
    begun = time.monotonic()
    summary = FleetSummary(run.run_id, len(run.machine_ids))
    stop = threading.Event()
    by_id = {machine.machine_id: machine for machine in machines}
    with _stopping_on_signals(stop):
        todo = _unfinished(run, by_id)
        summary.resumed = summary.machines - len(todo)
        if options.earlier is not None:
            todo = _reuse(todo, run, options.earlier, summary, on_event)
        if todo:
            with open_cluster(options.cluster) as cluster:
                summary.slots = cluster.slots
                coordinator = _Coordinator(cluster, run, options, on_event, summary, stop)
                coordinator.work(todo)
        summary.interrupted = stop.is_set()
        if not summary.interrupted:
            summary.outcomes |= run.finish().outcomes
    summary.seconds = time.monotonic() - begun
    return summary


def _unfinished(run: Run, by_id: dict[str, Machine]) -> list[Machine]:
    """The machines to scan, in the order of the run's batches, so that these complete early."""
    missing = "no source names it any more"
    return [
        by_id.get(machine_id) or Machine(machine_id, (), "", missing)
        for machine_id in run.machine_ids
        if not run.is_finished(machine_id)
    ]


def _reuse(
    todo: Sequence[Machine],
    run: Run,
    earlier: EarlierFacts,
    summary: FleetSummary,
    on_event: Callable[[FleetEvent], None],
) -> list[Machine]:
    """Finish the machines that have not changed; the others are returned."""
    changed = []
    for machine in todo:
        row = earlier.row_of(machine)
        if row is None:
            changed.append(machine)
            continue
        with run.machine_writer(machine.machine_id) as writer:
            left_out = Findings(machine).left_out_rows()
            _write(writer, {"machines": [row], "left_out": left_out}, machine.machine_id)
            reused = summary_of(machine.machine_id, row)
            writer.commit(asdict(reused))
        summary.unchanged += 1
        summary.outcomes[reused.outcome] += 1
        on_event(MachineFinished(reused))
    return changed


def _write(sink: RowSink, tables: Mapping[str, Sequence[_Row]], machine_id: str) -> None:
    for name, rows in tables.items():
        for some in host_rows(load_tables()[name], rows, machine_id=machine_id):
            sink.write(name, some)


@contextlib.contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)  # workers end with us, and their machines with them
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def scan_one(
    machine: Machine, run: Run, options: InspectOptions, inspect: Inspect, attempt: int
) -> MachineSummary:
    """The task: inspect a machine and make it a finished one of the run."""
    with run.machine_writer(machine.machine_id) as writer:
        summary = inspect(machine, options, writer, attempt=attempt)
        writer.commit(asdict(summary))
    return summary


def compact_one(run: Run, batch: int) -> None:
    """The task: write the parts of a batch whose machines are all finished."""
    run.compact(batch)


@dataclass(frozen=True)
class _Scan:
    machine: Machine
    attempt: int = 1

    @property
    def key(self) -> str:
        return f"scan-{self.attempt}-{self.machine.machine_id}"


@dataclass(frozen=True)
class _Compaction:
    batch: int

    @property
    def key(self) -> str:
        return f"compact-{self.batch}"


@dataclass(frozen=True)
class _InFlight:
    work: _Scan | _Compaction
    task: Task
    begun: float


class _Coordinator:
    """Hands out tasks and judges how they ended."""

    def __init__(
        self,
        cluster: Cluster,
        run: Run,
        options: FleetOptions,
        on_event: Callable[[FleetEvent], None],
        summary: FleetSummary,
        stop: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._run = run
        self._options = options
        self._on_event = on_event
        self._summary = summary
        self._stop = stop
        self._pending: deque[_Scan | _Compaction] = deque()
        self._in_flight: dict[str, _InFlight] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._batch_of = {
            machine_id: batch for batch in range(run.batches) for machine_id in run.batch(batch)
        }
        self._left: Counter[int] = Counter()

    def work(self, machines: Sequence[Machine]) -> None:
        """Scan the machines, and compact each batch when the last of its machines is done."""
        self._pending.extend(_Scan(machine) for machine in machines)
        self._left.update(self._batch_of[machine.machine_id] for machine in machines)
        try:
            while (self._pending or self._in_flight) and not self._stop.is_set():
                self._submit()
                with contextlib.suppress(queue.Empty):
                    self._settle(self._done.get(timeout=_POLL_SECONDS))
                self._end_overdue()
        finally:
            if self._in_flight:
                self._cluster.kill()

    def _submit(self) -> None:
        while self._pending and len(self._in_flight) < self._cluster.slots:
            work = self._pending.popleft()
            if isinstance(work, _Scan):
                self._on_event(MachineStarted(work.machine.machine_id))
            self._in_flight[work.key] = _InFlight(work, self._start(work), time.monotonic())

    def _start(self, work: _Scan | _Compaction) -> Task:
        if isinstance(work, _Compaction):
            return self._cluster.submit(
                work.key, self._done.put, compact_one, self._run, work.batch
            )
        options = self._options
        arguments = (work.machine, self._run, options.machine, options.inspect, work.attempt)
        return self._cluster.submit(work.key, self._done.put, scan_one, *arguments)

    def _settle(self, key: str) -> None:
        ended = self._in_flight.pop(key, None)
        if ended is None:
            return  # overdue, and judged before
        error, work = ended.task.error(), ended.work
        if isinstance(error, StoreError):
            raise error  # the same awaits every other machine, and the run can be resumed
        if isinstance(work, _Compaction):
            if error is not None:  # not lost: finishing the run compacts what is not compacted
                log.warning("batch %d was not compacted: %r", work.batch, error)
        elif error is None:
            self._finish(ended.task.result())
        elif isinstance(error, WorkerLostError) and self._try_again(work):
            log.warning("%s: its worker died, trying again", work.machine.machine_id)
        else:
            self._record_failure(ended, work, error)

    def _try_again(self, work: _Scan) -> bool:
        # The workers of a cluster that is not ours were tried by its own rules before.
        if not self._cluster.is_own or work.attempt > self._options.retries:
            return False
        self._pending.appendleft(_Scan(work.machine, work.attempt + 1))
        return True

    def _end_overdue(self) -> None:
        limit = self._options.machine.deadline + self._options.overdue_seconds
        now = time.monotonic()
        for key, running in list(self._in_flight.items()):
            overdue = now - running.begun > limit and not running.task.has_ended()
            if isinstance(running.work, _Scan) and overdue:
                del self._in_flight[key]
                self._cluster.kill_worker_of(key)
                error = DeadlineError(f"its worker did not answer within {limit:g} s")
                self._record_failure(running, running.work, error)

    def _record_failure(self, ended: _InFlight, work: _Scan, error: BaseException) -> None:
        """Write the rows that the machine's task could not write."""
        kind, text = _describe(error)
        log.warning("%s: %s: %s", work.machine.machine_id, kind, text)
        log.debug("%s: the traceback", work.machine.machine_id, exc_info=error)
        seconds = time.monotonic() - ended.begun
        summary = MachineSummary(work.machine.machine_id, "failed", text, 0, seconds)
        with self._run.machine_writer(summary.machine_id) as writer:
            rows = _failure_rows(work, kind, summary, self._run.run_id)
            _write(writer, rows, summary.machine_id)
            writer.commit(asdict(summary))
        self._finish(summary)

    def _finish(self, summary: MachineSummary) -> None:
        self._summary.add(summary)
        self._on_event(MachineFinished(summary))
        batch = self._batch_of[summary.machine_id]
        self._left[batch] -= 1
        if not self._left[batch]:
            self._pending.appendleft(_Compaction(batch))


def _describe(error: BaseException) -> tuple[str, str]:
    """Kind and text of a machine's error."""
    if isinstance(error, WorkerLostError):
        return "WorkerLost", str(error)
    return type(error).__name__, printable(f"{type(error).__name__}: {error}")


def _failure_rows(
    work: _Scan, kind: str, summary: MachineSummary, run_id: str
) -> dict[str, Sequence[_Row]]:
    """By table, what is known of a machine whose task left nothing."""
    error = FleetscanError(summary.error or kind)
    found = Findings(work.machine, stage=None, error=error, error_kind=kind)
    found.cover_unreached()
    started = time.time() - summary.seconds
    row = found.machine_row(
        started=started, seconds=summary.seconds, attempt=work.attempt, run_id=run_id
    )
    left_out = found.left_out_rows()
    return {"machines": [row], "coverage": found.coverage, "left_out": left_out}
