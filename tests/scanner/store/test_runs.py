from __future__ import annotations

import errno
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner.store import files, layout, parts
from fleetscan.scanner.store.arrow import arrow_schema, rows_to_arrow
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.files.spec import File
from fleetscan.scanner.tables.machines.spec import Outcome
from tests.scanner.store.making import add_machine, finished_run, machine_rows

FILE = File(
    path="/usr/share/doc/example/changelog.gz",
    type="file",
    mode=0o644,
    uid=0,
    gid=0,
    owner="root",
    group_name="root",
    size=4096,
    allocated=4096,
    links=1,
    inode=1,
    device="/dev/sda1",
    accessed=0,
    modified=0,
    changed=0,
    target=None,
    selinux=None,
    capabilities=None,
)


def part_rows(facts: Path, table: str, run_id: str, number: int) -> list[dict[str, Any]]:
    """Rows of a part; of the only run when none is named."""
    run_id = run_id or Store(facts).latest().run_id
    return pq.ParquetFile(layout.part(facts, table, run_id, number)).read().to_pylist()


def tree(directory: Path) -> dict[str, bytes]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


class Crash(BaseException):
    """As if the process had been killed here."""


def crash(*_: object, **__: object) -> None:
    raise Crash


# -- the way of a run ----------------------------------------------------------------------------


def test_a_run_is_planned_sorted_and_compacted_in_batches(tmp_path: Path) -> None:
    run = Store(tmp_path / "facts").begin(["c", "a", "b"], settings={"files": "all"}, batch_size=2)
    assert run.machine_ids == ("a", "b", "c")
    assert run.in_batches(run.machine_ids) == [("a", "b"), ("c",)]
    assert run.settings == {"files": "all"}
    assert layout.is_run_id(run.run_id)


def test_a_finished_run_says_what_it_holds_of_every_table(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["b", "a", "c"], settings={"files": "all"}, batch_size=2)
    for machine_id in ("c", "b", "a"):
        add_machine(run, machine_id, [f"{machine_id}1", f"{machine_id}2"])
    info = run.finish()
    assert info.outcomes == {"ok": 3}
    assert (info.machines, info.held, info.interrupted) == (3, 3, False)
    assert info.tables["groups"].rows == 6
    assert info.tables["groups"].columns[:3] == ("machine_id", "root", "name")
    assert info.tables["users"].rows == 0
    assert info.facts_runs == {}
    assert Store(tmp_path).run(run.run_id) == info == Store(tmp_path).latest()
    names = [row["name"] for row in part_rows(tmp_path, "groups", run.run_id, 0)]
    assert names == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert not layout.staging(tmp_path, run.run_id).exists()


