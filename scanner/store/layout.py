"""The names on disk: where runs, parts and staging are below the facts directory.

::

    <table>/run=<run_id>/part-00000.parquet   rows of a table
    results/run=<run_id>/pack-<name>.parquet  what a pack's rules found
    runs/<run_id>.json                        the run file; a run is visible when it is there
    .staging/<run_id>/plan.json               a run that is not finished
    .staging/<run_id>/owner-00001.json        who works on it
    .staging/<run_id>/needs.json              earlier runs that hold facts of its machines
    .staging/<run_id>/machines/<name>/        its finished machines
    .staging/<run_id>/batches/<name>/         some of them as parts
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.store import files

_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_RUNS = "runs"
_STAGING = ".staging"
_PARTITION = "run="
_HIDDEN = ".deleting"
_NEW, _GONE = ".new-", ".gone-"

_OLD_SECONDS = 3600
"""Age at which staging that has no name yet is left over: it gets its name within a second."""


def new_run_id(now: datetime) -> str:
    """A run id that sorts by time, such as ``20260131T020304Z-3f9a1c``.

    Half of its tail is the 4096th of the second, so that runs which begin in the same second sort
    as well; the other half is random.

    Args:
        now: the time, UTC.
    """
    part = now.microsecond * 4096 // 1_000_000
    return f"{now:%Y%m%dT%H%M%SZ}-{part:03x}{secrets.randbelow(4096):03x}"


def is_run_id(text: str) -> bool:
    """Whether a text has the form of a run id, and so is safe in paths and SQL."""
    return _RUN_ID.fullmatch(text) is not None


def check_run_id(text: str) -> str:
    """The text, when it is a run id.

    Raises:
        UsageError: it is not.
    """
    if not is_run_id(text):
        raise UsageError(
            f"'{printable(text, 60)}' is not a run id",
            hint="a run id looks like 20260131T020304Z-3f9a1c; `fleetscan runs` lists them",
        )
    return text


def run_files(facts: Path) -> Path:
    """The directory of the run files, in which whoever deletes runs says so."""
    return facts / _RUNS


def run_file(facts: Path, run_id: str) -> Path:
    """The file that makes a run visible."""
    return facts / _RUNS / f"{run_id}.json"


def visible_runs(facts: Path) -> list[str]:
    """Ids of the runs that have a run file, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    names = [name.removesuffix(".json") for name in _names(facts / _RUNS) if name.endswith(".json")]
    return sorted(name for name in names if is_run_id(name))


def hidden_run_file(facts: Path, run_id: str) -> Path:
    """The name of a run file while its run is being deleted."""
    return facts / _RUNS / f"{run_id}{_HIDDEN}"


def hidden_runs(facts: Path) -> list[str]:
    """Ids of the runs whose deletion began, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    names = [name.removesuffix(_HIDDEN) for name in _names(facts / _RUNS) if name.endswith(_HIDDEN)]
    return sorted(name for name in names if is_run_id(name))


def _names(directory: Path) -> list[str]:
    """What a directory holds; nothing when it is not there. Path.glob takes unreadable for empty.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208 - only names are needed
    except FileNotFoundError:
        return []


def staging(facts: Path, run_id: str) -> Path:
    """Where a run that is not finished keeps its things."""
    return facts / _STAGING / run_id


def staged_runs(facts: Path) -> list[str]:
    """Ids of the runs that have a plan, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    names = [name for name in _names(facts / _STAGING) if is_run_id(name)]
    return sorted(name for name in names if (facts / _STAGING / name / "plan.json").exists())


def new_staging(facts: Path) -> Path:
    """A directory to prepare a run's staging in, before it gets its name."""
    return facts / _STAGING / f"{_NEW}{secrets.token_hex(8)}"


def gone_staging(facts: Path, run_id: str) -> Path:
    """Another name for the staging of a run that is being removed."""
    return facts / _STAGING / f"{_GONE}{run_id}-{secrets.token_hex(4)}"


def leftover_staging(facts: Path) -> Iterator[Path]:
    """Directories of the staging area that belong to no run, and never will.

    Raises:
        OSError: the directory cannot be read.
    """
    for name in _names(facts / _STAGING):
        path = facts / _STAGING / name
        planless = is_run_id(name) and not (path / "plan.json").exists()
        if planless or name.startswith(_GONE) or (name.startswith(_NEW) and _is_old(path)):
            yield path


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD_SECONDS
    except FileNotFoundError:
        return False


def part(facts: Path, table_name: str, run_id: str, number: int) -> Path:
    """A Parquet file with rows of a table."""
    return part_file(facts, table_name, run_id, part_name(number))


def part_name(number: int) -> str:
    """The name of a Parquet file in its directory."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int:
    """The number in the name of a Parquet file."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


def part_file(facts: Path, table_name: str, run_id: str, name: str) -> Path:
    """The same by its name."""
    return facts / table_name / f"{_PARTITION}{run_id}" / name


def part_names(facts: Path, table_name: str, run_id: str) -> set[str]:
    """Names of the files in a partition.

    Raises:
        StoreError: it cannot be read.
    """
    directory = part_file(facts, table_name, run_id, "")
    with files.store_errors(f"reading {directory}"):
        return set(_names(directory))


def results_folder(facts: Path, run_id: str) -> Path:
    """Where the results of a run's checks are: one file a pack, replaced and deleted by itself."""
    return facts / "results" / f"{_PARTITION}{run_id}"


def results_files(facts: Path, run_id: str) -> list[Path]:
    """The files with the results of a run, in the order of their names.

    Raises:
        StoreError: their folder cannot be read.
    """
    folder = results_folder(facts, run_id)
    with files.store_errors(f"reading {folder}"):
        names = sorted(_names(folder))
    return [folder / name for name in names if re.fullmatch(r"pack-.*\.parquet", name)]


def partitions(facts: Path) -> Iterator[tuple[str, Path]]:
    """Run id and directory of every partition of every table, of visible runs or not."""
    for path in facts.glob(f"*/{_PARTITION}*"):
        run_id = path.name.removeprefix(_PARTITION)
        if is_run_id(run_id):
            yield run_id, path


def remove_parts(facts: Path, run_ids: Collection[str]) -> None:
    """Remove the partitions of runs that are not visible.

    Raises:
        StoreError: one could not be removed, or a run is visible.
    """
    for run_id, directory in list(partitions(facts)):
        if run_id in run_ids:
            if run_file(facts, run_id).exists():
                raise StoreError(f"run {run_id} is already visible, and keeps its parts")
            files.remove_tree(directory)
