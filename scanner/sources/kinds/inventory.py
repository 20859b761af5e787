"""An inventory file."""

from __future__ import annotations

from pathlib import Path

from fleetscan.scanner.sources.base import Machine, SourceOptions
from fleetscan.scanner.sources.source_kind import SourceKind, is_there

_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".csv"})


class InventorySource(SourceKind):
    """A file that lists machines; see :mod:`fleetscan.scanner.sources.inventory`."""

    name = "inventory"
    form = "an inventory file"
    rank = 1  # a folder may have such a name too

    def accepts(self, source: str) -> bool:
        """Whether its name is an inventory's."""
        return is_there(source) and Path(source).suffix.lower() in _SUFFIXES

    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        """The inventory's machines, in its order."""
        from fleetscan.scanner.sources.inventory import inventory_machines

        return inventory_machines(source, key_commands=options.key_commands)


KIND = InventorySource()
