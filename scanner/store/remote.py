"""A facts directory in an object store: what is copied from there, and published there.

Whatever reads or writes facts works on a local copy in the cache, which has the layout of any facts
directory. Here files go over, in both directions; `mirror` decides which. A run is published as in
a local directory: its parts first, and then its run file, which makes it visible.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from fleetscan.appliance import cache
from fleetscan.appliance.ground.errors import StoreError
from fleetscan.appliance.host import writing
from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.remote_url import Filesystem, check_url, open_url, unusable
from fleetscan.scanner.store.run_file import PartFile, RunInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

_MARK = "remote.json"
_CHUNK = 1 << 20
_AT_A_TIME = 8  # transfers: what one connection leaves idle, others use


@dataclass(frozen=True)
class RemoteFile:
    """A file in the object store.

    Attributes:
        name: its path below the facts directory.
        bytes: its length.
        mtime_ns: when it was written, nanoseconds since 1970 UTC.
    """

    name: str
    bytes: int
    mtime_ns: int


def local_copy(url: str) -> Path:
    """The directory that holds the local copy of a store; made if missing.

    Raises:
        UsageError: the URL cannot be that of a facts directory.
        ApplianceError: other users could change the cache.
    """
    checked = check_url(url)
    path = _copies() / hashlib.sha256(checked.encode()).hexdigest()[:32]
    if not (path / _MARK).exists():
        writing.make_directory(path)
        files.write_json(path / _MARK, {"url": checked})
    with cache.trusted(path):
        return path


def _copies() -> Path:
    return cache.cache_directory() / "remote"


def remote_of(facts: Path) -> Remote | None:
    """The store of which a directory is the local copy; None for a store of its own.

    Raises:
        StoreError: that cannot be told.
    """
    if facts.parent != _copies():
        return None
    return Remote(str(files.read_json(facts / _MARK).get("url")), facts)


def shown(facts: Path) -> str:
    """What a user calls a facts directory: its path, or its URL."""
    remote = remote_of(facts)
    return remote.url if remote else str(facts)


class Remote:
    """A store on another host.

    Args:
        url: as :func:`~fleetscan.scanner.store.remote_url.check_url` gives it.
        local: its local copy.
    """

    def __init__(self, url: str, local: Path) -> None:
        self.url = url
        self.local = local
        self._place: tuple[Filesystem, str] | None = None

    @property
    def _filesystem(self) -> Filesystem:
        return self._opened()[0]

    def _opened(self) -> tuple[Filesystem, str]:
        if self._place is None:
            self._place = open_url(self.url)
        return self._place

    def _path(self, name: str) -> str:
        return f"{self._opened()[1]}/{name}"

    def check_usable(self) -> None:
        """Make sure, before work whose fruits go there is done, that runs can be published.

        Raises:
            UsageError: nothing can be listed, written or deleted there.
        """
        trial = f"trial-{secrets.token_hex(8)}"
        try:
            self.names("runs")
            with self._filesystem.open_output_stream(self._path(trial)) as stream:
                stream.write(b"fleetscan\n")
            self._filesystem.delete_file(self._path(trial))
        except (StoreError, OSError, pa.ArrowException) as error:
            raise unusable(self.url, error) from error

    def files(self, folder: str = "") -> list[RemoteFile]:
        """The files below a folder; none when there is no such folder.

        Raises:
            StoreError: they cannot be listed.
        """
        from pyarrow.fs import FileSelector

        base = self._path("")
        where = self._path(folder).rstrip("/")
        with files.store_errors(f"reading {self.url}"):
            selector = FileSelector(where, recursive=True, allow_not_found=True)
            found = self._filesystem.get_file_info(selector)
        return [
            RemoteFile(one.path.removeprefix(base), one.size, one.mtime_ns or 0)
            for one in found
            if one.is_file and one.path.startswith(base)
        ]

    def names(self, folder: str) -> set[str]:
        """Names of the files below a folder."""
        return {one.name.removeprefix(f"{folder}/") for one in self.files(folder)}

    def run_ids(self) -> set[str]:
        """Ids of the runs that are visible there.

        Raises:
            StoreError: they cannot be listed.
        """
        found = (name.removesuffix(".json") for name in self.names("runs") if name[-5:] == ".json")
        return set(filter(layout.is_run_id, found))

    def fetch(self, name: str, expected: PartFile | None = None, mtime_ns: int = 0) -> None:
        """Copy a file from there; it appears here whole or not at all.

        Args:
            name: its path below the facts directory.
            expected: what the run file says of it; whatever is there is taken when None.
            mtime_ns: the time that the copy gets.

        Raises:
            StoreError: it cannot be read, or is something else.
        """
        target = self.local / name
        digest = hashlib.sha256()
        with files.store_errors(f"copying {name} from {self.url}"):
            writing.make_directory(target.parent)
            with (
                self._filesystem.open_input_stream(self._path(name)) as source,
                writing.replacing(target, durable=False) as stream,
            ):
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    stream.write(chunk)
                if expected and expected.sha256 not in (None, digest.hexdigest()):
                    raise StoreError(
                        f"{name} in {self.url} is not what its run file says",
                        hint="restore it from a copy; fleetscan runs verify checks all files",
                    )
            if mtime_ns:
                os.utime(target, ns=(mtime_ns, mtime_ns))

    def send(self, name: str) -> None:
        """Copy a file there, in place of what has its name.

        Raises:
            StoreError: it cannot be written.
        """
        source = self.local / name
        with files.store_errors(f"copying {name} to {self.url}"):
            with (
                source.open("rb") as content,
                self._filesystem.open_output_stream(self._path(name)) as stream,
            ):
                while chunk := content.read(_CHUNK):
                    stream.write(chunk)
            written = self._filesystem.get_file_info(self._path(name)).size
            if written != source.stat().st_size:
                raise StoreError(f"{name} was copied to {self.url} in part: {written} bytes")

    def write(self, name: str, content: bytes) -> None:
        """Write a small file there.

        Raises:
            StoreError: it cannot be written.
        """
        with (
            files.store_errors(f"writing {name} in {self.url}"),
            self._filesystem.open_output_stream(self._path(name)) as stream,
        ):
            stream.write(content)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none.

        Raises:
            StoreError: it cannot be removed.
        """
        with files.store_errors(f"removing {name} from {self.url}"):
            if self._filesystem.get_file_info(self._path(name)).is_file:
                self._filesystem.delete_file(self._path(name))

    def publish(self, run: RunInfo, run_file: bytes) -> None:
        """Make a run visible there; its parts have their final names in the local copy.

        No interface that all these stores share writes a file only if there is none. So the name
        is looked for just before it is written; by its random end, no other run has it.

        Raises:
            StoreError: it is visible there already, a run whose facts it uses is gone, or
                something cannot be written. It is not visible then.
        """
        visible = run_file_name(run.run_id)
        self._check_free(run)
        self._check_needed(run)
        sent = at_once(self.send, part_names(run))
        self._check_free(run)
        self.write(visible, run_file)
        try:
            # Who deletes a run does it first and looks then; one of us sees the other.
            self._check_needed(run)
        except StoreError:
            self.remove(visible)
            raise
        log.info("run %s is published in %s: %d files", run.run_id, self.url, len(sent))

    def _check_free(self, run: RunInfo) -> None:
        if run.run_id in self.run_ids():
            raise StoreError(
                f"run {run.run_id} is in {self.url} already, and is not written over",
                hint="`fleetscan runs` lists it",
            )

    def _check_needed(self, run: RunInfo) -> None:
        gone = run.facts_runs.keys() - self.run_ids() if run.facts_runs else set()
        if gone:
            raise StoreError(
                f"run {run.run_id} uses facts of run {min(gone)}, which was deleted meanwhile",
                hint=f"abandon it and scan again: fleetscan runs --abandon {run.run_id}",
            )


def run_file_name(run_id: str) -> str:
    """The path of a run file below the facts directory."""
    return str(layout.run_file(Path(), run_id))


def part_names(run: RunInfo) -> list[str]:
    """The paths of a run's parts below the facts directory."""
    return [
        str(layout.part_file(Path(), table, run.run_id, file.name)) for table, file in run.files()
    ]


def at_once(do: Callable[[T], object], over: Iterable[T]) -> Sequence[object]:
    """Do something with each of many, some at a time; the first error ends it."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        waiting = [pool.submit(do, one) for one in over]
        try:
            return [one.result() for one in waiting]
        finally:
            pool.shutdown(cancel_futures=True)
