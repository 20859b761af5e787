"""The kinds of sources: one module each, found by listing this folder."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from fleetscan.scanner.sources.source_kind import SourceKind


@functools.cache
def load_kinds() -> tuple[SourceKind, ...]:
    """All kinds of sources, in the order in which they are asked whether a source is theirs."""
    names = (path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return tuple(sorted(map(_load, names), key=lambda kind: (kind.rank, kind.name)))


def _load(name: str) -> SourceKind:
    found: SourceKind = importlib.import_module(f"fleetscan.scanner.sources.kinds.{name}").KIND
    if found.name != name:
        raise TypeError(f"scanner/sources/kinds/{name}.py has a kind named {found.name}")
    return found
