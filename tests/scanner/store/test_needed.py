"""Runs that others need: what an unfinished run uses is kept, whoever deletes meanwhile."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.cli import exits
from fleetscan.scanner.cli import run as cli
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from tests.scanner.store.making import add_machine, finished_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "facts")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run begins a second after the one before, so that their ids are in order."""
    seconds = itertools.count()
    monkeypatch.setattr(
        "fleetscan.scanner.store.run._now",
        lambda: datetime(2026, 1, 31, tzinfo=UTC) + timedelta(seconds=next(seconds)),
    )


def three(store: Store) -> list[str]:
    """Ids of three runs, oldest first."""
    for name in "abc":
        finished_run(store.path, {name: ["sudo"]})
    return store.run_ids()


def unfinished(store: Store, needs: str) -> Run:
    run = store.begin(["d", "e"], settings={})
    assert run.keep(needs)
    add_machine(run, "d", facts_run=needs)
    return run


def whole(store: Store, run_id: str) -> bool:
    file = layout.part(store.path, "groups", run_id, 0)
    return file.exists() and run_id in store.run_ids()


def test_prune_keeps_what_an_unfinished_run_uses(store: Store) -> None:
    first, second, third = three(store)
    run = unfinished(store, first)
    assert store.prune(keep=1) == [second]
    assert store.run_ids() == [first, third]
    add_machine(run, "e")
    assert run.finish().facts_runs == {first: 1}
    assert store.prune(keep=1) == [first, third]
    assert store.run_ids() == [run.run_id]


def test_delete_says_which_unfinished_run_uses_it(store: Store) -> None:
    first, *_ = three(store)
    run = unfinished(store, first)
    with pytest.raises(StoreError, match=f"holds facts that run {run.run_id} uses") as caught:
        store.delete(first)
    assert f"abandon {run.run_id}" in caught.value.hint
    run.abandon()
    store.delete(first)
    assert first not in store.run_ids()


def test_a_run_that_is_used_just_before_it_is_hidden_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is needed and the first step of the deletion."""
    first, *_ = three(store)
    remove = Store._remove
    begun: list[Run] = []

    def late(self: Store, run_ids: set[str]) -> list[str]:
        begun.append(unfinished(store, first))
        return remove(self, run_ids)

    monkeypatch.setattr(Store, "_remove", late)
    assert first not in store.prune(keep=1)
    assert whole(store, first)
    with pytest.raises(StoreError, match="holds facts that run"):
        store.delete(first)
    assert whole(store, first)


def test_a_run_that_is_being_deleted_is_not_used(store: Store) -> None:
    first, *_ = three(store)
    run = store.begin(["d"], settings={})
    file = layout.run_file(store.path, first)
    file.rename(layout.hidden_run_file(store.path, first))
    assert not run.keep(first)
    assert run.needed == frozenset()
    assert not run.keep("20260131T020304Z-3f9a1c")


def test_a_deletion_that_was_cut_off_is_completed_or_undone(store: Store) -> None:
    first, second, third = three(store)
    run = unfinished(store, first)
    for run_id in (first, second):
        layout.run_file(store.path, run_id).rename(layout.hidden_run_file(store.path, run_id))
    store.prune(keep=5)
    assert store.run_ids() == [first, third]
    assert whole(store, first)
    assert not layout.part(store.path, "groups", second, 0).exists()
    assert [path.name for path in (store.path / "runs").iterdir() if "deleting" in path.name] == []
    assert run.needed == {first}


def test_what_a_kept_run_needs_is_kept_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that comes back points at an older one, which comes back too."""
    first = finished_run(store.path, {"a": ["sudo"]}).run_id
    second = store.begin(["a", "b"], settings={})
    add_machine(second, "a", facts_run=first)
    add_machine(second, "b")
    second.finish()
    finished_run(store.path, {"c": ["sudo"]})
    remove = Store._remove

    def late(self: Store, run_ids: set[str]) -> list[str]:
        unfinished(store, second.run_id)
        return remove(self, run_ids)

    monkeypatch.setattr(Store, "_remove", late)
    assert store.prune(keep=1) == []
    assert whole(store, first)
    assert whole(store, second.run_id)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": 5}', '{"runs": ["../x"]}'])
def test_damaged_notes_delete_nothing(store: Store, content: str) -> None:
    first, *_ = three(store)
    run = unfinished(store, first)
    (layout.staging(store.path, run.run_id) / "needs.json").write_text(content)
    with pytest.raises(StoreError):
        store.prune(keep=1)
    assert whole(store, first)


def test_a_damaged_run_is_listed_and_can_be_deleted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = three(store)
    layout.run_file(store.path, third).write_text("{")
    facts = ["--facts", str(store.path)]
    assert cli(["runs", *facts]) == exits.FINE
    text = capsys.readouterr().out
    assert f"{third} is damaged: " in text
    assert second in text
    assert cli(["runs", *facts, "--keep", "1"]) == exits.FAILED
    assert f"hint: restore it from a copy, or delete the run: fleetscan runs --delete {third}" in (
        capsys.readouterr().err
    )
    assert cli(["runs", *facts, "--delete", third]) == exits.FINE
    assert store.run_ids() == [first, second]
