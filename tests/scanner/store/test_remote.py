"""Facts in an object store: published as a whole, read as local ones are, never written over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner.store import layout, mirror
from fleetscan.scanner.store.remote import Remote, local_copy, remote_of
from fleetscan.scanner.store.remote_url import check_url
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.verify import verify
from fleetscan.scanner.store.views import connect, query
from tests.scanner.store.making import add_machine, finished_run
from tests.scanner.store.object_store import Bucket, served

pytestmark = pytest.mark.timeout(120)

GROUPS = "SELECT machine_id, name FROM groups ORDER BY ALL"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    monkeypatch.setenv("FLEETSCAN_CACHE", str(tmp_path / "cache"))
    with served(monkeypatch) as bucket:
        yield bucket


def move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, host: str = "other") -> Path:
    """The local copy that another host has."""
    monkeypatch.setenv("FLEETSCAN_CACHE", str(tmp_path / f"cache-{host}"))
    return local_copy(url)


def rows(facts: Path, sql: str = GROUPS, *, past: bool = False) -> list[dict[str, object]]:
    mirror.fetch(facts, past=past)
    with connect(facts, history=True, past=past) as connection:
        return query(connection, sql).to_pylist()


def three_nights(facts: Path) -> list[RunInfo]:
    """A machine that changes each night, and two that never do."""
    first = finished_run(facts, {"a": ["adm"], "b": ["sudo", "wheel"], "c": []})
    runs = [first]
    for night in ("second", "third"):
        mirror.fetch_known(facts)
        run = Store(facts).begin(["a", "b", "c"], settings={})
        add_machine(run, "a", [night])
        add_machine(run, "b", [], facts_run=first.run_id)
        add_machine(run, "c", [], facts_run=first.run_id)
        runs.append(run.finish())
    return runs


def burning(fuel: Iterator[int], do: Callable[..., object]) -> Callable[..., object]:
    """The same as long as there is fuel."""

    def run(*arguments: object) -> object:
        if next(fuel, None) is None:
            raise StoreError("killed")
        return do(*arguments)

    return run


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one second sort as they were begun."""
    count = iter(range(10, 60))
    monkeypatch.setattr(
        layout, "new_run_id", lambda now: f"20260131T0203{next(count)}Z-{next(count):06x}"
    )


