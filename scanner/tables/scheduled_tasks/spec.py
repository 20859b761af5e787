"""One row a command that is run at set times."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, Timestamp, column, table

Kind = Literal["cron", "periodic", "anacron", "at", "timer", "windows"]


@table()
class ScheduledTask:
    """Commands that run at set times: cron, anacron, at, systemd timers, Windows' tasks.

    A command's standard input, and the environment that at stores with each job, may contain
    secrets and are left out.
    """

    kind: Kind = column(
        "cron: a line of a crontab; periodic: a script in /etc/cron.daily or similar; anacron: a "
        "line of anacrontab; at: a job that runs once; timer: a systemd timer; windows: a task of "
        "the Windows scheduler, which may also run when somebody logs on or an event occurs."
    )
    file: str = column(
        "File that contains it; the hive for a Windows task that is only in the registry.",
        example="/etc/cron.d/sysstat",
        unredacted=IS_PATH,
    )
    line: U32 | None = column("Line of a crontab or anacrontab, from 1.", default=None)
    name: str | None = column(
        "Its name, if it has one besides its file: the unit of a timer, the job of anacron, the "
        "path of a Windows task.",
        example="logrotate.timer",
        default=None,
    )
    schedule: str = column(
        "When it runs, in its own notation; settings of a timer are joined by semicolons. "
        "Windows: its triggers in words, joined by semicolons; empty if the task is only in the "
        "registry, or if only a program starts it.",
        example="25 6 * * *",
    )
    runs_at: Timestamp | None = column("When an at job runs.", default=None)
    user: str | None = column(
        "Account that it runs as, a name or SID; null for a timer, whose service states it, and "
        "for tasks of Windows XP and 2003, which store it among their secrets.",
        default=None,
    )
    command: str | None = column(
        "Command that it runs, up to a percent sign; for a timer its unit; for an at job its "
        "first line. Windows: its actions with their arguments, joined by semicolons; the class "
        "of an object that is called is preceded by com:.",
        example="test -x /usr/sbin/anacron",
    )
    enabled: bool = column(
        "Whether it runs automatically. False for a timer that nothing starts; for files that "
        "cron skips because of their name or, in /etc/cron.daily and similar, their mode; and for "
        "a Windows task that is disabled or not in the registry."
    )
    elevated: bool | None = column(
        "Whether it runs with its account's highest privileges; null if there is no such choice.",
        default=None,
    )
    last_run: Timestamp | None = column(
        "When it last ran, if the Windows registry records it.", default=None
    )
