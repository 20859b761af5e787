"""A run while it is being made: planned, gathered, compacted, finished or abandoned.

It is planned (its machines), gathered (one staging directory a machine), compacted (some machines
become a batch: Parquet parts that wait in staging) and finished: the batches' parts become the
run's, and its run file, written last, makes it visible. Each step can be repeated, by any process
that sees the directory.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.store import batches, files, layout, lease
from fleetscan.scanner.store.batches import Batch
from fleetscan.scanner.store.publication import publish_parts
from fleetscan.scanner.store.remote import remote_of
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.staging import MachineWriter, StagedMachine, staged_machine

log = logging.getLogger(__name__)

BATCH_SIZE = 256
"""Machines a batch: at some thousand files each, parts of some ten megabytes."""

_NEEDS = "needs.json"
_UNCHANGED = "unchanged"  # instead of a version


@dataclass(frozen=True)
class _Plan:
    started: str  # as datetime.isoformat() writes it
    machine_ids: tuple[str, ...]
    batch_size: int
    settings: dict[str, Any]  # JSON values of the caller's


class Run:
    """A run that is not finished. Small to send to other processes.

    Args:
        facts: the store's directory.
        run_id: the run; it has a plan.
    """

    def __init__(self, facts: Path, run_id: str) -> None:
        self.facts = facts
        self.run_id = run_id
        self._staging = layout.staging(facts, run_id)
        self._machines = self._staging / "machines"
        self._batches = self._staging / "batches"
        self._unchanged = self._staging / "unchanged"
        self._lease: lease.Lease | None = None
        self._kept: frozenset[str] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (Run, (self.facts, self.run_id))  # without the plan, which may be long

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the one process that works on the run while the block lasts; blocks may be nested.

        Other processes may write machines and compact batches for the owner.

        Raises:
            StoreError: another process is, or the run is gone.
        """
        if self._lease is not None:
            yield
            return
        self._check_there()
        with lease.held(self._staging) as self._lease:
            try:
                self._check_there()  # somebody may have finished it just before
                yield
            finally:
                self._lease = None

    def check_owned(self) -> None:
        """Make sure that no other process took over meanwhile; costs next to nothing.

        Raises:
            StoreError: one did.
        """
        if self._lease is not None and self._lease.is_lost:
            self._lease.check()

    def _check_mine(self) -> None:
        assert self._lease is not None  # noqa: S101 - all of this runs in owned()
        self._lease.check()

    def _check_there(self) -> None:
        if not self.plan_file.exists() or layout.run_file(self.facts, self.run_id).exists():
            raise StoreError(
                f"run {self.run_id} is finished or was abandoned meanwhile",
                hint="`fleetscan runs` lists the runs of a store",
            )

    @property
    def plan_file(self) -> Path:
        """The file that holds the run's plan until it is finished."""
        return self._staging / "plan.json"

    @functools.cached_property
    def _plan(self) -> _Plan:
        content = files.read_json(self.plan_file)
        return _Plan(**content | {"machine_ids": tuple(content["machine_ids"])})

    @property
    def machine_ids(self) -> tuple[str, ...]:
        """All machines planned, sorted."""
        return self._plan.machine_ids

    @property
    def settings(self) -> dict[str, Any]:
        """What the caller gave :meth:`Store.begin`."""
        return self._plan.settings

    def in_batches(self, machine_ids: Sequence[str]) -> list[tuple[str, ...]]:
        """Machines in groups that are compacted together, in their order."""
        size = self._plan.batch_size
        starts = range(0, len(machine_ids), size)
        return [tuple(machine_ids[start : start + size]) for start in starts]

    def machine_writer(self, machine_id: str) -> MachineWriter:
        """Where a machine's rows go; see there."""
        return MachineWriter(self._machines, machine_id)

    def staged(self, machine_id: str) -> StagedMachine | None:
        """A finished machine's rows and summary; None when it is not finished.

        Raises:
            StoreError: the run cannot be read.
        """
        return staged_machine(self._machines, machine_id)

    def is_finished(self, machine_id: str) -> bool:
        """Whether a machine need not be scanned any more.

        Raises:
            StoreError: the run cannot be read.
        """
        return self.staged(machine_id) is not None or machine_id in self._unchanged_commits()

    def finished(self) -> list[str]:
        """The machines that are finished, sorted.

        Raises:
            StoreError: the run cannot be read.
        """
        commits = self._commits()
        return [machine_id for machine_id in self.machine_ids if machine_id in commits]

    def add_unchanged(self, tables: Mapping[str, pa.Table]) -> None:
        """Make machines finished whose facts another run holds; all of them or none.

        Args:
            tables: their rows of the tables that each run writes anew, sorted by machine. Each
                has one row in ``machines``.

        Raises:
            StoreError: something could not be written.
        """
        ids = map(str, tables["machines"].column("machine_id").to_pylist())
        empty: list[pa.RecordBatch] = []
        batches.write_batch(
            self._unchanged,
            dict.fromkeys(ids, _UNCHANGED),
            lambda name: tables[name].to_batches() if name in tables else empty,
        )

    @property
    def needed(self) -> frozenset[str]:
        """The earlier runs that hold facts of this one's machines.

        Raises:
            StoreError: the run cannot be read.
        """
        path = self._staging / _NEEDS
        if not path.exists():
            return frozenset()
        try:
            return frozenset(map(layout.check_run_id, files.read_json(path)["runs"]))
        except (KeyError, TypeError, UsageError) as error:
            raise StoreError(f"{path} is damaged: {printable(repr(error))}") from error

    def keep(self, run_id: str) -> bool:
        """Keep an earlier run from being deleted, as its facts are used again.

        Returns:
            False when it is gone already.

        Raises:
            StoreError: it could not be noted.
        """
        before = self._kept if self._kept is not None else self.needed
        if run_id not in before:
            # Who deletes hides the run file first and looks here then; one of us sees the other.
            self._note_needed(before | {run_id})
            if not layout.run_file(self.facts, run_id).exists():
                self._note_needed(before)
                return False
        return True

    def _note_needed(self, run_ids: frozenset[str]) -> None:
        content = {"runs": sorted(run_ids)}
        files.write_json(self._staging / _NEEDS, content, only_there=True)
        self._kept = run_ids

    def compact(self, machine_ids: Sequence[str]) -> None:
        """Make those of some machines that are finished a batch, which is ready to be published.

        Nothing happens when they are one already.

        Raises:
            StoreError: a staged file is damaged, or a part could not be written.
        """
        machines = [machine for machine in map(self.staged, machine_ids) if machine]
        if machines:
            batches.compact(self._batches, machines)

    def finish(self, *, interrupted: bool = False) -> RunInfo:
        """Compact what is left, make the run visible, and remove its staging.

        Args:
            interrupted: publish the machines that are finished though others are not; the run
                file says so.

        Raises:
            StoreError: machines are not finished, and ``interrupted`` was not asked for; none
                is finished; another process works on the run; or something could not be read or
                written.
        """
        with self.owned():
            self._check_mine()
            info = self._ready(interrupted)
            self._publish(info)
            self._remove_staging()
        log.info("run %s is visible: %s", self.run_id, info.outcomes)
        return info

    def _ready(self, interrupted: bool) -> RunInfo:
        """What the run file will say, when all parts have their places."""
        commits = self._commits()
        self._check_finished(len(commits), interrupted)
        ready = self._compacted(commits)
        outcomes = _total(batch.outcomes for batch in ready)
        facts_runs = _total(batch.facts_runs for batch in ready)
        self._check_mine()
        return RunInfo(
            run_id=self.run_id,
            started=datetime.fromisoformat(self._plan.started),
            finished=_now(),
            interrupted=outcomes.total() < len(self.machine_ids),
            version=fleetscan_version(),
            settings=self.settings,
            machines=len(self.machine_ids),
            outcomes=dict(outcomes),
            tables=publish_parts(self.facts, self.run_id, ready, self._staging / "merged"),
            facts_runs={run: count for run, count in facts_runs.items() if run != self.run_id},
        )

    def _publish(self, info: RunInfo) -> None:
        """Make the run visible, unless it was taken over or abandoned."""
        self._check_mine()
        prepared = self._staging / "run.json"
        files.write_json(prepared, info.to_json(), only_there=True)
        remote = remote_of(self.facts)
        if remote:
            remote.publish(info, prepared.read_bytes())
        # Its name comes from the staging directory: what abandon() took away is never visible.
        visible = layout.run_file(self.facts, self.run_id)
        files.renamed(prepared, visible)
        files.flush_directory(visible.parent)

    def abandon(self) -> None:
        """Remove everything of the run.

        Raises:
            StoreError: another process works on it, or something could not be removed.
        """
        with self.owned():
            self._check_mine()
            gone = layout.gone_staging(self.facts, self.run_id)
            files.renamed(self._staging, gone)  # from here on nobody can make it visible
            layout.remove_parts(self.facts, {self.run_id})
            files.remove_tree(gone)
        log.info("run %s was abandoned", self.run_id)

    def _remove_staging(self) -> None:
        # The plan goes last: what has a plan can be found, and removed after a crash.
        files.remove_tree(self._machines)
        files.remove_tree(self._staging)

    def _check_finished(self, finished: int, interrupted: bool) -> None:
        planned = len(self.machine_ids)
        if finished == 0:
            raise StoreError(
                f"run {self.run_id} has no finished machine",
                hint="resume the run, or abandon it",
            )
        if finished < planned and not interrupted:
            raise StoreError(
                f"run {self.run_id}: {planned - finished} of {planned} machines are not finished",
                hint="resume the run, or publish its finished machines as an interrupted run",
            )

    def _commits(self) -> dict[str, str]:
        """The version of each finished machine."""
        found = ((machine_id, self.staged(machine_id)) for machine_id in self.machine_ids)
        staged = {machine_id: one.commit for machine_id, one in found if one}
        return staged | self._unchanged_commits()

    def _unchanged_commits(self) -> dict[str, str]:
        known = batches.ready(self._unchanged, None)
        return {machine_id: _UNCHANGED for batch in known for machine_id in batch.machines}

    def _compacted(self, commits: Mapping[str, str]) -> list[Batch]:
        """All finished machines in batches, sorted by their first machine."""
        ready = batches.ready(self._batches, commits) + batches.ready(self._unchanged, commits)
        covered = {machine_id for batch in ready for machine_id in batch.machines}
        left = [machine_id for machine_id in commits if machine_id not in covered]
        for some in self.in_batches(left):
            machines = [machine for machine in map(self.staged, some) if machine]
            ready.append(batches.compact(self._batches, machines))
        return sorted(ready, key=lambda batch: next(iter(batch.machines)))


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total


def plan_run(
    facts: Path, machine_ids: Iterable[str], settings: Mapping[str, Any], batch_size: int
) -> Run:
    """Write the plan of a new run; arguments and errors as for `Store.begin`."""
    ordered = sorted(machine_ids)
    if not ordered:
        raise UsageError("there are no machines to scan", hint="check the sources given")
    for one, next_one in itertools.pairwise(ordered):
        if one == next_one:
            raise UsageError(
                f"two machines have the id '{printable(one)}'",
                hint="give one of them another id in the inventory",
            )
    now = datetime.now(UTC)
    run_id = layout.new_run_id(now)
    plan = _Plan(now.replace(microsecond=0).isoformat(), tuple(ordered), batch_size, dict(settings))
    # Under its name it has a plan from the first moment: what has none is left over.
    new = layout.new_staging(facts)
    files.write_json(new / "plan.json", asdict(plan))
    staging = layout.staging(facts, run_id)
    files.renamed(new, staging)
    files.flush_directory(staging.parent)
    log.info("run %s begins: %d machines", run_id, len(ordered))
    return Run(facts, run_id)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def fleetscan_version() -> str:
    """The version that runs."""
    try:
        return importlib.metadata.version("fleetscan")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree that is not installed