class TestPublishing:
    def test_another_host_reads_what_was_published(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        three_nights(tmp_path / "here")
        runs = three_nights(local_copy(bucket.url()))
        there = move(monkeypatch, tmp_path, bucket.url())
        assert rows(there) == rows(tmp_path / "here")
        assert rows(there, past=True) == rows(tmp_path / "here", past=True)
        every = "SELECT machine_id, name FROM history.groups ORDER BY ALL"
        assert rows(there, every, past=True) == rows(tmp_path / "here", every, past=True)
        assert len(rows(there, every, past=True)) == 3 + 2 * 3
        listed = {f"{table}/run={run.run_id}/{f.name}" for run in runs for table, f in run.files()}
        assert bucket.names() == listed | {f"runs/{run.run_id}.json" for run in runs}

    def test_a_killed_publication_is_not_visible_and_can_be_resumed(
        self, bucket: Bucket, tmp_path: Path
    ) -> None:
        facts = local_copy(bucket.url())
        run = Store(facts).begin(["a", "b"], settings={})
        for name in ("a", "b"):
            add_machine(run, name)
        program = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from fleetscan.scanner.store.remote import Remote\n"
            "from fleetscan.scanner.store.runs import Store\n"
            "Remote.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "Store(Path(sys.argv[1])).resume(sys.argv[2]).finish()\n"
        )
        argv = [sys.executable, "-c", program, str(facts), run.run_id]
        assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
        assert bucket.names()
        assert not any(name.startswith("runs/") for name in bucket.names())
        mirror.fetch_runs(facts)
        assert Store(facts).run_ids() == []
        assert Store(facts).unfinished() == [run.run_id]
        Store(facts).resume(run.run_id).finish()
        assert f"runs/{run.run_id}.json" in bucket.names()
        assert len(rows(facts)) == 2

    def test_killed_after_its_run_file_was_written_it_is_finished(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        facts = local_copy(bucket.url())
        run = Store(facts).begin(["a"], settings={})
        add_machine(run, "a")
        with monkeypatch.context() as patched:
            patched.setattr("fleetscan.scanner.store.files.renamed", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run.finish()
        assert Store(facts).run_ids() == []
        mirror.fetch_runs(facts)
        assert Store(facts).run_ids() == [run.run_id]
        assert Store(facts).unfinished() == []
        assert len(rows(facts)) == 1

    def test_a_run_that_is_there_is_not_written_over(self, bucket: Bucket) -> None:
        facts = local_copy(bucket.url())
        run = Store(facts).begin(["a"], settings={})
        add_machine(run, "a")
        bucket.write(f"runs/{run.run_id}.json", b"somebody else's")
        with pytest.raises(StoreError, match="not written over"):
            run.finish()
        assert bucket.read(f"runs/{run.run_id}.json") == b"somebody else's"

    def test_two_hosts_publish_at_once(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun = []
        for host in ("one", "two"):
            facts = move(monkeypatch, tmp_path, bucket.url(), host)
            run = Store(facts).begin([host], settings={})
            add_machine(run, host)
            begun.append((str(tmp_path / f"cache-{host}"), facts, run.run_id))
        program = (
            "import sys\nfrom pathlib import Path\n"
            "from fleetscan.scanner.store.runs import Store\n"
            "Store(Path(sys.argv[1])).resume(sys.argv[2]).finish()\n"
        )

        def publish(one: tuple[str, Path, str]) -> int:
            cache, facts, run_id = one
            argv = ["env", f"FLEETSCAN_CACHE={cache}", sys.executable, "-c", program]
            return subprocess.run([*argv, str(facts), run_id], check=False).returncode

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(publish, begun)) == [0, 0]
        facts = move(monkeypatch, tmp_path, bucket.url(), "third")
        found = rows(facts, "SELECT run_id, machine_id FROM history.groups ORDER BY ALL", past=True)
        assert [tuple(row.values()) for row in found] == [
            (begun[0][2], "one"),
            (begun[1][2], "two"),
        ]

    def test_a_run_whose_facts_were_deleted_meanwhile_is_not_published(
        self, bucket: Bucket
    ) -> None:
        facts = local_copy(bucket.url())
        first = finished_run(facts, {"a": ["adm"]})
        run = Store(facts).begin(["a"], settings={})
        add_machine(run, "a", [], facts_run=first.run_id)
        bucket.filesystem.delete_file(f"bucket/facts/runs/{first.run_id}.json")
        with pytest.raises(StoreError, match="deleted meanwhile"):
            run.finish()
        assert not any(name.startswith("runs/") for name in bucket.names())


class TestReading:
    def test_a_damaged_part_is_refused_and_found(self, bucket: Bucket) -> None:
        facts = local_copy(bucket.url())
        run = finished_run(facts, {"a": ["adm"]})
        part = f"groups/run={run.run_id}/part-00000.parquet"
        content = bytearray(bucket.read(part))
        content[10] ^= 1
        bucket.write(part, bytes(content))
        assert len(rows(facts)) == 1  # from the copy that was checked
        mirror.fetch_to_verify(facts, run.run_id)
        (found,) = verify(Store(facts))
        assert [problem for problem in found.problems if "sha256" in problem]
        with pytest.raises(StoreError, match="not what its run file says"):
            rows(facts)
        bucket.filesystem.delete_file(f"bucket/facts/{part}")
        with pytest.raises(StoreError, match=r"copying groups/run=.* failed"):
            rows(facts)

    def test_a_damaged_copy_is_fetched_again(self, bucket: Bucket) -> None:
        facts = local_copy(bucket.url())
        finished_run(facts, {"a": ["adm"]})
        (part,) = facts.glob("groups/*/*.parquet")
        part.write_bytes(bytes(part.stat().st_size))
        assert len(rows(facts)) == 1

    def test_a_name_in_the_store_leads_nowhere_else(self, bucket: Bucket, tmp_path: Path) -> None:
        facts = local_copy(bucket.url())
        run = finished_run(facts, {"a": ["adm"]})
        for name in (f"results/run={run.run_id}/.hidden", f"results/run={run.run_id}/pack-a.txt"):
            bucket.write(name, b"no results")
        rows(facts)
        assert not list(facts.glob("results/*/*"))

    def test_copies_of_runs_that_are_not_used_go_first(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        facts = local_copy(bucket.url())
        runs = [finished_run(facts, {"a": ["adm"]}) for _ in range(3)]
        monkeypatch.setattr(mirror, "MOST_BYTES", 1)
        rows(facts)
        assert {run_id for run_id, _ in layout.partitions(facts)} == {runs[-1].run_id}
        assert len(rows(facts, past=True)) == 1
        assert {run_id for run_id, _ in layout.partitions(facts)} == {run.run_id for run in runs}


class TestRetention:
    def test_the_same_rows_remain(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = three_nights(local_copy(bucket.url()))
        there = move(monkeypatch, tmp_path, bucket.url())
        before = rows(there)
        mirror.fetch_runs(there)
        with mirror.deleting(there, [run.run_id for run in runs[:-1]]):
            assert len(Store(there).prune(keep=1)) == 2
        third = move(monkeypatch, tmp_path, bucket.url(), "third")
        assert rows(third) == before
        mirror.fetch_to_verify(third, runs[-1].run_id)
        assert [one.problems for one in verify(Store(third))] == [()]
        listed = {
            f"{table}/run={runs[-1].run_id}/{f.name}" for table, f in Store(third).latest().files()
        }
        assert bucket.names() == listed | {f"runs/{runs[-1].run_id}.json"}

    def test_wherever_a_deletion_ends_every_run_can_be_read(
        self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        facts = local_copy(bucket.url())
        runs = three_nights(facts)
        before = rows(facts)
        for steps in range(1, 100):
            fuel = iter(range(steps))
            with monkeypatch.context() as patched:
                for name in ("send", "write", "remove"):
                    patched.setattr(Remote, name, burning(fuel, getattr(Remote, name)))
                mirror.fetch_runs(facts)
                try:
                    with mirror.deleting(facts, [run.run_id for run in runs[:-1]]):
                        Store(facts).prune(keep=1)
                    done = True
                except StoreError:
                    done = False
            with monkeypatch.context() as patched:
                other = move(patched, tmp_path, bucket.url(), str(steps))
                assert rows(other) == before
                rows(other, past=True)
                assert not [one for one in verify(Store(other)) if one.problems]
            if done:
                break
        assert steps > 3
        # Parts that are in no run file may be those of a publication, and stay for a week.
        assert [name for name in bucket.names() if name.startswith("runs/")] == [
            f"runs/{runs[-1].run_id}.json"
        ]
        monkeypatch.setattr(mirror, "_ABANDONED_SECONDS", -1)
        with mirror.deleting(facts, []):
            pass
        assert {name.split("/")[1] for name in bucket.names() if "run=" in name} == {
            f"run={runs[-1].run_id}"
        }

    def test_a_run_that_was_just_published_keeps_what_it_needs(self, bucket: Bucket) -> None:
        facts = local_copy(bucket.url())
        first = finished_run(facts, {"a": ["adm"]})
        finished_run(facts, {"b": ["adm"]})
        mirror.fetch_runs(facts)
        content = json.loads(bucket.read(f"runs/{first.run_id}.json"))
        late = "20260131T020359Z-abcdef"
        with mirror.deleting(facts, [first.run_id]):
            Store(facts).delete(first.run_id)
            content |= {"run_id": late, "tables": {}, "facts_runs": {first.run_id: 1}}
            bucket.write(f"runs/{late}.json", json.dumps(content).encode())
        assert f"runs/{first.run_id}.json" in bucket.names()
        assert f"groups/run={first.run_id}/part-00000.parquet" in bucket.names()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hdfs://host/facts", "no URL of the scheme hdfs"),
        ("file:///facts", "no URL of the scheme file"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/facts", "contains credentials"),
        ("s3://key@bucket/facts", "contains credentials"),
        ("abfs://account:secret@container/facts", "contains credentials"),
        ("abfs://container@account.dfs.core.windows.net/f?client_secret=secret", "client_secret"),
        ("s3://bucket/facts?secret_key=secret", "takes no secret_key"),
        ("s3://bucket/facts#part", "takes no fragment"),
        ("s3://[bucket/facts", "not a URL"),
    ],
)
def test_a_url_that_is_not_supported_is_refused(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        check_url(url)
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)


def test_a_facts_directory_has_one_url() -> None:
    assert check_url("S3://bucket//facts/") == "s3://bucket/facts"
    assert check_url("gs://bucket") == "gs://bucket"
    azure = "abfs://container@account.dfs.core.windows.net/facts"
    assert check_url(azure) == azure


def test_a_directory_that_is_no_copy_is_not_remote(tmp_path: Path) -> None:
    (tmp_path / "remote.json").write_text('{"url": "s3://bucket/facts"}')
    assert remote_of(tmp_path) is None
