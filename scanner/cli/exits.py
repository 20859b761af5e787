"""Exit codes of the ``fleetscan`` command."""

from __future__ import annotations

FINE = 0
FAILED = 1
"""The tool itself failed."""

FINDINGS = 2
"""Rules failed at or above ``--fail-on``."""

NOT_SCANNED = 3
"""Some machines could not be scanned."""

BAD_USAGE = 64
"""Bad options, or a bad rule or inventory file (EX_USAGE of sysexits.h)."""

INTERRUPTED = 130
"""Stopped by the user, as a shell reports SIGINT."""

BROKEN_PIPE = 141
"""Whoever read the output went away, as a shell reports SIGPIPE."""
