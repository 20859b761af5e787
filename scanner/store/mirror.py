"""The local copy of a facts directory in an object store: fetched before use, changes sent back.

Everything else of fleetscan works on the local copy as on any facts directory. For a directory that
is no such copy, all of this does nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.remote import (
    Remote,
    RemoteFile,
    at_once,
    part_names,
    remote_of,
    run_file_name,
)
from fleetscan.scanner.store.run_file import PartFile, RunInfo
from fleetscan.scanner.store.runs import Store

log = logging.getLogger(__name__)

MOST_BYTES = 20 << 30
"""Parts kept for later; what a command needs itself may be more."""

_KNOWN = ("machines", "disks")  # what a scan looks up of earlier runs
_RESULTS = re.compile(r"results/run=([^/]+)/pack-[A-Za-z0-9_-]+\.parquet")
_RUN_OF = re.compile(r"[a-z0-9_]+/run=([^/]+)/[^/]+")
_ABANDONED_SECONDS = 7 * 24 * 3600
"""Age after which parts that no run file lists belong to a publication that was given up."""


def has_all(facts: Path) -> bool:
    """Whether a facts directory holds all of its store: it is not a local copy of only a part."""
    return remote_of(facts) is None


def check_usable(facts: Path) -> None:
    """Make sure, before anything is scanned or judged, that its fruits can be published.

    Raises:
        UsageError: they cannot.
    """
    remote = remote_of(facts)
    if remote:
        remote.check_usable()


def fetch_runs(facts: Path) -> None:
    """Fetch all run files, and forget runs that are not there any more.

    Raises:
        StoreError: they cannot be read.
    """
    remote = remote_of(facts)
    if remote:
        _fetch_runs(remote)


def fetch(facts: Path, run_id: str | None = None, *, past: bool = False) -> None:
    """Fetch what queries of a run read: its parts, those it shares with others, and its results.

    Args:
        facts: the facts directory.
        run_id: the run; None for the newest.
        past: all other runs as well.

    Raises:
        UsageError: ``run_id`` has not the form of one.
        StoreError: there is no such run, or something is missing or damaged.
    """
    remote = remote_of(facts)
    if remote is None:
        return
    _fetch_runs(remote)
    store = Store(facts)
    run = store.run(run_id) if run_id is not None else store.latest()
    readable = _readable(store)
    wanted = set(readable) if past else {run.run_id, *run.facts_runs}
    _fetch_parts(remote, [readable[one] for one in wanted & readable.keys()])
    _fetch_results(remote, wanted if past else {run.run_id})
    _forget_most(facts, wanted)


def fetch_known(facts: Path) -> None:
    """Fetch what all runs say of machines, for a scan that uses facts again.

    Raises:
        StoreError: something is missing or damaged.
    """
    remote = remote_of(facts)
    if remote:
        _fetch_runs(remote)
        _fetch_parts(remote, _readable(Store(facts)).values(), _KNOWN)


def fetch_to_verify(facts: Path, run_id: str) -> None:
    """Fetch a run's parts as they are now, whatever they are, in place of those fetched before.

    Raises:
        StoreError: the store cannot be read.
    """
    remote = remote_of(facts)
    if remote is None:
        return
    forget(facts, {run_id})
    run = _readable(Store(facts)).get(run_id)
    for name in part_names(run) if run else ():
        try:
            remote.fetch(name)
        except StoreError as error:  # verification says of each part what is wrong with it
            log.debug("%s", error)


def forget(facts: Path, run_ids: Collection[str]) -> None:
    """Remove the local copies of some runs' parts; of a local store nothing is removed.

    Raises:
        StoreError: they cannot be removed.
    """
    if remote_of(facts):
        for run_id, folder in list(layout.partitions(facts)):
            if run_id in run_ids:
                files.remove_tree(folder)


def send_results(facts: Path, run_id: str) -> None:
    """Publish what a check wrote of a run.

    Raises:
        StoreError: it cannot be written.
    """
    remote = remote_of(facts)
    if remote is None:
        return
    folder = str(layout.results_folder(Path(), run_id))
    there = {one.name: one for one in remote.files(folder)}
    names = [str(path.relative_to(facts)) for path in layout.results_files(facts, run_id)]
    at_once(remote.send, [name for name in names if not _is_same(facts, there.get(name))])


@contextlib.contextmanager
def deleting(facts: Path, leaving: Collection[str]) -> Iterator[None]:
    """Do to the store what the block does to its local copy: it deletes runs.

    Args:
        facts: the facts directory; its run files have been fetched.
        leaving: the runs that may go.

    Raises:
        StoreError: something is missing or damaged, or cannot be written.
    """
    remote = remote_of(facts)
    if remote is None:
        yield
        return
    runs = _readable(Store(facts)).values()
    needed = {holder for run in runs for holder in run.facts_runs} & set(leaving)
    _fetch_parts(remote, [run for run in runs if run.run_id in needed])
    _fetch_parts(remote, [run for run in runs if needed & run.facts_runs.keys()], ("machines",))
    before = _run_files(facts)
    yield
    _send_changes(remote, before, _run_files(facts))


def _run_files(facts: Path) -> dict[str, bytes]:
    with files.store_errors(f"reading {facts}"):
        there = layout.visible_runs(facts)
        return {run_id: layout.run_file(facts, run_id).read_bytes() for run_id in there}


def _send_changes(remote: Remote, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Newest first, so that every run can be read at every step, as in a local store."""
    for run_id in sorted(after.keys() & before.keys(), reverse=True):
        if after[run_id] != before[run_id]:
            # What is there but in no run file is left over, and may be something else.
            there = set(part_names(_info(before[run_id])))
            at_once(remote.send, [n for n in part_names(_info(after[run_id])) if n not in there])
            remote.write(run_file_name(run_id), after[run_id])
    gone = before.keys() - after.keys()
    for run_id in sorted(gone, reverse=True):
        remote.remove(run_file_name(run_id))
    _fetch_runs(remote)
    for run in _readable(Store(remote.local)).values():  # one that was published just now
        for run_id in gone & run.facts_runs.keys():
            remote.write(run_file_name(run_id), before[run_id])
    _sweep(remote, gone)


