"""Resuming a run: what its plan says, and what the command line must say again.

A plan lies in the facts directory, and says what is scanned and how. It opens no door: keys, the
commands that print them and the directories that links and backing files may lead to are named on
the command line again, or the run is not resumed.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from fleetscan.appliance.confinement import Wanted
from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.cli import output
from fleetscan.scanner.tables.directory_usage.spec import DEPTH

if TYPE_CHECKING:
    from fleetscan.scanner.sources import Machine
    from fleetscan.scanner.sources.keys import KeySource
    from fleetscan.scanner.store.run import Run


@dataclass(frozen=True)
class ScanSettings:
    """What a run was asked for, as its plan keeps it for whoever resumes it.

    Nothing of it opens a door: of keys only the number is kept, and directories that were allowed
    must be allowed again.
    """

    sources: list[str]
    include: list[str]
    exclude: list[str]
    files: str
    deadline: float
    live: bool
    allowed_directories: list[str]
    template: bool = True
    keys: int = 0
    packages: str = "known"
    registry: list[str] = field(default_factory=list)
    usage_depth: int = DEPTH
    bases: str = "leave"


@dataclass(frozen=True)
class Granted:
    """What the command line itself allows to be read or run; never taken from a plan.

    Attributes:
        sources: as named, absolute; none on resuming a run whose machines have no keys.
        allowed_directories: absolute.
        keys: for all machines.
        key_commands: whether inventories may name commands.
        confinement: the layers that must hold.
    """

    sources: list[str]
    allowed_directories: list[str]
    keys: tuple[KeySource, ...]
    key_commands: bool
    confinement: Wanted = Wanted.LEAST


def resumed(facts: Path, run_id: str, granted: Granted) -> tuple[Run, ScanSettings]:
    """A run that was interrupted, and what it was asked for.

    Raises:
        UsageError: its plan is another version's or may be somebody else's, or the command line
            does not grant what the run needs.
        StoreError: there is no such run.
    """
    from pydantic import TypeAdapter, ValidationError

    from fleetscan.scanner.store.runs import Store

    run = Store(facts).resume(run_id)
    _check_owner(run)
    try:
        settings = TypeAdapter(ScanSettings).validate_python(run.settings)
    except ValidationError as error:
        raise _other_version(run_id) from error
    if run.settings.keys() - {setting.name for setting in fields(ScanSettings)}:
        raise _other_version(run_id)
    _check_granted(run_id, settings, granted)
    return run, settings


def _other_version(run_id: str) -> UsageError:
    return UsageError(
        f"run {run_id} was started by another version of fleetscan",
        hint="resume it with that version, or start a new scan",
    )


def _check_owner(run: Run) -> None:
    """Refuse a plan that somebody else may have written: it says which images are read."""
    status = run.plan_file.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"the plan of run {run.run_id}, {run.plan_file}, could have been written by others",
            hint="resume it as the user who started it, or start a new scan",
        )


def _check_granted(run_id: str, settings: ScanSettings, granted: Granted) -> None:
    """Make sure that what the run may read is named again, and is the same."""
    if granted.sources and granted.sources != settings.sources:
        raise UsageError(
            f"run {run_id} scans other sources: {shlex.join(settings.sources)}",
            hint="leave out the sources, or give the same ones",
        )
    if set(granted.allowed_directories) != set(settings.allowed_directories):
        folders = [word for name in settings.allowed_directories for word in ("--allow-dir", name)]
        raise UsageError(
            f"run {run_id} was started with other --allow-dir options",
            hint=f"give the same options again: {shlex.join(folders) or 'none'}",
        )
    if len(granted.keys) != settings.keys:
        raise UsageError(
            f"run {run_id} was started with {settings.keys} --key options",
            hint="give the same options again: a run does not store where keys come from",
        )


def leave(run: Run, machines: Sequence[Machine], granted: Granted) -> None:
    """Say how an unfinished run goes on; one without any finished machine is not worth it."""
    finished = len(run.finished())
    if not finished:
        run.abandon()
        output.message("fleetscan: no machine was finished, so nothing was kept")
        return
    words = ["fleetscan", "scan"]
    words += granted.sources if any(machine.keys for machine in machines) else []
    words += ["--facts", str(run.facts), "--resume", run.run_id]
    for folder in granted.allowed_directories:
        words += ["--allow-dir", folder]
    words += ["--allow-key-commands"] if granted.key_commands else []
    keys = " and the same --key options" if granted.keys else ""
    output.message(
        f"fleetscan: {finished} of {len(run.machine_ids)} machines are finished and kept; resume "
        f"with: {shlex.join(words)}{keys}"
    )
