"""One row a registry hive."""

from __future__ import annotations

from scanner.schema import U32, U64, Timestamp, column, table


@table()
class RegistryHive:
    """Windows registry hives: the machine's in its config directory, and each user's.

    Transaction logs are not replayed: what a dirty hive gives to other tables may be older than
    the last writes.
    """

    file: str = column("The hive's file.", example="/Windows/System32/config/SYSTEM")
    size: U64 = column("Length of the file.", unit="bytes")
    version: str = column("Version of its format.", example="1.5")
    written: Timestamp | None = column("When it was last written as a whole.")
    primary_sequence: U32 = column("Number that a write of the hive begins with.")
    secondary_sequence: U32 = column("Number that it ends with.")
    dirty: bool = column(
        "Whether the two numbers differ, so that a write was not finished and its transaction "
        "logs hold what is newer."
    )
    logs: tuple[str, ...] = column(
        "Its transaction logs that are not empty.", example="/Windows/System32/config/SYSTEM.LOG1"
    )