def test_tables_have_their_schema_on_disk_and_without_rows_no_file(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    for name in ("groups", "machines"):
        found = pq.read_schema(layout.part(tmp_path, name, info.run_id, 0))
        assert found.equals(arrow_schema(load_tables()[name]), check_metadata=True)
    assert {path.name for path in tmp_path.iterdir()} >= {"groups", "machines", "runs"}
    assert not (tmp_path / "users").exists()
    assert info.tables["users"].files == ()


def test_the_run_file_lists_every_file_with_rows_bytes_and_checksum(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"], "b": ["adm", "video"], "c": []})
    listed = json.loads(layout.run_file(tmp_path, info.run_id).read_text())["tables"]
    found = {}
    for path in tmp_path.rglob("*.parquet"):
        content = path.read_bytes()
        found[path.parent.parent.name, path.name] = {
            "name": path.name,
            "rows": pq.read_metadata(path).num_rows,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    said = {(name, file["name"]): file for name, table in listed.items() for file in table["files"]}
    assert said == found
    assert found["groups", "part-00000.parquet"]["rows"] == 3


def test_a_run_file_of_before_files_were_listed_is_read(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    path = layout.run_file(tmp_path, info.run_id)
    content = json.loads(path.read_text())
    for table in content["tables"].values():
        del table["files"]
    path.write_text(json.dumps(content | {"parts": 2}))
    old = Store(tmp_path).run(info.run_id)
    assert [file.name for file in old.tables["users"].files] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert old.tables["groups"].files[0].sha256 is None
    assert RunInfo.from_json(old.to_json()) == old


@pytest.mark.parametrize("name", ["../x.parquet", "/etc/passwd", "part-1.parquet", ""])
def test_a_run_file_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    path = layout.run_file(tmp_path, info.run_id)
    path.write_text(path.read_text().replace("part-00000.parquet", name))
    with pytest.raises(StoreError, match="not a name that a store uses"):
        Store(tmp_path).latest()


def test_outcomes_are_counted_as_the_machines_table_has_them(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["a", "b", "c"], settings={})
    add_machine(run, "a")
    add_machine(run, "b", outcome=Outcome.FAILED)
    add_machine(run, "c", outcome=Outcome.FAILED)
    assert run.finish().outcomes == {"ok": 1, "failed": 2}


def test_a_run_is_seen_by_others_only_when_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.begin(["a"], settings={})
    add_machine(run, "a")
    run.compact(run.machine_ids)
    assert store.runs() == []
    assert store.unfinished() == [run.run_id]
    run.finish()
    assert [info.run_id for info in store.runs()] == [run.run_id]
    assert store.unfinished() == []


def test_a_run_travels_to_other_processes_without_its_plan(tmp_path: Path) -> None:
    run = Store(tmp_path).begin([f"machine-{i}" for i in range(1000)], settings={})
    assert len(run.machine_ids) == 1000
    sent = pickle.dumps(run)
    assert len(sent) < 500
    there: Run = pickle.loads(sent)  # noqa: S301 - made above
    add_machine(there, "machine-7")
    assert run.finished() == ["machine-7"]


# -- writing parts -------------------------------------------------------------------------------


def test_the_same_machines_give_the_same_bytes(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["a", "b"], settings={})
    add_machine(run, "a")
    add_machine(run, "b")
    run.finish()
    again = Store(tmp_path).begin(["a", "b"], settings={}, batch_size=1)
    for machine_id in ("b", "a"):
        add_machine(again, machine_id)
    again.finish()
    one, other = (tree(tmp_path / "groups" / f"run={a_run.run_id}") for a_run in (run, again))
    assert one == other


def test_compacting_again_writes_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Store(tmp_path).begin(["a", "b"], settings={})
    add_machine(run, "a", ["old"])
    run.compact(run.machine_ids)
    add_machine(run, "a", ["new"])
    add_machine(run, "b", ["b"])
    run.compact(run.machine_ids)
    monkeypatch.setattr(parts, "write_parts", crash)
    run.compact(run.machine_ids)
    assert run.finish().tables["groups"].rows == 2
    names = [row["name"] for row in part_rows(tmp_path, "groups", run.run_id, 0)]
    assert names == ["new", "b"]


def test_row_groups_are_bounded_by_rows_and_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 4)
    rows = machine_rows("a", "r")
    batches = rows.to_batches() * 9
    parts.write_parts(parts.numbered(tmp_path), rows.schema, batches)
    found = pq.read_metadata(tmp_path / "part-00000.parquet")
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [4, 4, 1]
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 1)
    parts.write_parts(parts.numbered(tmp_path, 1), rows.schema, batches)
    assert pq.read_metadata(tmp_path / "part-00001.parquet").num_row_groups == 9


def test_parts_end_when_they_are_long_enough_and_none_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = machine_rows("a", "r")
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 3)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    written = parts.write_parts(parts.numbered(tmp_path), rows.schema, rows.to_batches() * 7)
    assert [(file.name, file.rows) for file in written] == [
        ("part-00000.parquet", 3),
        ("part-00001.parquet", 3),
        ("part-00002.parquet", 1),
    ]
    assert parts.write_parts(parts.numbered(tmp_path / "none"), rows.schema, []) == []
    assert not (tmp_path / "none").exists()


def test_small_parts_of_batches_are_put_together_and_large_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {f"m{number:02}": [f"group{number}"] for number in range(40)}
    monkeypatch.setattr(parts, "PART_BYTES", 1 << 20)
    together = finished_run(tmp_path / "together", groups, batch_size=1)
    assert {len(table.files) for table in together.tables.values()} == {0, 1}
    names = [row["machine_id"] for row in part_rows(tmp_path / "together", "groups", "", 0)]
    assert names == list(groups)
    monkeypatch.setattr(parts, "SMALL_PART", 1)
    apart = finished_run(tmp_path / "apart", groups, batch_size=4)
    assert [file.rows for file in apart.tables["groups"].files] == [4] * 10


@given(st.lists(st.lists(st.integers(0, 30), unique=True), max_size=6), st.integers(1, 4))
def test_merging_keeps_every_row_and_sorts_by_machine(lists: list[list[int]], size: int) -> None:
    owner = {number: index for index, numbers in enumerate(lists) for number in numbers}
    streams = [
        sorted(number for number in owner if owner[number] == index) for index in range(len(lists))
    ]

    def batches(numbers: list[int]) -> Iterator[pa.RecordBatch]:
        rows = [{"machine_id": f"{n:02}", "row": r} for n in numbers for r in range(n % 4)]
        for start in range(0, len(rows), size):
            yield pa.RecordBatch.from_pylist(rows[start : start + size])
        yield pa.RecordBatch.from_pylist([], schema=pa.schema([("machine_id", pa.string())]))

    expected = [
        {"machine_id": f"{number:02}", "row": row}
        for number in sorted(owner)
        for row in range(number % 4)
    ]
    begins = [f"{stream[0]:02}" if stream else "" for stream in streams]
    for firsts in (None, begins):
        found = parts.merged(map(batches, streams), firsts)
        assert [row for batch in found for row in batch.to_pylist()] == expected


def test_merging_parts_one_after_the_other_opens_one_at_a_time() -> None:
    opened: list[int] = []

    def stream(number: int) -> Iterator[pa.RecordBatch]:
        opened.append(number)
        yield pa.RecordBatch.from_pylist([{"machine_id": f"{number}{letter}"} for letter in "ab"])
        opened.remove(number)

    rows = parts.merged((stream(number) for number in range(9)), map(str, range(9)))
    assert max(len(opened) for _ in rows) == 1


def test_memory_stays_flat_however_many_rows_a_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_to_arrow(load_tables()["files"], [FILE] * 5000, machine_id="a", root="/dev/sda1")
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 20_000)
    used: list[int] = []
    before = pa.total_allocated_bytes()

    def watched(groups: Any) -> Any:
        for group in groups:
            used.append(pa.total_allocated_bytes() - before)
            yield group

    row_groups = parts._row_groups
    monkeypatch.setattr(parts, "_row_groups", lambda *some: watched(row_groups(*some)))
    run = Store(tmp_path).begin(["a"], settings={})
    with run.machine_writer("a") as writer:
        writer.write("machines", machine_rows("a", run.run_id))
        for _ in range(60):
            writer.write("files", rows)
            used.append(pa.total_allocated_bytes() - before)
        writer.commit({})
    assert run.finish().tables["files"].rows == 300_000
    assert max(used) < 12 * rows.nbytes  # two row groups of 4 writes each; 60 were made


