from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import duckdb
import pytest

from fleetscan.appliance.ground.errors import FleetscanError, StoreError, UsageError
from fleetscan.scanner.cluster import ClusterOptions, default_slots, open_cluster
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_events import FleetEvent, FleetSummary, MachineFinished, MachineStarted
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources import Machine
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from tests.scanner import fleet_fakes


def machines(ids: Iterable[str], path: str = "/none") -> list[Machine]:
    return [Machine(machine_id, (Disk(path),), "test") for machine_id in ids]


def begin(facts: Path, fleet: list[Machine], batch_size: int = 4) -> Run:
    ids = [machine.machine_id for machine in fleet]
    return Store(facts).begin(ids, settings={}, batch_size=batch_size)


def options(run: Run, slots: int = 2, **more: Any) -> FleetOptions:
    return FleetOptions(
        machine=ScanOptions.of(deadline=more.pop("deadline", 60.0)),
        cluster=ClusterOptions(slots=slots),
        inspect=fleet_fakes.inspect,
        **more,
    )


def rows(facts: Path, sql: str) -> list[tuple[Any, ...]]:
    table = f"read_parquet('{facts}/machines/*/*.parquet')"
    return duckdb.execute(sql.replace("machines", table)).fetchall()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FleetSummary, list[FleetEvent]]:
    """A fleet in which much goes wrong."""
    facts = tmp_path_factory.mktemp("mixed")
    scratch = tmp_path_factory.mktemp("scratch")
    fleet = machines(["bug/1", "die/1", "die-once/1", *(f"fine/{n}" for n in range(6))])
    run = begin(facts, fleet)
    events: list[FleetEvent] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        summary = scan_fleet(fleet, run, options(run), events.append)
    assert not list(scratch.iterdir())
    return facts, summary, events


Mixed = tuple[Path, FleetSummary, list[FleetEvent]]


def test_every_machine_has_one_row_whatever_became_of_it(mixed: Mixed) -> None:
    facts, summary, _ = mixed
    assert rows(facts, "select count(*), count(distinct machine_id) from machines") == [(9, 9)]
    assert (summary.machines, summary.scanned, summary.outcomes["failed"]) == (9, 9, 9)
    assert not summary.interrupted


def test_workers_that_are_slow_to_end_cost_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = distributed.LocalCluster.close

    def slow(cluster: Any, timeout: float) -> None:
        close(cluster, timeout=60)
        raise TimeoutError

    monkeypatch.setattr(distributed.LocalCluster, "close", slow)
    run = begin(tmp_path, fleet := machines(["fine/1"]))
    assert not scan_fleet(fleet, run, options(run)).interrupted
    assert len(Store(tmp_path).runs()) == 1
    assert "to end" in caplog.text


def test_a_machine_whose_worker_dies_twice_is_lost_and_no_other_with_it(mixed: Mixed) -> None:
    found = rows(mixed[0], "select error_kind, machine_id, attempts from machines order by all")
    assert [row for row in found if row[0] != "FleetscanError"] == [
        ("WorkerLost", "die/1", 2),
        ("ZeroDivisionError", "bug/1", 1),
    ]
    assert ("FleetscanError", "die-once/1", 2) in found


def test_an_error_of_a_bug_is_reported_without_control_characters(mixed: Mixed) -> None:
    (error,) = [failed.error for failed in mixed[1].failures if failed.machine_id == "bug/1"]
    assert error == "ZeroDivisionError: a bug\\x1b[31m"


def test_a_lost_machine_is_covered_by_no_table(mixed: Mixed) -> None:
    table = f"read_parquet('{mixed[0]}/coverage/*/*.parquet')"
    found = duckdb.execute(
        f"select distinct status from {table} where machine_id = 'die/1'"  # noqa: S608 - ours
    ).fetchall()
    assert found == [("failed",)]


def test_events_tell_of_each_machine_that_it_began_and_ended(mixed: Mixed) -> None:
    started = [event.machine_id for event in mixed[2] if isinstance(event, MachineStarted)]
    finished = [
        event.summary.machine_id for event in mixed[2] if isinstance(event, MachineFinished)
    ]
    assert sorted(finished) == sorted(set(started))
    assert len(finished) == 9
    assert started.count("die/1") == started.count("die-once/1") == 2


def test_the_run_is_visible_and_its_staging_gone(mixed: Mixed) -> None:
    (info,) = Store(mixed[0]).runs()
    assert info.run_id == mixed[1].run_id
    assert not info.interrupted
    assert not Store(mixed[0]).unfinished()


