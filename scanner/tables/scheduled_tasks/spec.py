"""One row a command that is run at set times."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_PATH, U32, Timestamp, column, table

Kind = Literal["cron", "periodic", "anacron", "at", "timer", "windows"]


@table()
class ScheduledTask:
    """Commands that run at set times: cron, anacron, at, systemd timers, Windows' tasks.

    What a command is given on its standard input, and the environment that at keeps with each
    job, may hold secrets and is left out.
    """

    kind: Kind = column(
        "cron: a line of a crontab; periodic: a script in /etc/cron.daily and its like; anacron: "
        "a line of anacrontab; at: a job that runs once; timer: a systemd timer; windows: a task "
        "of Windows' scheduler, which may also run when somebody logs on or something happens."
    )
    file: str = column(
        "File that it stands in; the hive for a task of Windows that only its registry has.",
        example="/etc/cron.d/sysstat",
        unredacted=IS_PATH,
    )
    line: U32 | None = column("Line of a crontab or anacrontab, from 1.")
    name: str | None = column(
        "Name that it has besides its file: a timer's unit, anacron's job, the path of a task of "
        "Windows.",
        example="logrotate.timer",
    )
    schedule: str = column(
        "When it runs, in its own language; settings of a timer are joined by semicolons. Of a "
        "task of Windows its triggers in words, joined by semicolons; empty where nothing but the "
        "registry has it, or nothing but a program starts it.",
        example="25 6 * * *",
    )
    runs_at: Timestamp | None = column("When a job of at runs.")
    user: str | None = column(
        "Account that it runs as, a name or SID; null for a timer, whose service says it, and for "
        "Windows' tasks of XP and 2003, which keep it among their secrets."
    )
    command: str | None = column(
        "What it runs, up to a percent sign; a timer's unit; the first line of a job of at; of a "
        "task of Windows its actions with their arguments, joined by semicolons, com: before the "
        "class of an object that is called.",
        example="test -x /usr/sbin/anacron",
    )
    enabled: bool = column(
        "Whether it runs by itself: false for a timer that nothing starts, and for files that "
        "cron passes over for their name or, in /etc/cron.daily and its like, their mode; for a "
        "task of Windows that is switched off, or that the registry does not know."
    )
    elevated: bool | None = column(
        "Whether it runs with its account's highest privileges; null where there is no such choice."
    )
    last_run: Timestamp | None = column("When it last ran, where Windows' registry tells.")
