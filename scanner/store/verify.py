"""Whether a store holds what its run files say, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.store import files, layout, parts
from fleetscan.scanner.store.run_file import PartFile, RunInfo
from fleetscan.scanner.store.runs import Store


@dataclass(frozen=True)
class Verified:
    """What was found of one run.

    Attributes:
        run_id: the run.
        files: number of parts that were read.
        bytes: their length.
        unproven: number of parts of which only the number of rows was compared, as the run is from
            before checksums were recorded.
        problems: what is wrong, a line each.
    """

    run_id: str
    files: int
    bytes: int
    unproven: int
    problems: tuple[str, ...]


def verify(store: Store, run_id: str | None = None) -> Iterator[Verified]:
    """Read every part of a run, or of all, and compare it with the run file.

    Args:
        store: the store.
        run_id: the run; None for all visible ones.

    Raises:
        UsageError: ``run_id`` has not the form of one.
        StoreError: there is no such directory or run, or the directory cannot be read.
    """
    there = store.run_ids()
    for one in there if run_id is None else [layout.check_run_id(run_id)]:
        try:
            info = store.run(one)
        except StoreError as error:
            if one not in there:
                raise
            yield Verified(one, 0, 0, 0, (str(error),))
        else:
            yield _verified(store.path, info, set(there))


def _verified(facts: Path, run: RunInfo, there: set[str]) -> Verified:
    problems = [
        f"it needs facts of run {holder}, which is not there"
        for holder in sorted(run.facts_runs.keys() - there)
    ]
    count = size = unproven = 0
    rows = dict.fromkeys(run.tables, 0)
    for name, file in run.files():
        path = layout.part_file(facts, name, run.run_id, file.name)
        count += 1
        unproven += file.sha256 is None
        try:
            found = _measured(path)
            rows[name] += found.rows or 0
            size += found.bytes or 0
            problems += [f"{path}: {what}" for what in _differences(file, found)]
        except StoreError as error:
            problems.append(str(error))
    problems += [
        f"{name}: {rows[name]} rows, and the run file says {table.rows}"
        for name, table in run.tables.items()
        if rows[name] != table.rows
    ]
    return Verified(run.run_id, count, size, unproven, tuple(problems))


def _measured(path: Path) -> PartFile:
    """A part as it is now.

    Raises:
        StoreError: it is missing, or cannot be read.
    """
    with files.store_errors(f"reading {path}"), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    return PartFile(path.name, parts.count_rows(path), size, digest)


def _differences(said: PartFile, found: PartFile) -> Iterator[str]:
    """How a part differs from what the run file says about it."""
    for name in ("bytes", "rows", "sha256"):
        wanted, is_now = getattr(said, name), getattr(found, name)
        if wanted is not None and wanted != is_now:
            yield f"{name} {is_now}, and the run file says {wanted}"