# -- interrupted, crashed, resumed ---------------------------------------------------------------


def test_an_unfinished_run_is_resumed_with_what_it_has(tmp_path: Path) -> None:
    store = Store(tmp_path)
    begun = store.begin(["a", "b", "c"], settings={"files": "none"})
    add_machine(begun, "b")
    run = store.resume(begun.run_id)
    assert run.finished() == ["b"]
    assert [run.is_finished(machine_id) for machine_id in ("a", "b")] == [False, True]
    assert run.settings == {"files": "none"}
    with pytest.raises(StoreError, match="2 of 3 machines are not finished") as caught:
        run.finish()
    assert "resume" in caught.value.hint
    add_machine(run, "a")
    add_machine(run, "c")
    assert run.finish().interrupted is False


def test_an_interrupted_run_can_be_published_and_says_what_it_is(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["a", "b", "c"], settings={}, batch_size=1)
    add_machine(run, "a")
    info = run.finish(interrupted=True)
    assert (info.interrupted, info.machines, info.outcomes) == (True, 3, {"ok": 1})
    assert [row["machine_id"] for row in part_rows(tmp_path, "groups", run.run_id, 0)] == ["a"]
    assert Store(tmp_path).latest().interrupted


def test_a_run_with_nothing_finished_is_not_published(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["a"], settings={})
    with pytest.raises(StoreError, match="no finished machine"):
        run.finish(interrupted=True)
    assert Store(tmp_path).unfinished() == [run.run_id]


