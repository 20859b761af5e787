"""Parsers of crontab(5), anacrontab(5) and of the job files of at(1).

Sources: crontab(5) of Debian's cron 3.0 and of cronie 1.7, anacrontab(5) of anacron 2.3,
run-parts(8) of debianutils, at.c and atd.c of at 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ASSIGNMENT = re.compile(r"""\s*(["']?)[A-Za-z_][A-Za-z0-9_]*\1\s*=""")
_NICKNAME = re.compile(
    r"@(?:reboot|yearly|annually|monthly|weekly|daily|midnight|hourly|every_minute)"
)
_TIME_FIELD = re.compile(r"-?[0-9A-Za-z*,/~-]+")
_TIME_FIELDS = 5
_PERIOD = re.compile(r"[0-9]{1,9}|@[a-z]{1,20}")
_COMMAND = re.compile(r"(?:\\%|[^%])*")  # a percent sign ends it, unless escaped

_JOB_NAME = re.compile(r"[A-Za-z=]([0-9a-f]{5})([0-9a-f]{8})")
_JOB_OWNER = re.compile(r"^# atrun uid=([0-9]{1,10}) gid=", re.MULTILINE)

_RUN_PARTS_NAME = re.compile(r"[A-Za-z0-9_-]+")
_CRONIE_PASSED_OVER = re.compile(r"\..*|#.*|.*~|.*\.(?:rpmsave|rpmorig|rpmnew|cfsaved)")


@dataclass(frozen=True)
class CrontabEntry:
    """One line of a crontab or anacrontab; the name is that of anacron's job."""

    line: int
    schedule: str
    user: str | None
    command: str
    name: str | None = None


def parse(text: str, *, with_user: bool, malformed: list[int]) -> Iterator[CrontabEntry]:
    """Entries of a crontab.

    Args:
        text: the file's content.
        with_user: whether the account stands before the command, as it does in /etc.
        malformed: gets the numbers of lines that are neither entries nor assignments.
    """
    for number, line in _entries(text):
        nickname = line.startswith("@")
        times = 1 if nickname else _TIME_FIELDS
        words = line.split(None, times + with_user)
        pattern = _NICKNAME if nickname else _TIME_FIELD
        if len(words) <= times + with_user or not all(map(pattern.fullmatch, words[:times])):
            malformed.append(number)
            continue
        user = words[times] if with_user else None
        yield CrontabEntry(number, " ".join(words[:times]), user, _without_input(words[-1]))


def parse_anacron(text: str, malformed: list[int]) -> Iterator[CrontabEntry]:
    """Entries of an anacrontab: period in days, delay in minutes, name, command."""
    for number, line in _entries(text):
        words = line.split(None, 3)
        if len(words) < 4 or not _PERIOD.fullmatch(words[0]) or not words[1].isdigit():
            malformed.append(number)
            continue
        yield CrontabEntry(number, f"{words[0]} {words[1]}", "root", words[3].rstrip(), words[2])


def _entries(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and stripped[0] != "#" and not _ASSIGNMENT.match(stripped):
            yield number, stripped


def _without_input(command: str) -> str:
    match = _COMMAND.match(command)
    return (match[0] if match else "").rstrip()


def is_run(name: str, *, cronie: bool) -> bool:
    """Whether cron takes a file of this name in /etc/cron.d for a crontab.

    Args:
        name: the file's name.
        cronie: whether the system has cronie's rules rather than those of Debian's cron.
    """
    if cronie:
        return not _CRONIE_PASSED_OVER.fullmatch(name)
    return is_run_by_run_parts(name)


def is_run_by_run_parts(name: str) -> bool:
    """Whether run-parts(8) runs a file of this name."""
    return _RUN_PARTS_NAME.fullmatch(name) is not None


def job_time(name: str) -> int | None:
    """When a job file of at runs, in seconds since 1970; None for another file's name.

    The name is a queue's letter, the job's number and its time in minutes, both hexadecimal.
    """
    match = _JOB_NAME.fullmatch(name)
    return int(match[2], 16) * 60 if match else None


def parse_job(text: str) -> tuple[int | None, str | None]:
    """Owner's number and first line of a job of at.

    The job's own lines follow after the environment and the change of directory, whose failure
    is handled in braces.
    """
    owner = _JOB_OWNER.search(text)
    _, _, own = text.partition("\n}\n")
    lines = [line.strip() for line in own.split("\n")]
    start = 1 if lines and lines[0].startswith("${SHELL:-/bin/sh} <<") else 0
    first = next((line for line in lines[start:] if line), None)
    return (int(owner[1]) if owner else None), first
