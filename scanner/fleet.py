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
from dataclasses import asdict
from types import FrameType

from fleetscan.scanner.cluster import open_cluster
from fleetscan.scanner.coordinator import Coordinator
from fleetscan.scanner.findings import Findings
from fleetscan.scanner.fleet_events import FleetEvent, FleetSummary, MachineFinished
from fleetscan.scanner.fleet_tasks import FleetOptions, write_rows
from fleetscan.scanner.reuse import EarlierFacts, summary_of
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.run import Run


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
        if row is None or not run.keep(row.facts_run):
            changed.append(machine)
            continue
        with run.machine_writer(machine.machine_id) as writer:
            left_out = Findings(machine).left_out_rows()
            write_rows(writer, {"machines": [row], "left_out": left_out}, machine.machine_id)
            reused = summary_of(machine.machine_id, row)
            writer.commit(asdict(reused))
        summary.unchanged += 1
        summary.outcomes[reused.outcome] += 1
        on_event(MachineFinished(reused))
    return changed


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
