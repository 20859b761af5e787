"""The fleet: many machines inspected side by side by Dask workers, one task a machine.

The coordinator hands out no more tasks than there are slots, so that it stays flat in the fleet's
size and knows, when a worker dies, which machine it died of. Whatever becomes of a machine, it
ends as a row in ``machines``; whatever becomes of the coordinator, the run can be resumed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import pyarrow as pa

from fleetscan.scanner.cluster import open_cluster
from fleetscan.scanner.coordinator import Coordinator
from fleetscan.scanner.fleet_events import FleetEvent, FleetSummary, MachineFinished
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.reuse import EarlierFacts
from fleetscan.scanner.scan_state import ScanState
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.arrow import arrow_schema, host_rows
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.tables import load_tables


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
        on_event: called with each event, in the calling thread.

    Raises:
        FleetscanError: no cluster, or the one given was lost; the run can be resumed.
        StoreError: rows could not be written; likewise.
    """
    begun = time.monotonic()
    summary = FleetSummary(run.run_id, len(run.machine_ids))
    stop = threading.Event()
    by_id = {machine.machine_id: machine for machine in machines}
    with _stopping_on_signals(stop), run.owned():
        todo = _unfinished(run, by_id)
        summary.resumed = summary.machines - len(todo)
        if options.earlier is not None:
            todo = _reuse(todo, run, options.earlier, summary, on_event)
        if todo:
            with open_cluster(options.cluster) as cluster:
                summary.slots = cluster.slots
                coordinator = Coordinator(cluster, run, options, on_event, summary, stop)
                coordinator.work(todo)
        summary.interrupted = stop.is_set()
        if not summary.interrupted:
            summary.outcomes |= run.finish().outcomes
    summary.seconds = time.monotonic() - begun
    return summary


def _unfinished(run: Run, by_id: dict[str, Machine]) -> list[Machine]:
    """The machines to scan, in the order of their ids, so that batches complete early."""
    missing = "no source names it any more"
    finished = set(run.finished())
    return [
        by_id.get(machine_id) or Machine(machine_id, (), "", missing)
        for machine_id in run.machine_ids
        if machine_id not in finished
    ]


def _reuse(
    todo: Sequence[Machine],
    run: Run,
    earlier: EarlierFacts,
    summary: FleetSummary,
    on_event: Callable[[FleetEvent], None],
) -> list[Machine]:
    """Finish the machines that have not changed; the others are returned."""
    reused: set[str] = set()
    for found in earlier.unchanged(todo, run.keep):
        run.add_unchanged({"machines": found.rows, "left_out": _left_out(found.machines)})
        for machine in found.summaries:
            reused.add(machine.machine_id)
            summary.unchanged += 1
            summary.outcomes[machine.outcome] += 1
            on_event(MachineFinished(machine))
    return [machine for machine in todo if machine.machine_id not in reused]


def _left_out(machines: Sequence[Machine]) -> pa.Table:
    """The files that are not machines because of these: each run says so again."""
    table = load_tables()["left_out"]
    rows = [
        some
        for machine in machines
        for some in host_rows(
            table, ScanState(machine).left_out_rows(), machine_id=machine.machine_id
        )
    ]
    return pa.concat_tables([arrow_schema(table).empty_table(), *rows])


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
