"""Exit codes of the ``fleetscan`` command."""

from __future__ import annotations

FINE = 0
FAILED = 1
FINDINGS = 2
NOT_SCANNED = 3
BAD_USAGE = 64  # EX_USAGE of sysexits.h
INTERRUPTED = 130  # as a shell reports SIGINT
BROKEN_PIPE = 141  # as a shell reports SIGPIPE

MEANINGS = {
    FINE: "success",
    FAILED: "fleetscan itself failed, or more machines than `--fail-over` allows: do not rely on "
    "the output; `runs verify`: a run is damaged",
    FINDINGS: "`check`: rules fail at the severity `--fail-on` or above",
    NOT_SCANNED: "`scan`, `inspect`: some machines could not be scanned; the others are complete. "
    "`check`: some machines or rules have no verdict, and no rule fails as above",
    BAD_USAGE: "bad usage, or a bad rule or inventory file; nothing was started",
    INTERRUPTED: "interrupted; finished machines are kept",
    BROKEN_PIPE: "the program that read the output stopped reading",
}
"""What each status says to the caller, as the reference of the commands lists it."""


def of_share(lost: int, machines: int, fail_over: float | None) -> int:
    """The status of a command that could not look at some machines.

    Args:
        lost: how many these are.
        machines: how many there are in all.
        fail_over: the percentage of them above which that is a failure; None for never.
    """
    if fail_over is not None and lost * 100 > fail_over * machines:
        return FAILED
    return NOT_SCANNED if lost else FINE