def test_no_worker_is_left(mixed: Mixed) -> None:
    assert mixed[1].scanned
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True
    )
    assert "spawn_main" not in children.stdout


def test_a_machine_that_hangs_past_its_deadline_costs_its_worker_alone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    fleet = machines(["hang/1", "fine/1", "fine/2", "fine/3"], str(pids))
    run = begin(tmp_path / "facts", fleet)
    summary = scan_fleet(fleet, run, options(run, deadline=8.0, overdue_seconds=2.0))
    kinds = rows(tmp_path / "facts", "select error_kind, count(*) from machines group by 1")
    assert sorted(kinds) == [("DeadlineError", 1), ("FleetscanError", 3)]
    assert summary.scanned == 4
    assert all(wait_gone(int(pid)) for pid in pids.read_text().split())


def test_a_machine_that_takes_too_much_memory_costs_its_worker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetscan.scanner.cluster.WORKER_MEMORY", 512 << 20)
    run = begin(tmp_path, fleet := machines(["greedy/1", "fine/1", "fine/2"]))

    scan_fleet(fleet, run, options(run, retries=0))

    kinds = rows(tmp_path, "select machine_id, error_kind from machines order by all")
    assert kinds == [
        ("fine/1", "FleetscanError"),
        ("fine/2", "FleetscanError"),
        ("greedy/1", "WorkerLost"),
    ]


def test_a_resumed_run_scans_only_what_is_not_finished(tmp_path: Path) -> None:
    fleet = machines(["a", "b", "c"])
    run = begin(tmp_path, fleet)
    with run.machine_writer("b") as writer:
        fleet_fakes.inspect(fleet[1], ScanOptions(), writer, attempt=1, run_id=run.run_id)
        writer.commit({})
    events: list[FleetEvent] = []
    again = Store(tmp_path).resume(run.run_id)
    summary = scan_fleet(fleet[:2], again, options(run, slots=1), events.append)
    assert [event.machine_id for event in events if isinstance(event, MachineStarted)] == ["a", "c"]
    assert (summary.resumed, summary.scanned) == (1, 2)
    assert summary.outcomes == {"ok": 0, "partial": 0, "failed": 3}
    errors = rows(tmp_path, "select error from machines where machine_id = 'c'")
    assert errors == [("made up",)]


def test_a_run_with_nothing_left_to_do_needs_no_cluster(tmp_path: Path) -> None:
    fleet = machines(["a"])
    run = begin(tmp_path, fleet)
    with run.machine_writer("a") as writer:
        fleet_fakes.inspect(fleet[0], ScanOptions(), writer, attempt=1, run_id=run.run_id)
        writer.commit({})
    nowhere = FleetOptions(cluster=ClusterOptions(scheduler="tcp://127.0.0.1:9"))
    assert scan_fleet(fleet, run, nowhere).resumed == 1
    assert len(Store(tmp_path).runs()) == 1


def test_a_store_that_cannot_be_written_ends_the_fleet_and_leaves_the_run(tmp_path: Path) -> None:
    fleet = machines(["a", "b"])
    run = begin(tmp_path, fleet)
    staging = tmp_path / ".staging" / run.run_id / "machines"
    staging.write_text("in the way")
    with pytest.raises(StoreError):
        scan_fleet(fleet, run, options(run, slots=1))
    assert Store(tmp_path).unfinished() == [run.run_id]


def test_an_existing_cluster_is_used_and_left_running(tmp_path: Path) -> None:
    fleet = machines(["a", "bug/1"])
    run = begin(tmp_path, fleet)
    cluster: Any = distributed.LocalCluster  # Any: it has no types
    with cluster(
        n_workers=1, processes=False, dashboard_address=None, protocol="tcp://", host="127.0.0.1"
    ) as existing:
        chosen = ClusterOptions(scheduler=existing.scheduler_address)
        summary = scan_fleet(fleet, run, replace(options(run), cluster=chosen))
        assert (summary.slots, summary.scanned) == (existing.scheduler.total_nthreads, 2)
        assert len(existing.workers) == 1


def test_a_cluster_of_our_own_admits_nobody_without_its_keys() -> None:
    with open_cluster(ClusterOptions(slots=1)) as own:
        port = own.scheduler_address.rpartition(":")[2]
        stranger = ClusterOptions(scheduler=f"tcp://127.0.0.1:{port}", connect_seconds=2)
        with pytest.raises(FleetscanError, match="cannot be reached"), open_cluster(stranger):
            pass