def _info(run_file: bytes) -> RunInfo:
    return RunInfo.from_json(json.loads(run_file))


def _sweep(remote: Remote, gone: Collection[str]) -> None:
    """Remove parts of runs that are gone, and those that nobody lists and nobody is publishing."""
    _fetch_runs(remote)
    runs = _readable(Store(remote.local))
    visible = set(layout.visible_runs(remote.local))
    listed = {name for run in runs.values() for name in part_names(run)}
    old = time.time_ns() - _ABANDONED_SECONDS * 10**9
    unneeded = []
    for one in remote.files():
        found = _RUN_OF.fullmatch(one.name)
        run_id = found[1] if found else ""
        if run_id in visible:
            stale = run_id in runs and one.name not in listed and not _is_result(one.name)
        else:
            stale = run_id in gone or (layout.is_run_id(run_id) and one.mtime_ns < old)
        if stale:
            unneeded.append(one.name)
    at_once(remote.remove, unneeded)


def _is_result(name: str) -> bool:
    return name.startswith("results/")


def _fetch_runs(remote: Remote) -> None:
    facts = remote.local
    there = remote.run_ids()
    at_once(remote.fetch, [run_file_name(run_id) for run_id in sorted(there)])
    with files.store_errors(f"reading {facts}"):
        for run_id in set(layout.visible_runs(facts)) - there:
            layout.run_file(facts, run_id).unlink(missing_ok=True)
        unfinished = set(layout.staged_runs(facts))
    held = {run_id for run_id, _ in layout.partitions(facts)}
    forget(facts, held - there - unfinished)


def _readable(store: Store) -> dict[str, RunInfo]:
    """The visible runs whose run files can be read, by id; who needs another one says so."""
    found = {}
    for run_id in layout.visible_runs(store.path):
        with contextlib.suppress(StoreError):
            found[run_id] = store.run(run_id)
    return found


def _fetch_parts(
    remote: Remote, runs: Iterable[RunInfo], tables: Collection[str] | None = None
) -> None:
    wanted: list[tuple[str, PartFile]] = []
    for run in runs:
        pairs = zip(part_names(run), run.files(), strict=True)
        wanted += [
            (name, file)
            for name, (table, file) in pairs
            if (tables is None or table in tables) and not _is_here(remote.local / name, file)
        ]
    if wanted:
        size = sum(file.bytes or 0 for _, file in wanted)
        log.info("fetching %d files, %d bytes, from %s", len(wanted), size, remote.url)
    at_once(lambda one: remote.fetch(*one), wanted)


def _is_here(path: Path, file: PartFile) -> bool:
    """Whether a part was fetched before, and is still what the run file says."""
    try:
        with path.open("rb") as stream:
            return file.sha256 in (None, hashlib.file_digest(stream, "sha256").hexdigest())
    except FileNotFoundError:
        return False


def _fetch_results(remote: Remote, run_ids: Collection[str]) -> None:
    there = {one.name: one for one in remote.files("results")}
    wanted = {
        name: one
        for name, one in there.items()
        if (found := _RESULTS.fullmatch(name)) and found[1] in run_ids
    }
    stale = [one for one in wanted.values() if not _is_same(remote.local, one)]
    at_once(lambda one: remote.fetch(one.name, mtime_ns=one.mtime_ns), stale)
    for run_id in run_ids:
        for path in layout.results_files(remote.local, run_id):
            if str(path.relative_to(remote.local)) not in there:
                path.unlink(missing_ok=True)


def _is_same(facts: Path, there: RemoteFile | None) -> bool:
    """Whether a file that a later one may replace is the one that was fetched last."""
    try:
        status = there and (facts / there.name).stat()
    except FileNotFoundError:
        return False
    return bool(
        there and status and (status.st_size, status.st_mtime_ns) == (there.bytes, there.mtime_ns)
    )


def _forget_most(facts: Path, used: Collection[str]) -> None:
    """Keep the local copy within its bounds; parts of the oldest runs go first."""
    sizes: dict[str, int] = {}
    for run_id, folder in layout.partitions(facts):
        size = sum(path.stat().st_size for path in folder.iterdir())
        sizes[run_id] = sizes.get(run_id, 0) + size
    pinned = {*used, *layout.staged_runs(facts)}
    for run_id in sorted(sizes.keys() - pinned):
        if sum(sizes.values()) <= MOST_BYTES:
            return
        forget(facts, {run_id})
        del sizes[run_id]
