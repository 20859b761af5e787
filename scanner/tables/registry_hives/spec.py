"""One row a registry hive."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_PATH, U32, U64, Timestamp, column, table

State = Literal["not_needed", "replayed", "nothing_newer", "failed"]


@table()
class RegistryHive:
    """Windows registry hives: the machine's in its config directory, and each user's.

    Other tables show a dirty hive as Windows would find it at its next start: its transaction logs
    are replayed, onto a copy in the appliance's memory. Where ``recovery`` says that this was not
    possible, they show what the hive's file holds, which may be older than the last writes.
    """

    file: str = column(
        "The hive's file.", example="/Windows/System32/config/SYSTEM", unredacted=IS_PATH
    )
    size: U64 = column("Length of the file.", unit="bytes")
    version: str = column("Version of its format.", example="1.5")
    written: Timestamp | None = column("When it was last written as a whole.")
    primary_sequence: U32 = column("Number that a write of the hive begins with.")
    secondary_sequence: U32 = column("Number that it ends with.")
    dirty: bool = column(
        "Whether the two numbers differ or the checksum beside them is wrong, so that a write was "
        "not finished and its transaction logs hold what is newer."
    )
    logs: tuple[str, ...] = column(
        "Its transaction logs that are not empty.",
        example="/Windows/System32/config/SYSTEM.LOG1",
        unredacted=IS_PATH,
    )
    recovery: State = column(
        "What became of its logs: not_needed of a hive that is not dirty; replayed; nothing_newer, "
        "where they hold nothing that the hive lacks; or failed."
    )
    replayed: U32 = column("Log entries that were replayed; a log of Windows 8 or older is one.")
    recovery_note: str | None = column(
        "Why logs were not replayed, or not to their end.", example="entry 2113 is damaged"
    )