def test_a_cluster_of_our_own_serves_no_pages() -> None:
    with open_cluster(ClusterOptions(slots=1)) as own:
        port = own._local.scheduler.http_server.port
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html")


@pytest.mark.parametrize(
    "wrong",
    [
        ClusterOptions(slots=0),
        ClusterOptions(scheduler="tcp://x:1", slots=2),
        ClusterOptions(scheduler="tcp://x:1", dashboard=":8787"),
        ClusterOptions(slots=1, dashboard=":8787"),  # bokeh is not among our dependencies
    ],
)
def test_contradicting_options_are_bad_usage(wrong: ClusterOptions) -> None:
    with pytest.raises(UsageError), open_cluster(wrong):
        pass


def test_there_is_always_a_slot() -> None:
    assert 1 <= default_slots() <= (os.cpu_count() or 1)


def test_the_summary_keeps_the_slowest_and_the_failures() -> None:
    summary = FleetSummary("run", 2000)
    for number in range(1500):
        outcome = "failed" if number % 3 else "ok"
        summary.add(MachineSummary(f"m{number}", outcome, None, 0, float(number)))  # type: ignore[arg-type] # a literal
    assert [machine.machine_id for machine in summary.slowest][:2] == ["m1499", "m1498"]
    assert (len(summary.slowest), len(summary.failures)) == (5, 1000)
    assert summary.outcomes == {"ok": 500, "partial": 0, "failed": 1000}


SCRIPT = """
import sys
from pathlib import Path
from fleetscan.scanner.fleet import scan_fleet
from tests.scanner import test_fleet

def main(facts, pids):
    fleet = test_fleet.machines(["fine/1", "hang/1"], pids)
    run = test_fleet.begin(Path(facts), fleet)
    tell = lambda event: print(event, flush=True)
    summary = scan_fleet(fleet, run, test_fleet.options(run), tell)
    return 42 if summary.interrupted else 0

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
"""


class TestStopping:
    def start(self, tmp_path: Path) -> subprocess.Popen[str]:
        script = tmp_path / "scan.py"
        script.write_text(SCRIPT)
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "facts"), str(tmp_path / "pids")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def wait_hanging(self, tmp_path: Path) -> list[int]:
        for _ in range(600):
            if (pids := tmp_path / "pids").exists() and pids.read_text():
                return [int(pid) for pid in pids.read_text().split()]
            time.sleep(0.1)
        raise AssertionError("the machine did not begin to hang")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_at_the_first_signal_keeps_what_is_finished_and_ends_the_rest(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        process = self.start(tmp_path)
        pids = self.wait_hanging(tmp_path)
        assert process.stdout is not None
        while "MachineFinished" not in process.stdout.readline():
            pass
        # As a terminal does it: Ctrl-C goes to the whole group, workers included.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (42, "")
        assert all(wait_gone(pid) for pid in pids)
        (run_id,) = Store(tmp_path / "facts").unfinished()
        assert Store(tmp_path / "facts").resume(run_id).finished() == ["fine/1"]
        assert not list(tmp_path.glob("fleetscan-*"))

    def test_killed_it_leaves_a_run_that_can_be_resumed_at_once(self, tmp_path: Path) -> None:
        process = self.start(tmp_path)
        pids = self.wait_hanging(tmp_path)
        store = Store(tmp_path / "facts")
        (run_id,) = store.running()
        with pytest.raises(StoreError, match="is running on"):
            store.resume(run_id)
        process.kill()
        process.communicate(timeout=30)
        assert store.running() == {}
        run = store.resume(run_id)
        refused = [Machine(name, (), "test", "made up") for name in run.machine_ids]
        summary = scan_fleet(refused, run, replace(options(run), inspect=inspect_machine))
        assert summary.outcomes["failed"] == 2
        assert all(wait_gone(pid) for pid in pids)


def wait_gone(pid: int) -> bool:
    """Whether a process is gone within some seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_outside_the_main_thread_no_handlers_are_set(tmp_path: Path) -> None:
    fleet = machines(["a"])
    run = begin(tmp_path, fleet)
    before = signal.getsignal(signal.SIGINT)
    summaries: list[FleetSummary] = []
    thread = threading.Thread(
        target=lambda: summaries.append(scan_fleet(fleet, run, options(run, slots=1)))
    )
    thread.start()
    thread.join(60)
    assert summaries[0].scanned == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import os, signal, threading\n"
        "from fleetscan.scanner.fleet import _stopping_on_signals\n"
        "stop = threading.Event()\n"
        "with _stopping_on_signals(stop):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.is_set(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "True\n")
