"""Runs leave, and what others need of them stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.verify import verify
from fleetscan.scanner.store.views import connect, query
from fleetscan.scanner.tables import load_tables
from tests.scanner.store.making import add_machine

Answers = dict[tuple[str, str], Any]
Fleet = dict[str, str | None]  # the run that holds a machine's facts; None for a new scan


def night(facts: Path, number: int, fleet: Fleet) -> str:
    run_id = f"202601{number:02}T000000Z-{number:06x}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "new_run_id", lambda _: run_id)
        run = Store(facts).begin(fleet, settings={}, batch_size=2)
    for machine_id, holder in fleet.items():
        groups = [] if holder else [f"{machine_id}-{number}", f"{machine_id}-{number}-b"]
        add_machine(run, machine_id, groups, facts_run=holder)
    return run.finish().run_id


def nights(facts: Path, count: int, machines: int = 6) -> list[str]:
    """Nights in each of which one or two machines changed."""
    chance = random.Random(7)  # noqa: S311 - the same nights every time
    holders: Fleet = {f"m{number}": None for number in range(machines)}
    runs: list[str] = []
    for number in range(1, count + 1):
        for name in chance.sample(sorted(holders), 1 + number % 2) if runs else ():
            holders[name] = None
        run_id = night(facts, number, holders)
        holders = {name: holder or run_id for name, holder in holders.items()}
        runs.append(run_id)
    return runs


def answers(facts: Path, run_ids: list[str]) -> Answers:
    """The rows of every view of some runs, and of their history; not which run holds them."""
    found: Answers = {}
    for run_id in run_ids:
        with connect(facts, run_id, history=True) as connection:
            for name in load_tables():
                columns = "* EXCLUDE (facts_run)" if name == "machines" else "*"
                sql = f"SELECT {columns} FROM {name} ORDER BY ALL"  # noqa: S608 - names of specs
                found[run_id, name] = query(connection, sql).to_pylist()
                wanted = ", ".join(f"'{one}'" for one in run_ids)
                within = f"history.{name} WHERE run_id IN ({wanted})"
                sql = f"SELECT {columns} FROM {within} ORDER BY ALL"  # noqa: S608 - our own
                found["history", name] = query(connection, sql).to_pylist()
    return found


def partitions(facts: Path) -> set[str]:
    return {run_id for run_id, _ in layout.partitions(facts)}


@pytest.mark.parametrize("keep", [1, 3, 11])
def test_as_many_runs_remain_as_were_asked_for_and_show_what_they_showed(
    tmp_path: Path, keep: int
) -> None:
    runs = nights(tmp_path, 12)
    before = answers(tmp_path, runs[-keep:])
    assert Store(tmp_path).prune(keep=keep) == runs[:-keep]
    assert Store(tmp_path).run_ids() == runs[-keep:]
    assert partitions(tmp_path) == set(runs[-keep:])
    assert answers(tmp_path, runs[-keep:]) == before
    assert [report.problems for report in verify(Store(tmp_path))] == [()] * keep


def test_pruning_night_after_night_copies_a_row_once_and_loses_none(tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    whole = tmp_path / "whole"
    runs = nights(whole, 14)
    expected = answers(whole, runs)
    holders: Fleet = {}
    for number, run_id in enumerate(runs, 1):
        with connect(whole, run_id) as connection:
            rows = query(connection, "SELECT machine_id, facts_run FROM machines").to_pylist()
        changed = {row["machine_id"] for row in rows if row["facts_run"] == run_id}
        fleet = {name: None if name in changed else holders[name] for name in sorted(holders)}
        night(facts, number, fleet or dict.fromkeys(sorted(changed)))
        Store(facts).prune(keep=4)
        assert len(Store(facts).run_ids()) == min(number, 4)
        with connect(facts) as connection:
            rows = query(connection, "SELECT machine_id, facts_run FROM machines").to_pylist()
        holders = {row["machine_id"]: row["facts_run"] for row in rows}
    kept = runs[-4:]
    found = answers(facts, kept)
    for key in found:
        if key[0] in kept:
            assert found[key] == expected[key]
    held = sum(run.tables["groups"].rows for run in Store(facts).runs())
    assert held <= 2 * (6 + 4 * 2)  # two a machine and scan: one each, and at most eight more


def test_older_facts_of_a_machine_stay_for_the_runs_that_show_them(tmp_path: Path) -> None:
    first = night(tmp_path, 1, {"a": None, "b": None})
    second = night(tmp_path, 2, {"a": first, "b": first})
    third = night(tmp_path, 3, {"a": None, "b": first})
    before = answers(tmp_path, [second, third])
    Store(tmp_path).prune(keep=2)
    assert answers(tmp_path, [second, third]) == before
    infos = {run.run_id: run for run in Store(tmp_path).runs()}
    assert infos[second].facts_runs == {third: 1}  # b; its own is a
    assert (infos[second].held, infos[third].held) == (1, 2)


def test_a_single_run_can_be_deleted_though_others_need_it(tmp_path: Path) -> None:
    first = night(tmp_path, 1, {"a": None})
    second = night(tmp_path, 2, {"a": first})
    third = night(tmp_path, 3, {"a": first})
    before = answers(tmp_path, [second, third])
    store = Store(tmp_path)
    store.delete(first)
    assert store.run_ids() == [second, third]
    assert answers(tmp_path, [second, third]) == before
    store.delete(third)  # which took them
    assert answers(tmp_path, [second])[second, "groups"] == before[second, "groups"]
    store.delete(second)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_at_least_one_run_is_kept(tmp_path: Path) -> None:
    night(tmp_path, 1, {"a": None})
    with pytest.raises(UsageError, match="the newest run cannot be pruned"):
        Store(tmp_path).prune(keep=0)


def test_facts_that_cannot_be_read_delete_nothing(tmp_path: Path) -> None:
    first = night(tmp_path, 1, {"a": None})
    second = night(tmp_path, 2, {"a": first})
    layout.part(tmp_path, "groups", first, 0).write_bytes(b"torn")
    with pytest.raises(StoreError, match="groups"):
        Store(tmp_path).prune(keep=1)
    assert Store(tmp_path).run_ids() == [first, second]


def test_runs_of_versions_with_other_columns_are_taken_over_as_they_are(tmp_path: Path) -> None:
    first = night(tmp_path, 1, {"a": None, "b": None})
    path = layout.part(tmp_path, "groups", first, 0)
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["members"]), path)
    file = layout.run_file(tmp_path, first)
    content = json.loads(file.read_text())
    content["tables"]["groups"]["columns"].remove("members")
    for table in content["tables"].values():
        del table["files"]  # as old as that
    file.write_text(json.dumps(content | {"parts": 1}))
    for name in set(load_tables()) - {"machines", "groups"}:
        old = layout.part(tmp_path, name, first, 0)
        old.parent.mkdir(parents=True)
        pq.write_table(arrow_schema(load_tables()[name]).empty_table(), old)
    second = night(tmp_path, 2, {"a": first, "b": None})
    before = answers(tmp_path, [second])
    assert {row["name"]: row["members"] for row in before[second, "groups"]} == {
        "a-1": None,
        "a-1-b": None,
        "b-2": ["ann"],
        "b-2-b": ["ann"],
    }
    Store(tmp_path).prune(keep=1)
    assert answers(tmp_path, [second]) == before


def test_runs_that_an_unfinished_one_uses_stay_until_it_is_finished(tmp_path: Path) -> None:
    first = night(tmp_path, 1, {"a": None})
    second = night(tmp_path, 2, {"a": first})
    going_on = Store(tmp_path).begin(["a"], settings={})
    assert going_on.keep(first)
    assert Store(tmp_path).prune(keep=1) == []
    going_on.abandon()
    assert Store(tmp_path).prune(keep=1) == [first]
    assert Store(tmp_path).run_ids() == [second]


# -- killed, and twice at once ------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from fleetscan.appliance.host import writing
from fleetscan.scanner.store import files
from fleetscan.scanner.store.runs import Store

steps = iter(range(int(sys.argv[2]) + 1))

def counted(function):
    def step(*args, **kwargs):
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return step

for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
Store(Path(sys.argv[1])).prune(keep=2)
"""