def test_an_abandoned_run_leaves_nothing(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(["a"], settings={})
    add_machine(run, "a")
    run.compact(run.machine_ids)
    run.abandon()
    assert tree(tmp_path) == {}
    assert Store(tmp_path).unfinished() == []


STEPS: list[tuple[Any, str]] = [
    (files, "replace_tree"),
    (parts, "write_parts"),
    (parts, "count_values"),
    (files, "give_name"),
    (files, "renamed"),
    (files, "flush_directory"),
    (files, "write_json"),
    (files, "remove_tree"),
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_crash_at_any_step_costs_nothing_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: int
) -> None:
    store = Store(tmp_path)
    run = store.begin(["a", "b", "c"], settings={}, batch_size=2)
    add_machine(run, "a")

    def work(run: Run) -> None:
        for machine_id in run.machine_ids:
            if not run.is_finished(machine_id):
                add_machine(run, machine_id)
        run.finish()

    with monkeypatch.context() as patch:
        patch.setattr(module, name, crash_after(calls, getattr(module, name)))
        try:
            work(run)
        except Crash:
            assert "a" in run.finished() or run.run_id in store.run_ids()
    if run.run_id not in store.run_ids():
        work(store.resume(run.run_id))
    info = store.latest()
    assert (info.outcomes, info.tables["groups"].rows) == ({"ok": 3}, 3)
    assert store.unfinished() == []
    store.prune(keep=1)
    assert {path.split("/")[0] for path in tree(tmp_path)} == {"runs", "machines", "groups"}
    listed = {f"{name}/run={info.run_id}/{file.name}" for name, file in info.files()}
    assert set(tree(tmp_path)) == {*listed, f"runs/{info.run_id}.json"}


def crash_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    left = [calls]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("change", ["another machine", "written again", "none"])
def test_a_publication_that_was_cut_off_leaves_nothing_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    store = Store(tmp_path)
    run = store.begin(["a", "b"], settings={}, batch_size=1)
    add_machine(run, "a", ["old"])
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", crash_after(1, files.write_json))  # the run file
        with pytest.raises(Crash):
            run.finish(interrupted=True)
    if change == "written again":
        add_machine(run, "a", ["new"])
    if change == "another machine":
        add_machine(run, "b", ["b"])
    info = store.resume(run.run_id).finish(interrupted=True)
    expected = {"another machine": ["old", "b"], "written again": ["new"], "none": ["old"]}
    names = [row["name"] for row in part_rows(tmp_path, "groups", run.run_id, 0)]
    assert names == expected[change]
    assert len(tree(tmp_path)) == 1 + len(list(info.files()))


@pytest.mark.parametrize("links", [True, False])
def test_machines_found_unchanged_survive_a_publication_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    first = finished_run(tmp_path, {"a": ["a1"], "b": ["b1"]})
    run = Store(tmp_path).begin(["a", "b"], settings={})
    rows = [machine_rows(machine_id, first.run_id) for machine_id in "ab"]
    run.add_unchanged({"machines": pa.concat_tables(rows)})
    with monkeypatch.context() as patch:
        patch.setattr(files, "renamed", crash)
        with pytest.raises(Crash):
            run.finish()
    info = Store(tmp_path).resume(run.run_id).finish(interrupted=True)
    assert (info.outcomes, info.facts_runs, info.held) == ({"ok": 2}, {first.run_id: 2}, 0)
    assert info.interrupted is False


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_a_part_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = machine_rows("a", "r")
    path = tmp_path / "part-00000.parquet"
    parts.write_parts(parts.numbered(tmp_path), rows.schema, rows.to_batches())
    before = path.read_bytes()

    def broken() -> Any:
        yield from machine_rows("b", "r").to_batches()
        raise Crash

    with pytest.raises(Crash):
        parts.write_parts(parts.numbered(tmp_path), rows.schema, broken())
    assert tree(tmp_path) == {"part-00000.parquet": before}


# -- bad use -------------------------------------------------------------------------------------


def test_a_plan_needs_machines_and_each_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no machines"):
        Store(tmp_path).begin([], settings={})
    with pytest.raises(UsageError, match=r"two machines have the id 'a\\x1b'"):
        Store(tmp_path).begin(["a\x1b", "b", "a\x1b"], settings={})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("run_id", ["", "../x", "20260131T020304Z-3f9a1c/..", "latest", "x'; drop"])
def test_run_ids_of_another_form_are_refused(tmp_path: Path, run_id: str) -> None:
    for use in (Store(tmp_path).run, Store(tmp_path).resume, Store(tmp_path).delete):
        with pytest.raises(UsageError, match="is not a run id"):
            use(run_id)


def test_missing_things_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no facts directory"):
        Store(tmp_path / "none").latest()
    with pytest.raises(StoreError, match="no finished run"):
        Store(tmp_path).latest()
    with pytest.raises(StoreError, match="there is no run 20260131T020304Z-3f9a1c"):
        Store(tmp_path).run("20260131T020304Z-3f9a1c")
    with pytest.raises(StoreError, match="cannot be resumed"):
        Store(tmp_path).resume("20260131T020304Z-3f9a1c")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run_id": 1}'])
def test_a_damaged_run_file_is_named(tmp_path: Path, content: str) -> None:
    info = finished_run(tmp_path, {"a": []})
    layout.run_file(tmp_path, info.run_id).write_text(content)
    with pytest.raises(StoreError, match=info.run_id):
        Store(tmp_path).latest()


def test_a_run_file_under_another_name_is_refused(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": []})
    other = "20990131T020304Z-3f9a1c"
    layout.run_file(tmp_path, info.run_id).rename(layout.run_file(tmp_path, other))
    with pytest.raises(StoreError, match="the run file of another run"):
        Store(tmp_path).latest()


def test_the_run_file_is_plain_json_with_utc_times(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    content = json.loads(layout.run_file(tmp_path, info.run_id).read_text())
    assert content["started"].endswith("+00:00")
    assert content["tables"]["groups"]["rows"] == 1


# -- retention -----------------------------------------------------------------------------------


def night(facts: Path, number: int, facts_run: str | None = None) -> str:
    """A run of one machine, of the given night; its facts may lie in an earlier run."""
    run_id = f"2026010{number}T000000Z-00000{number}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "new_run_id", lambda _: run_id)
        run = Store(facts).begin(["a"], settings={})
    add_machine(run, "a", [] if facts_run else [f"night{number}"], facts_run=facts_run)
    return run.finish().run_id


def test_pruning_sweeps_up_after_crashes_and_spares_runs_that_go_on(tmp_path: Path) -> None:
    first, second = night(tmp_path, 1), night(tmp_path, 2)
    layout.run_file(tmp_path, first).unlink()
    going_on = Store(tmp_path).begin(["a"], settings={})
    add_machine(going_on, "a")
    going_on.compact(["a"])
    assert Store(tmp_path).prune(keep=5) == []
    assert {run_id for run_id, _ in layout.partitions(tmp_path)} == {second}
    assert going_on.finish().outcomes == {"ok": 1}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' + "[" * 200_000, "1"])
def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)

    with pytest.raises(StoreError, match=r"reading .*/run\.json failed"):
        files.read_json(path)
