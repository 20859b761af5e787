"""The store: a directory of runs, begun, resumed, listed and deleted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.store import files, layout, lease
from fleetscan.scanner.store.carrying import carry, sweep_unlisted
from fleetscan.scanner.store.remote import shown
from fleetscan.scanner.store.run import BATCH_SIZE, Run, plan_run
from fleetscan.scanner.store.run_file import RunInfo

_PATIENCE_SECONDS = 60.0  # for another process that deletes runs
_POLL_SECONDS = 0.2


class Store:
    """A directory of facts.

    Args:
        path: the directory; :meth:`begin` creates it when it is not there.
    """

    def __init__(self, path: Path) -> None:
        # Other processes, which may work elsewhere, get it with each run.
        self.path = path.absolute()

    def begin(
        self,
        machine_ids: Iterable[str],
        *,
        settings: Mapping[str, Any],
        batch_size: int = BATCH_SIZE,
    ) -> Run:
        """Plan a run.

        Args:
            machine_ids: the machines to scan, each once, in any order.
            settings: what a resumed run needs to know again; JSON values only.
            batch_size: machines a batch.

        Raises:
            UsageError: no machines, or two with the same id.
            StoreError: the plan could not be written.
        """
        return plan_run(self.path, machine_ids, settings, batch_size)

    def resume(self, run_id: str) -> Run:
        """A run that was begun and is not finished.

        Raises:
            UsageError: ``run_id`` has not the form of one.
            StoreError: there is no such unfinished run, or a process is working on it.
        """
        if layout.check_run_id(run_id) not in self.unfinished():
            raise StoreError(
                f"run {run_id} cannot be resumed: it is finished, or was never started here",
                hint="`fleetscan runs` lists the runs of a store",
            )
        lease.refuse_held(layout.staging(self.path, run_id))
        return Run(self.path, run_id)

    def running(self) -> dict[str, lease.Owner]:
        """The unfinished runs that a process is working on, oldest first, and which that is.

        Raises:
            StoreError: the directory cannot be read.
        """
        owners = {run: lease.owner(layout.staging(self.path, run)) for run in self.unfinished()}
        return {run_id: owner for run_id, owner in owners.items() if owner is not None}

    def unfinished(self) -> list[str]:
        """Ids of the runs that are running or can be resumed, oldest first.

        Raises:
            StoreError: the directory cannot be read.
        """
        with files.store_errors(f"reading {self.path}"):
            # A crash right after a run became visible leaves its staging behind.
            visible = set(layout.visible_runs(self.path))
            return [run for run in layout.staged_runs(self.path) if run not in visible]

    def run_ids(self) -> list[str]:
        """Ids of the visible runs, oldest first.

        Raises:
            StoreError: there is no such directory, or it cannot be read.
        """
        if not self.path.is_dir():
            raise StoreError(
                f"there is no facts directory {self.path}",
                hint="give one with --facts, or create one with `fleetscan scan`",
            )
        with files.store_errors(f"reading {self.path}"):
            return layout.visible_runs(self.path)

    def runs(self) -> list[RunInfo]:
        """The visible runs, oldest first.

        Raises:
            StoreError: as :meth:`run_ids`, or a run file is damaged.
        """
        return [self.run(run_id) for run_id in self.run_ids()]

    def run(self, run_id: str) -> RunInfo:
        """One visible run.

        Raises:
            UsageError: ``run_id`` has not the form of one.
            StoreError: there is no such run, or its run file is damaged.
        """
        path = self._find(run_id)
        hint = f"restore it from a copy, or delete the run: fleetscan runs --delete {run_id}"
        try:
            info = RunInfo.from_json(files.read_json(path))
        except StoreError as error:
            error.hint = error.hint or hint
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{path} is not a run file: {printable(repr(error))}"
            raise StoreError(reason, hint=hint) from error
        if info.run_id != run_id:
            raise StoreError(f"{path} is the run file of another run", hint=hint)
        return info

    def _find(self, run_id: str) -> Path:
        path = layout.run_file(self.path, layout.check_run_id(run_id))
        if not path.exists():
            raise StoreError(
                f"there is no run {run_id} in {shown(self.path)}",
                hint="`fleetscan runs` lists the runs of a store",
            )
        return path

    def latest(self) -> RunInfo:
        """The newest visible run.

        Raises:
            StoreError: there is none, or its run file is damaged.
        """
        run_ids = self.run_ids()
        if not run_ids:
            raise StoreError(
                f"there is no finished run in {shown(self.path)}",
                hint="complete one with `fleetscan scan`; unfinished runs can be resumed",
            )
        return self.run(run_ids[-1])

    def delete(self, run_id: str) -> None:
        """Delete a visible run; facts of it that others need go to the newest of them.

        Raises:
            UsageError: ``run_id`` has not the form of one.
            StoreError: there is no such run, an unfinished one needs it, its facts cannot be read
                although they are needed, somebody else is deleting, or it could not be removed.
        """
        self._find(run_id)  # and no more: what is damaged can be deleted
        self._refuse_needed(run_id)
        with self._alone():
            others = [self.run(other) for other in self.run_ids() if other != run_id]
            if any(run_id in other.facts_runs for other in others):
                carry(self.path, [*others, self.run(run_id)], {run_id})
            if not self._remove({run_id}):
                self._refuse_needed(run_id)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the one process that deletes runs, and changes others for that.

        Raises:
            StoreError: another one is, and does not end soon.
        """
        here = layout.run_files(self.path)
        with contextlib.ExitStack() as stack:
            if here.is_dir():
                stack.enter_context(self._claim(here))
            yield

    def _claim(self, here: Path) -> AbstractContextManager[object]:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            owner = lease.owner(here)
            if owner is None:
                return lease.held(here)
            if time.monotonic() > until:
                raise StoreError(
                    f"another process deletes runs of {self.path}: {owner}",
                    hint="try again when it has ended",
                )
            time.sleep(_POLL_SECONDS)

    def _refuse_needed(self, run_id: str) -> None:
        for unfinished, needed in self._needed().items():
            if run_id in needed:
                raise StoreError(
                    f"run {run_id} holds facts that run {unfinished} uses, which is not finished",
                    hint=f"resume, publish or abandon {unfinished} first",
                )

    def _needed(self) -> dict[str, frozenset[str]]:
        """What each unfinished run needs of others."""
        return {run_id: Run(self.path, run_id).needed for run_id in self.unfinished()}

    def prune(self, *, keep: int) -> list[str]:
        """Delete all but the newest visible runs, and those that an unfinished one needs.

        Facts of a deleted run that others need go to the newest of them. What a crash left of
        deleted, abandoned or finished runs is deleted too.

        Args:
            keep: number of runs to keep, at least 1.

        Returns:
            Ids of the deleted runs, oldest first.

        Raises:
            UsageError: ``keep`` is less than 1.
            StoreError: a run file or a part that is needed is damaged, somebody else is deleting,
                or something could not be removed.
        """
        if keep < 1:
            raise UsageError("the newest run cannot be pruned", hint="keep at least 1")
        with self._alone():
            # In this order: a run that is finished meanwhile is found, unfinished or visible.
            unfinished = self._needed().values()
            runs = self.runs()
            kept = {info.run_id for info in runs[-keep:]}.union(*unfinished)
            leaving = {info.run_id for info in runs} - kept
            carry(self.path, runs, leaving)
            deleted = self._remove(leaving)
            self._sweep()
            sweep_unlisted(self.path, self.runs())
        return deleted

    def _remove(self, run_ids: set[str]) -> list[str]:
        """Delete visible runs, save those that a run began to use just now."""
        for run_id in sorted(run_ids, reverse=True):  # newest first: it may need an older one
            with (
                files.store_errors(f"deleting run {run_id}"),
                contextlib.suppress(FileNotFoundError),  # somebody else deletes it too
            ):
                visible = layout.run_file(self.path, run_id)
                visible.rename(layout.hidden_run_file(self.path, run_id))
        return self._remove_hidden(run_ids)

    def _remove_hidden(self, run_ids: set[str]) -> list[str]:
        """Remove runs that are no longer visible; those that are needed become so again."""
        gone = set(run_ids)
        while back := gone & self._used():  # which may need others
            for run_id in back:
                hidden = layout.hidden_run_file(self.path, run_id)
                files.renamed(hidden, layout.run_file(self.path, run_id))
            gone -= back
        layout.remove_parts(self.path, gone)
        for run_id in gone:
            with files.store_errors(f"deleting run {run_id}"):
                layout.hidden_run_file(self.path, run_id).unlink(missing_ok=True)
        return sorted(gone)

    def _used(self) -> frozenset[str]:
        """The runs that hold facts of others, visible and unfinished."""
        # In this order: a run that is finished meanwhile is found, unfinished or visible.
        unfinished = frozenset[str]().union(*self._needed().values())
        return unfinished.union(*(info.facts_runs for info in self.runs()))

    def _sweep(self) -> None:
        """Remove what belongs to no visible and no unfinished run."""
        with files.store_errors(f"reading {self.path}"):
            hidden = set(layout.hidden_runs(self.path))
        self._remove_hidden(hidden)
        # In this order: a run that comes to be meanwhile is not found, or found to be one.
        found = {run_id for run_id, _ in layout.partitions(self.path)}
        staged = set(layout.staged_runs(self.path))
        unfinished = set(self.unfinished())
        visible = set(self.run_ids())
        for run_id in staged & visible:
            files.remove_tree(layout.staging(self.path, run_id))
        with files.store_errors(f"reading {self.path}"):
            for path in list(layout.leftover_staging(self.path)):
                files.remove_tree(path)
        # Another process may be deleting runs now; what it hides it removes, or takes back.
        hidden = set(layout.hidden_runs(self.path))
        layout.remove_parts(self.path, found - unfinished - visible - hidden)