def killed(facts: Path, steps: int) -> bool:
    """Prune in a process that is killed before one of its steps; whether it came to that."""
    argv = [sys.executable, "-c", KILLED, str(facts), str(steps)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.timeout(300)
def test_whatever_step_pruning_is_killed_at_the_runs_that_stay_show_what_they_showed(
    tmp_path: Path,
) -> None:
    runs = nights(tmp_path / "whole", 4, machines=3)
    before = answers(tmp_path / "whole", runs[-2:])
    for number, steps in enumerate(_steps()):
        facts = tmp_path / f"facts{number}"
        subprocess.run(["cp", "-r", tmp_path / "whole", facts], check=True)
        if not killed(facts, steps):
            break
        _show(facts, runs, before)
    else:
        pytest.fail("it was never done")
    assert number > 5


def _steps() -> Iterator[int]:
    """Each of the first steps, and then some."""
    yield from range(12)
    yield from range(12, 400, 9)


def _show(facts: Path, runs: list[str], before: Answers) -> None:
    """What a killed process left is readable, and the next one completes it."""
    there = [run_id for run_id in Store(facts).run_ids() if run_id in runs[-2:]]
    assert there == runs[-2:]
    found = answers(facts, runs[-2:])
    assert found == before
    Store(facts).prune(keep=2)
    assert Store(facts).run_ids() == runs[-2:]
    assert answers(facts, runs[-2:]) == before
    assert not any(report.problems for report in verify(Store(facts)))
    listed = {name for run in Store(facts).runs() for name, _ in _listed(run)}
    on_disk = {str(path.relative_to(facts)) for path in facts.rglob("*.parquet")}
    assert on_disk == listed


def _listed(run: RunInfo) -> Iterator[tuple[str, int]]:
    for name, file in run.files():
        yield f"{name}/run={run.run_id}/{file.name}", file.bytes or 0


@pytest.mark.timeout(300)
def test_two_processes_that_prune_at_once_leave_what_one_would(tmp_path: Path) -> None:
    runs = nights(tmp_path, 10)
    before = answers(tmp_path, runs[-2:])
    code = "import sys; from pathlib import Path; from fleetscan.scanner.store.runs import Store; "
    code += "Store(Path(sys.argv[1])).prune(keep=2)"
    argv = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(argv, env=dict(os.environ)) for _ in range(2)]
    assert [process.wait(200) for process in both] == [0, 0]
    assert Store(tmp_path).run_ids() == runs[-2:]
    assert answers(tmp_path, runs[-2:]) == before
