"""What only some commands need, and is installed only where it was asked for.

A host that scans needs neither SQL nor charts. The commands that do import these libraries
themselves; where one is missing, the error says how to install it.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys

EXTRAS = {
    "duckdb": ("check", "report"),
    "jinja2": ("report",),
    "markupsafe": ("report",),
    "altair": ("report",),
    "vl_convert": ("report",),
}
"""The extras of the distribution that install a module, the smallest first."""


def advice(error: ModuleNotFoundError) -> str | None:
    """How to install what an import did not find; None if it belongs to no extra."""
    names = EXTRAS.get((error.name or "").partition(".")[0])
    if names is None:
        return None
    command = shlex.join([sys.executable, "-m", "pip", "install", *requirements(names[0])])
    return f"install fleetscan with the extra {' or '.join(names)}, or run: {command}"


def requirements(extra: str) -> list[str]:
    """What an extra installs, as pip takes it."""
    try:
        lines = importlib.metadata.requires("fleetscan") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    marker = re.compile(rf"extra == ['\"]{extra}['\"]")
    return [line.partition(";")[0].strip() for line in lines if marker.search(line)]
