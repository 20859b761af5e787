"""The report formats: one module each, found by listing this folder."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from fleetscan.reports.report_format import ReportFormat


@functools.cache
def load_formats() -> dict[str, ReportFormat]:
    """All report formats by name, in alphabetical order."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return {name: _load(name) for name in names}


def _load(name: str) -> ReportFormat:
    found: ReportFormat = importlib.import_module(f"fleetscan.reports.formats.{name}").FORMAT
    if found.name != name:
        raise TypeError(f"reports/formats/{name}.py has a format named {found.name}")
    return found
