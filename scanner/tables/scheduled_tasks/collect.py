"""Scheduled tasks, from the files of cron, anacron, at, systemd and of Windows' scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleetscan.appliance.ground.schema import MICROSECOND, NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.scheduled_tasks import crontab, timers, windows
from fleetscan.scanner.tables.scheduled_tasks.spec import Kind, ScheduledTask

_CRONTAB = "/etc/crontab"
_CRON_D = "/etc/cron.d"
_ANACRONTAB = "/etc/anacrontab"
_DEBIAN_SPOOL = "/var/spool/cron/crontabs"
_SPOOLS = (_DEBIAN_SPOOL, "/var/spool/cron/tabs", "/var/spool/cron", "/etc/crontabs")
"""Crontabs of accounts: Debian, SUSE, Red Hat; BusyBox keeps them in /etc on Alpine."""

_PERIOD_FOLDERS = (
    *(f"/etc/cron.{period}" for period in ("hourly", "daily", "weekly", "monthly", "yearly")),
    *(f"/etc/periodic/{period}" for period in ("15min", "hourly", "daily", "weekly", "monthly")),
)
"""Scripts that run once a period: everywhere, and on Alpine."""
_JOB_SPOOLS = ("/var/spool/cron/atjobs", "/var/spool/atjobs", "/var/spool/at")
_EXECUTABLE = 0o111


def collect(root: Root) -> Iterator[ScheduledTask]:
    """One row a task: cron's, anacron's, at's, then systemd's timers; or those of Windows.

    Raises:
        NotApplicable: the root has no place for any of them.
        IncompleteError: a file could not be read or has malformed lines; raised after all rows.
    """
    reader = Reader(root)
    if root.windows:
        yield from windows.tasks(reader)
        reader.finish()
        return
    places = (_CRONTAB, _CRON_D, _ANACRONTAB, *_SPOOLS, *_JOB_SPOOLS, *timers.FOLDERS)
    if not any(map(root.exists, places)):
        raise NotApplicable("neither cron, anacron, at nor systemd")
    yield from _system_crontabs(reader)
    yield from _own_crontabs(reader)
    yield from _periodic(root)
    yield from _anacron(reader)
    yield from _jobs(reader)
    yield from timers.tasks(reader)
    reader.finish()


def _system_crontabs(reader: Reader) -> Iterator[ScheduledTask]:
    cronie = not reader.root.is_dir(_DEBIAN_SPOOL)
    yield from _crontab(reader, _CRONTAB, None, enabled=True)
    for path in filter(reader.root.is_file, reader.root.glob(_CRON_D)):
        name = path.rpartition("/")[2]
        if not name.startswith("."):  # .placeholder
            yield from _crontab(reader, path, None, enabled=crontab.is_run(name, cronie=cronie))


def _own_crontabs(reader: Reader) -> Iterator[ScheduledTask]:
    for folder in _SPOOLS:
        for path in filter(reader.root.is_file, reader.root.glob(folder)):
            user = path.rpartition("/")[2]
            if not user.startswith(("tmp.", ".", "cron.")):  # being edited; cron.deny and allow
                yield from _crontab(reader, path, user, enabled=True)


def _crontab(
    reader: Reader, path: str, user: str | None, *, enabled: bool
) -> Iterator[ScheduledTask]:
    malformed: list[int] = []
    entries = crontab.parse(
        reader.text(path, path) or "", with_user=user is None, malformed=malformed
    )
    yield from _rows("cron", path, entries, user, enabled=enabled)
    if malformed and enabled:
        reader.note(colonfile.malformed(path, malformed), path)


def _anacron(reader: Reader) -> Iterator[ScheduledTask]:
    malformed: list[int] = []
    entries = crontab.parse_anacron(reader.text(_ANACRONTAB, _ANACRONTAB) or "", malformed)
    yield from _rows("anacron", _ANACRONTAB, entries, None, enabled=True)
    if malformed:
        reader.note(colonfile.malformed(_ANACRONTAB, malformed), _ANACRONTAB)


def _rows(
    kind: Kind,
    path: str,
    entries: Iterable[crontab.CrontabEntry],
    user: str | None,
    *,
    enabled: bool,
) -> Iterator[ScheduledTask]:
    for entry in entries:
        yield ScheduledTask(
            kind=kind,
            file=path,
            line=entry.line,
            name=entry.name,
            schedule=entry.schedule,
            user=user or entry.user,
            command=entry.command,
            enabled=enabled,
        )


def _periodic(root: Root) -> Iterator[ScheduledTask]:
    for folder in _PERIOD_FOLDERS:
        for path in filter(root.is_file, root.glob(folder)):
            name = path.rpartition("/")[2]
            if name.startswith("."):
                continue
            executable = bool(root.stat(path).st_mode & _EXECUTABLE)
            yield ScheduledTask(
                kind="periodic",
                file=path,
                schedule=folder.rpartition("/")[2].removeprefix("cron."),
                user="root",
                command=path,
                enabled=executable and crontab.is_run_by_run_parts(name),
            )


def _jobs(reader: Reader) -> Iterator[ScheduledTask]:
    names: dict[int, str] | None = None
    for folder in _JOB_SPOOLS:
        for path in filter(reader.root.is_file, reader.root.glob(folder)):
            seconds = crontab.job_time(path.rpartition("/")[2])
            text = reader.text(path, path) if seconds is not None else None
            if seconds is None or text is None:
                continue
            if names is None:
                names = colonfile.names_by_id(reader.text("/etc/passwd") or "")
            owner, command = crontab.parse_job(text)
            yield ScheduledTask(
                kind="at",
                file=path,
                schedule="once",
                runs_at=seconds * MICROSECOND,
                user=None if owner is None else names.get(owner, str(owner)),
                command=command,
                enabled=True,
            )
