"""Tables that the host makes of another table's rows as these pass by: one module each.

The table's spec says of which (``derived_from``). Its module, which has the table's name, has a
function ``begin``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from fleetscan.appliance.ground.options import FactOptions
from fleetscan.scanner.tables import load_tables


class Derivation(Protocol):
    """One root's rows of a table, in the making."""

    def add(self, rows: pa.Table) -> None:
        """Take some rows of the table that they are made of."""

    def tables(self, machine_id: str, root: str) -> Iterator[pa.Table]:
        """The rows made of what was added, checked, many at once."""

    def unread(self, paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """What these rows lack, as ``coverage.unread``, when the others lack that."""


@functools.cache
def derived_from(source: str) -> tuple[str, ...]:
    """The tables that are made of a table's rows."""
    return tuple(name for name, table in load_tables().items() if table.derived_from == source)


def begin(name: str, options: FactOptions) -> Derivation:
    """Begin to make a table, for one root.

    Raises:
        NotApplicable: it is not made with these options.
    """
    made: Derivation = importlib.import_module(f"{__name__}.{name}").begin(options)
    return made
