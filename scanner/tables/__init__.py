"""The tables: one folder each, found by listing this one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground import schema


@functools.cache
def load_all_tables() -> dict[str, schema.Table]:
    """All tables by name, in alphabetical order: facts, and what is made from them."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/spec.py"))
    return {name: _load(name) for name in folders}


@functools.cache
def load_tables() -> dict[str, schema.Table]:
    """The fact tables by name, in alphabetical order."""
    tables = load_all_tables().items()
    return {name: table for name, table in tables if table.origin is not schema.Origin.DERIVED}


def _load(name: str) -> schema.Table:
    spec = importlib.import_module(f"fleetscan.scanner.tables.{name}.spec")
    rows = [value for value in vars(spec).values() if hasattr(value, "__fleetscan__")]
    if len(rows) != 1:
        raise TypeError(f"scanner/tables/{name}/spec.py must define exactly one row class")
    return schema.describe(name, rows[0])


def load_collector(name: str) -> Callable[[Any], Iterator[object]]:
    """The ``collect`` function of a guest table.

    Its argument is the agent's ``Machine`` or ``Root``, as the table's scope says; ``Any``
    because this module must not import the agent.
    """
    module = importlib.import_module(f"fleetscan.scanner.tables.{name}.collect")
    collect: Callable[[Any], Iterator[object]] = module.collect
    return collect


def warm_up_collector(name: str) -> None:
    """Import a guest table's collector and do what its ``warm_up``, if it has one, does.

    For work that is slow and the same for every machine: done once, before the template is made.
    """
    load_collector(name)
    module = importlib.import_module(f"fleetscan.scanner.tables.{name}.collect")
    getattr(module, "warm_up", _nothing)()


def _nothing() -> None: ...
