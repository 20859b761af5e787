"""Resuming a run: what its plan says, and what the command line must say again.

A plan is kept in the facts directory, and says what is scanned and how. It opens no door: keys, the
commands that print them and the directories that links and backing files may lead to are named on
the command line again, or the run is not resumed.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.ground.option import OptionField, options_of
from fleetscan.scanner.cli import output
from fleetscan.scanner.options import ScanOptions, from_plan, to_plan

if TYPE_CHECKING:
    from fleetscan.scanner.sources import Machine
    from fleetscan.scanner.store.run import Run


@dataclass(frozen=True)
class Given:
    """What a scan is asked for: by the command line itself, or by a plan as far as that may.

    Attributes:
        sources: as named, absolute; none on the command line that resumes a run whose machines
            have no keys.
        options: how they are scanned.
    """

    sources: list[str]
    options: ScanOptions


def settings_of(asked: Given) -> dict[str, Any]:
    """What a run's plan keeps, for whoever resumes it: JSON values."""
    return {"sources": asked.sources, "options": to_plan(asked.options)}


def resumed(facts: Path, run_id: str, given: Given) -> tuple[Run, Given]:
    """A run that was interrupted, and what it was asked for.

    Raises:
        UsageError: its plan is another version's or may be somebody else's, or the command line
            does not grant what the run needs.
        StoreError: there is no such run.
    """
    from fleetscan.scanner.store.runs import Store

    run = Store(facts).resume(run_id)
    _check_owner(run)
    plan = run.settings
    if plan.keys() != {"sources", "options"} or not _are_texts(plan["sources"]):
        raise _other_version(run_id)
    try:
        asked = Given(plan["sources"], from_plan(plan["options"], given.options))
    except ValueError as error:
        raise _other_version(run_id) from error
    _check_granted(run_id, asked, plan["options"], given)
    return run, asked


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


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


def _check_granted(run_id: str, asked: Given, plan: dict[str, Any], given: Given) -> None:
    """Make sure that what the run may read is named again, and is the same."""
    if given.sources and given.sources != asked.sources:
        raise UsageError(
            f"run {run_id} scans other sources: {shlex.join(asked.sources)}",
            hint="leave out the sources, or give the same ones",
        )
    for one in options_of(type(given.options)):
        if one.option.planned == "confirmed":
            _check_confirmed(run_id, one, asked.options.value(one), given.options.value(one))
        if one.option.planned == "counted":
            _check_counted(run_id, one, plan[one.group][one.name], given.options.value(one))


def _check_confirmed(
    run_id: str, one: OptionField, planned: Sequence[str], given: Sequence[str]
) -> None:
    if set(planned) != set(given):
        words = [word for text in planned for word in (one.flag, text)]
        raise UsageError(
            f"run {run_id} was started with other {one.flag} options",
            hint=f"give the same options again: {shlex.join(words) or 'none'}",
        )


def _check_counted(run_id: str, one: OptionField, planned: object, given: Sequence[object]) -> None:
    if planned != len(given):
        raise UsageError(
            f"run {run_id} was started with {planned} {one.flag} options",
            hint="give the same options again: a run does not store where keys come from",
        )


def leave(run: Run, machines: Sequence[Machine], given: Given) -> None:
    """Say how to resume an unfinished run; one without any finished machine is not worth it.

    Raises:
        StoreError: another process took the run over, or it could not be removed.
    """
    from fleetscan.scanner.store.remote import shown

    run.check_owned()
    finished = len(run.finished())
    if not finished:
        run.abandon()
        output.message("fleetscan: no machine was finished, so nothing was kept")
        return
    words = ["fleetscan", "scan"]
    words += given.sources if any(machine.keys for machine in machines) else []
    words += ["--facts", shown(run.facts), "--resume", run.run_id, *_again(given.options)]
    output.message(
        f"fleetscan: {finished} of {len(run.machine_ids)} machines are finished and kept; resume "
        f"with: {shlex.join(words)}{_secrets(given.options)}"
    )


def _again(options: ScanOptions) -> Iterator[str]:
    """The words of the options that a plan does not grant, and that are not as they are anyway."""
    for one in options_of(type(options)):
        value = options.value(one)
        if one.option.planned not in ("confirmed", "asked") or value == one.default:
            continue
        values = value if isinstance(value, tuple) else () if value is True else (value,)
        yield from [word for text in values for word in (one.flag, str(text))] or [one.flag]


def _secrets(options: ScanOptions) -> str:
    """What to say about options whose values are not shown."""
    return "".join(
        f" and the same {one.flag} options"
        for one in options_of(type(options))
        if one.option.planned == "counted" and options.value(one)
    )
