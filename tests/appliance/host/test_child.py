from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import FleetscanError, StoreError
from fleetscan.appliance.host.child import Child, ChildLostError, limited_memory, sql_memory

WORK = "tests.appliance.host.child_work"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with Child(WORK, 512 << 20) as child:
        child.start("make")
        yield child


def test_what_it_prints_is_no_answer(work: Child) -> None:
    assert work.call("add", 1, 2, seconds=30) == b"3"
    assert work.call("add", 2, 3, seconds=30) == b"5"


def test_more_memory_than_it_may_have_fails_there_alone(work: Child) -> None:
    with pytest.raises(FleetscanError, match="MemoryError"):
        work.call("allocate", 1 << 30, seconds=30)

    assert work.call("add", 1, 2, seconds=30) == b"3"


def test_its_memory_is_limited_and_it_leaves_no_core(work: Child) -> None:
    limits = work.call("limits", seconds=30).decode()

    assert re.search(rf"Max data size +{512 << 20} ", limits)
    assert re.search(r"Max core file size +0 ", limits)


def test_errors_of_ours_arrive_as_they_are_and_printable(work: Child) -> None:
    with pytest.raises(StoreError, match=r"no such part \\x1b\[2J") as caught:
        work.call("raise_store_error", seconds=30)
    assert caught.value.hint == "restore it"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_its_death_is_an_error_that_says_what_it_was_doing(
    number: signal.Signals, work: Child
) -> None:
    with pytest.raises(ChildLostError, match=rf"{number.name}: terminate called \\x1b") as caught:
        work.call("die", number, seconds=30)
    assert caught.value.doing == "dying \\x1b[31m"
    with pytest.raises(ChildLostError):
        work.call("add", 1, 2, seconds=30)


def test_it_is_ended_when_it_takes_too_long(work: Child) -> None:
    begun = time.monotonic()
    with pytest.raises(ChildLostError, match=r"longer than 0\.5 seconds") as caught:
        work.call("hang", seconds=0.5)
    assert caught.value.doing == "hanging"
    assert time.monotonic() - begun < 20


def test_one_that_closes_its_pipe_and_stays_is_ended(work: Child) -> None:
    begun = time.monotonic()
    with pytest.raises(ChildLostError, match="its process did not end") as caught:
        work.call("hush", seconds=60)
    assert caught.value.doing == "hushing"
    assert time.monotonic() - begun < 20
    assert work._process.poll() is not None


def test_one_that_does_not_take_its_request_is_ended(work: Child) -> None:
    with pytest.raises(ChildLostError, match="longer than"):
        work.call("stop", seconds=0.5)
    with Child(WORK, 512 << 20) as other:
        other.start("make")
        os.kill(other._process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(ChildLostError, match=r"longer than 0\.5 seconds"):
            other.call("add", b"x" * (4 << 20), 1, seconds=0.5)  # far more than a pipe holds
        assert time.monotonic() - begun < 20


def test_signs_of_life_give_it_more_time(work: Child) -> None:
    assert work.call("live", 6, seconds=1.5) == b"done"


def test_an_endless_answer_is_not_awaited(work: Child) -> None:
    with pytest.raises(ChildLostError, match="too long"):
        work.call("lie", seconds=30)


def test_it_removes_its_files_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with Child(WORK, 512 << 20) as child:
        child.start("make_with_files", str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from fleetscan.appliance.host.child import Child; "
        f"child = Child({WORK!r}, 512 << 20); child.start('make'); "
        "print(child._process.pid, flush=True); child.call('hang', seconds=60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_block_may_be_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetscan.appliance.host.child.MEMORY", 2 << 30)
    before = resource.getrlimit(resource.RLIMIT_DATA)

    with pytest.raises(FleetscanError, match="the query needs more than 2048 MiB"):  # noqa: SIM117
        with limited_memory("the query"):
            bytearray(3 << 30)

    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_duckdb_is_given_a_part_of_it() -> None:
    assert re.fullmatch(r"\d+MiB", sql_memory())
