from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.cli import exits
from fleetscan.scanner.cli import run as cli
from fleetscan.scanner.store import layout, lease
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from tests.scanner.store.making import add_machine

OWNING = """
import sys, time
from pathlib import Path
from fleetscan.scanner.store.runs import Store

facts, run_id, until = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with Store(facts).resume(run_id).owned():
    print("owner", flush=True)
    while not until.exists():
        time.sleep(0.02)
print("done", flush=True)
"""


class Others:
    """Other processes that want a run."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self.until = folder / "until"
        self.processes: list[subprocess.Popen[str]] = []

    def owner(self) -> subprocess.Popen[str]:
        """A process that has the run now."""
        argv = [sys.executable, "-c", OWNING, str(self._run.facts), self._run.run_id]
        process = subprocess.Popen([*argv, str(self.until)], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert said(process) == "owner"
        return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two machines, one of which is finished."""
    begun = Store(tmp_path / "facts").begin(["a", "b"], settings={})
    add_machine(begun, "a")
    return begun


@pytest.fixture
def others(run: Run, tmp_path: Path) -> Iterator[Others]:
    found = Others(run, tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def staging(run: Run) -> Path:
    return layout.staging(run.facts, run.run_id)


def tree(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*") if "owner-" not in path.name}


# -- with real processes -------------------------------------------------------------------------


RACING = """
import contextlib, sys, time
from pathlib import Path
from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.store import lease

with contextlib.ExitStack() as stack:
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    for number, staging in enumerate(sys.argv[1:]):
        while time.time() < begin + number * 0.05:
            pass
        with contextlib.suppress(StoreError):
            stack.enter_context(lease.held(Path(staging)))
            print(staging, flush=True)
    print("end", flush=True)
    sys.stdin.readline()
"""


def test_of_several_processes_that_want_a_dead_owners_run_one_gets_it(tmp_path: Path) -> None:
    runs = [tmp_path / f"run-{number}" for number in range(60)]
    for number, folder in enumerate(runs):
        folder.mkdir()
        if number % 2:
            claim(folder, age=lease.STALE_SECONDS + 1)
    argv = [sys.executable, "-c", RACING, *map(str, runs)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(argv, **pipes) for _ in range(3)]  # type: ignore[call-overload] # pipes
    try:
        assert [said(racer) for racer in racers] == ["ready"] * 3
        begin = time.time() + 0.2
        for racer in racers:
            racer.stdin.write(f"{begin}\n")
            racer.stdin.flush()
        won = [text for racer in racers for text in iter(lambda racer=racer: said(racer), "end")]  # type: ignore[misc] # a lambda's default
    finally:
        for racer in racers:
            racer.communicate()
    assert sorted(won) == sorted(map(str, runs))


def test_a_run_that_is_running_can_be_neither_resumed_nor_published_nor_abandoned(
    run: Run, others: Others, capsys: pytest.CaptureFixture[str]
) -> None:
    run.compact(["a"])
    others.owner()
    before = tree(run.facts)
    facts = ["--facts", str(run.facts)]
    for words in (["scan", *facts, "--resume"], ["runs", *facts, "--publish"]):
        assert cli([*words, run.run_id]) == exits.FAILED
        assert f"run {run.run_id} is running on " in capsys.readouterr().err
    assert cli(["runs", *facts, "--abandon", run.run_id]) == exits.FAILED
    for work in (run.abandon, lambda: run.finish(interrupted=True)):
        with pytest.raises(StoreError, match="is running on"):
            work()
    assert cli(["runs", *facts, "--keep", "1"]) == exits.FINE
    assert tree(run.facts) == before


def test_runs_says_who_is_running_one_and_offers_the_others(
    run: Run, others: Others, capsys: pytest.CaptureFixture[str]
) -> None:
    left = Store(run.facts).begin(["c"], settings={}).run_id
    process = others.owner()
    facts = ["--facts", str(run.facts)]
    assert cli(["runs", *facts]) == exits.FINE
    text = capsys.readouterr().out
    assert f"{run.run_id} is running on {os.uname().nodename} since 20" in text
    assert f"--resume {run.run_id}" not in text
    assert f"--resume {left}" in text
    assert cli(["runs", *facts, "--output", "json"]) == exits.FINE
    listed = json.loads(capsys.readouterr().out)
    assert [(one["run_id"], one["pid"]) for one in listed["running"]] == [(run.run_id, process.pid)]
    assert listed["unfinished"] == [left]


def test_a_killed_owner_is_seen_to_be_dead_at_once(run: Run, others: Others) -> None:
    others.owner().send_signal(signal.SIGKILL)
    time.sleep(0.2)
    assert Store(run.facts).running() == {}
    resumed = Store(run.facts).resume(run.run_id)
    add_machine(resumed, "b")
    assert resumed.finish().outcomes == {"ok": 2}
    assert not (run.facts / ".staging" / run.run_id).exists()


def test_an_owner_that_ends_gives_the_run_back(run: Run, others: Others) -> None:
    process = others.owner()
    others.until.touch()
    assert said(process) == "done"
    process.wait()
    with run.owned():
        assert list(Store(run.facts).running()) == [run.run_id]
    assert Store(run.facts).running() == {}


# -- claims --------------------------------------------------------------------------------------


def claim(staging: Path, number: int = 1, *, age: float = 0.0, **changed: object) -> Path:
    """A claim as another process would have left it."""
    holder = replace(lease._myself(), **{"kernel": "another", "host": "far"} | changed)  # type: ignore[arg-type] # as its fields are
    path = staging / f"owner-{number:05d}.json"
    path.write_text(json.dumps(asdict(holder)))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_on_another_host_an_owner_is_alive_while_its_heart_beats(run: Run, staging: Path) -> None:
    claim(staging, age=lease.STALE_SECONDS / 2)
    with pytest.raises(StoreError, match="is running on far since") as caught, run.owned():
        pass
    assert f"try again in {lease.STALE_SECONDS:.0f} seconds" in caught.value.hint
    claim(staging, age=lease.STALE_SECONDS + 1)
    with run.owned():
        assert Store(run.facts).running()[run.run_id].pid == os.getpid()


def test_a_process_that_got_the_number_of_an_owner_is_not_it(run: Run, staging: Path) -> None:
    mine = lease._myself()
    claim(staging, kernel=mine.kernel, started=mine.started)
    with pytest.raises(StoreError, match="is running on"), run.owned():
        pass
    claim(staging, kernel=mine.kernel, started="1")
    with run.owned():
        pass


def test_a_process_that_cannot_be_seen_is_judged_by_its_heartbeat(
    run: Run, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr("fleetscan.scanner.store.lease.os.kill", hidden)
    claim(staging, kernel=lease._kernel(), pid=(1 << 22) + 1)  # above the kernel's own limit
    assert Store(run.facts).running()
    claim(staging, kernel=lease._kernel(), pid=(1 << 22) + 1, age=lease.STALE_SECONDS + 1)
    assert not Store(run.facts).running()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 4000, '{"pid": 1}', json.dumps({"pid": 10**40})]
)
def test_a_claim_that_says_nothing_counts_until_it_is_old(
    run: Run, staging: Path, content: str
) -> None:
    path = claim(staging)
    path.write_text(content)
    with pytest.raises(StoreError, match="is running on an unknown host"), run.owned():
        pass
    os.utime(path, (0, 0))
    with run.owned():
        pass


def test_a_claim_of_impossible_numbers_says_nothing(run: Run, staging: Path) -> None:
    for pid in (-1, 0, 10**40, "1", None):
        claim(staging, kernel=lease._kernel(), pid=pid, age=lease.STALE_SECONDS + 1)
        assert not Store(run.facts).running()


def test_who_was_taken_for_dead_can_neither_publish_nor_remove(
    run: Run, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    add_machine(run, "b")
    with run.owned():
        claim(staging, 2)
        before = tree(run.facts)
        for work in (run.finish, run.abandon):
            with pytest.raises(StoreError, match="was taken over by another process: it runs on"):
                work()
        for _ in range(500):
            try:
                run.check_owned()
            except StoreError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the heartbeat did not see it")
    assert tree(run.facts) == before
    assert [owner.host for owner in Store(run.facts).running().values()] == ["far"]


def test_the_heart_beats(run: Run, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    with run.owned():
        (path,) = staging.glob("owner-*.json")
        os.utime(path, (0, 0))
        until = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime > 0


def test_a_claim_that_was_made_too_late_is_withdrawn(
    run: Run, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number was free again: it was given back after a higher one had been taken."""
    monkeypatch.setattr(lease, "refuse_held", lambda staging: claim(staging, 7) and None)
    with pytest.raises(StoreError, match="taken over"), run.owned():
        pass
    assert [path.name for path in staging.glob("owner-*")] == ["owner-00007.json"]


def test_blocks_may_be_nested_and_are_one_claim(run: Run, staging: Path) -> None:
    with run.owned(), run.owned():
        assert len(list(staging.glob("owner-*"))) == 1
    assert not list(staging.glob("owner-*"))


# -- publishing and removing ---------------------------------------------------------------------


def test_what_was_abandoned_is_never_visible(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    add_machine(run, "b")
    other = Store(run.facts).resume(run.run_id)
    check = lease.Lease.check

    def late(self: lease.Lease) -> None:
        """Everything that another process does between our last look and our last step."""
        check(self)
        monkeypatch.setattr(lease.Lease, "check", check)
        self.release()
        other.abandon()

    with run.owned():
        monkeypatch.setattr(lease.Lease, "check", late)
        with pytest.raises(StoreError):
            run.finish()
    assert Store(run.facts).run_ids() == []
    assert [path for path in run.facts.rglob("*") if path.is_file()] == []


def test_no_part_of_a_visible_run_is_removed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    add_machine(run, "b")
    other = Store(run.facts).resume(run.run_id)
    check = lease.Lease.check

    def late(self: lease.Lease) -> None:
        check(self)
        monkeypatch.setattr(lease.Lease, "check", check)
        self.release()
        other.finish()

    with run.owned():
        monkeypatch.setattr(lease.Lease, "check", late)
        with pytest.raises(StoreError):
            run.abandon()
    info = Store(run.facts).run(run.run_id)
    assert info.outcomes == {"ok": 2}
    assert layout.part(run.facts, "machines", run.run_id, 0).exists()
    with pytest.raises(StoreError, match="is finished or was abandoned meanwhile"):
        run.abandon()


def test_a_plan_is_there_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("fleetscan.scanner.store.files.renamed", crash)
        with pytest.raises(Crash):
            Store(tmp_path).begin(["a"], settings={})
    assert Store(tmp_path).unfinished() == []
    (new,) = (tmp_path / ".staging").iterdir()
    Store(tmp_path / "other").path.mkdir()
    assert list(layout.leftover_staging(tmp_path)) == []  # somebody may be about to rename it
    os.utime(new, (0, 0))
    assert list(layout.leftover_staging(tmp_path)) == [new]


def test_staging_that_belongs_to_no_run_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = store.begin(["a"], settings={}).run_id
    done = store.begin(["a"], settings={})
    add_machine(done, "a")
    done.finish()
    staging = tmp_path / ".staging"
    (staging / "20260131T020304Z-3f9a1c" / "machines").mkdir(parents=True)
    (staging / ".gone-20260131T020304Z-3f9a1c-00000000").mkdir()
    store.prune(keep=1)
    assert [path.name for path in staging.iterdir()] == [kept]
