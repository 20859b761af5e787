"""Databases of records, which blank lines are between: dpkg's, opkg's and apk's.

They are read a block at a time, so that a file is never in memory as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root

LIMIT = 64 << 20
"""Largest database that is read, in bytes; a package takes about 1 KiB, with a list of its files
some ten times that."""

LINE, RECORD = b"\n", b"\n\n"
"""How lines and records end."""

_BLOCK = 1 << 18
_RECORD_LIMIT = 4 << 20  # bytes; a package of 20,000 files takes 1 MiB in apk's database

Record = dict[str, str]
"""The wanted fields of one record."""


def texts(root: Root, path: str, problems: Problems, end: bytes = LINE) -> Iterator[str]:
    """The records of a file as they stand; none of a file that is missing.

    Args:
        root: the root.
        path: the file.
        problems: gets a message when records may be missing.
        end: how a whole file ends; what comes after the last blank line of another is left out.
    """
    rest = b""
    hollow = False
    try:
        with root.open(path) as stream:
            if os.fstat(stream.fileno()).st_size > LIMIT:
                problems.note(f"{path}: larger than {LIMIT} bytes")
                return
            while len(rest) <= _RECORD_LIMIT and (block := stream.read(_BLOCK)):
                hollow = hollow or b"\0" in block
                *whole, rest = (rest + block).split(RECORD)
                for text in whole:
                    if text and not text.isspace():
                        yield text.decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        problems.note(f"{path}: {reason(error)}")
    if hollow:  # blocks that a crash left unwritten; the ends of records may be among them
        problems.note(f"{path}: contains NUL bytes")
    if rest and not rest.isspace():
        if rest.endswith(end):
            yield rest.decode("utf-8", "surrogateescape")
        else:  # the managers themselves refuse such a file
            problems.note(f"{path}: ends in the middle of a {'line' if end == LINE else 'record'}")


def parse(text: str, field: re.Pattern[str]) -> Record:
    """The fields of a record that a pattern finds, which begins at a line feed.

    Also empty for a record that has a field twice: two records, whose separator was lost.
    """
    found = field.findall(f"\n{text}")
    record = dict(found)
    return record if len(record) == len(found) else {}
