"""One row a directory near the top of a root's tree."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import IS_PATH, U32, U64, Origin, column, table


@table(origin=Origin.HOST, derived_from="files")
class DirectoryUsage:
    """Size of directories with everything below them, as du counts it.

    Computed from the rows of ``files``, so it needs ``--files all``. Directories down to
    ``--usage-depth`` have rows of their own. A file with several names counts once, under the name
    that was met first.
    """

    path: str = column("The directory.", example="/var/log", unredacted=IS_PATH)
    depth: U32 = column("Its depth in the tree; 0 for the top.")
    size: U64 = column("Apparent size of all entries.", unit="bytes")
    allocated: U64 = column("Space that they occupy.", unit="bytes")
    entries: U64 = column("Number of entries below it, at any depth.")
