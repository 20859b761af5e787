"""The disk image formats that are known: one module each, found by listing this folder."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from fleetscan.scanner.preflight.disk_format import KnownFormat


@functools.cache
def load_formats() -> dict[str, KnownFormat]:
    """All known formats by name, in alphabetical order."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return {name: _load(name) for name in names}


def _load(name: str) -> KnownFormat:
    module = importlib.import_module(f"fleetscan.scanner.preflight.formats.{name}")
    found: KnownFormat = module.FORMAT
    if found.name != name:
        raise TypeError(f"scanner/preflight/formats/{name}.py has a format named {found.name}")
    return found
