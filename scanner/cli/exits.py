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
    FAILED: "fleetscan itself failed: do not rely on the output; `runs verify`: a run is damaged",
    FINDINGS: "`check`: rules fail at the severity `--fail-on` or above",
    NOT_SCANNED: "`scan`, `inspect`: some machines could not be scanned; the others are complete",
    BAD_USAGE: "bad usage, or a bad rule or inventory file; nothing was started",
    INTERRUPTED: "interrupted; finished machines are kept",
    BROKEN_PIPE: "the program that read the output stopped reading",
}
"""What each status says to the caller, as the reference of the commands lists it."""
