"""Hands out a fleet's tasks to workers and judges how they ended."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import DeadlineError, StoreError
from fleetscan.scanner.cluster import Cluster, ClusterTask, WorkerLostError
from fleetscan.scanner.fleet_events import (
    FleetEvent,
    FleetSummary,
    MachineFinished,
    MachineStarted,
)
from fleetscan.scanner.fleet_tasks import FleetOptions, compact_some, record_failure, scan_one
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.run import Run

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # how soon a machine is seen to be overdue


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
    machine_ids: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"compact-{self.batch}"


@dataclass(frozen=True)
class _InFlight:
    work: _Scan | _Compaction
    task: ClusterTask
    begun: float


class Coordinator:
    """Hands out tasks and judges how they ended.

    Args:
        cluster: whose workers they run on.
        run: the run that the machines belong to.
        options: how its machines are scanned.
        on_event: called with each event, in the calling thread.
        summary: counts the machines.
        stop: set when no more may be begun.
    """

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
        self._batches: list[tuple[str, ...]] = []
        self._batch_of: dict[str, int] = {}
        self._left: Counter[int] = Counter()

    def work(self, machines: Sequence[Machine]) -> None:
        """Scan the machines, and compact each batch when the last of its machines is done."""
        self._pending.extend(_Scan(machine) for machine in machines)
        self._batches = self._run.in_batches([machine.machine_id for machine in machines])
        self._batch_of = {name: batch for batch, some in enumerate(self._batches) for name in some}
        self._left.update(self._batch_of.values())
        try:
            while (self._pending or self._in_flight) and not self._stop.is_set():
                self._submit()
                with contextlib.suppress(queue.Empty):
                    self._settle(self._done.get(timeout=_POLL_SECONDS))
                self._end_overdue()
                self._run.check_owned()
        finally:
            if self._in_flight:
                self._cluster.kill()

    def _submit(self) -> None:
        while self._pending and len(self._in_flight) < self._cluster.slots:
            work = self._pending.popleft()
            if isinstance(work, _Scan):
                self._on_event(MachineStarted(work.machine.machine_id))
            self._in_flight[work.key] = _InFlight(work, self._start(work), time.monotonic())

    def _start(self, work: _Scan | _Compaction) -> ClusterTask:
        if isinstance(work, _Compaction):
            return self._cluster.submit(
                work.key, self._done.put, compact_some, self._run, work.machine_ids
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
        limit = self._options.machine.limits.deadline + self._options.overdue_seconds
        now = time.monotonic()
        for key, running in list(self._in_flight.items()):
            overdue = now - running.begun > limit and not running.task.has_ended()
            if isinstance(running.work, _Scan) and overdue:
                del self._in_flight[key]
                self._cluster.kill_worker_of(key)
                error = DeadlineError(f"its worker did not answer within {limit:g} s")
                self._record_failure(running, running.work, error)

    def _record_failure(self, ended: _InFlight, work: _Scan, error: BaseException) -> None:
        seconds = time.monotonic() - ended.begun
        machine, number = work.machine, work.attempt
        self._finish(record_failure(self._run, machine, number, error, seconds))

    def _finish(self, summary: MachineSummary) -> None:
        self._summary.add(summary)
        self._on_event(MachineFinished(summary))
        batch = self._batch_of[summary.machine_id]
        self._left[batch] -= 1
        if not self._left[batch]:
            self._pending.appendleft(_Compaction(batch, self._batches[batch]))
