"""The ``fleetscan`` command line: one module a group of commands.

What is heavy to import is imported inside the commands, so that help and errors come at once.
"""

from __future__ import annotations

from fleetscan.scanner.cli.main import main, run

__all__ = ["main", "run"]
