"""One row a registry hive."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, U64, Timestamp, column, table

State = Literal["not_needed", "replayed", "nothing_newer", "failed"]


@table()
class RegistryHive:
    """Windows registry hives: those in the machine's config directory, and each user's.

    Other tables show a dirty hive as Windows would find it at its next start: its transaction logs
    are replayed onto a copy in the appliance's memory. If ``recovery`` says that this was not
    possible, they show what is in the hive's file, which may be older than the last writes.
    """

    file: str = column(
        "The hive's file.", example="/Windows/System32/config/SYSTEM", unredacted=IS_PATH
    )
    size: U64 = column("Length of the file.", unit="bytes")
    version: str = column("Version of its format.", example="1.5")
    written: Timestamp | None = column("When it was last written as a whole.")
    primary_sequence: U32 = column("Sequence number that a write of the hive begins with.")
    secondary_sequence: U32 = column("Sequence number that it ends with.")
    dirty: bool = column(
        "Whether the two numbers differ or their checksum is wrong: a write was then not "
        "finished, and the transaction logs hold newer data."
    )
    logs: tuple[str, ...] = column(
        "Its non-empty transaction logs.",
        example="/Windows/System32/config/SYSTEM.LOG1",
        unredacted=IS_PATH,
    )
    recovery: State = column(
        "What happened to its logs: not_needed, if the hive is not dirty; replayed; "
        "nothing_newer, if they contain nothing that the hive lacks; or failed."
    )
    replayed: U32 = column("Log entries that were replayed; a log of Windows 8 or older is one.")
    recovery_note: str | None = column(
        "Why logs were not replayed, or only in part.", example="entry 2113 is damaged"
    )
