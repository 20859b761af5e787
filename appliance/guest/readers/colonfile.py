"""The colon-separated account files: passwd(5), shadow(5), group(5), gshadow(5).

Shared by the collectors of users, groups and files. Lines are read as glibc's "files" module
reads them, because what it accepts can log in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LINES_NAMED = 10
"""How many malformed lines a message names."""

_ID = re.compile(r"[0-9]{1,10}")
_ID_MAX = 2**32 - 1
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # all but tab and line ends


def records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number, from 1, and fields of every entry.

    Blank lines and comments are left out, and so are "+" and "-" lines, which refer to NIS.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.lstrip()
        if entry and entry[0] not in "#+-":
            yield number, entry.split(":")


def is_id(field: str) -> bool:
    """Whether a field is a user or group number as the kernel knows them."""
    return _ID.fullmatch(field) is not None and int(field) <= _ID_MAX


def names_by_id(text: str) -> dict[int, str]:
    """Names of passwd(5) or group(5) text by number; the first entry of a number counts."""
    names: dict[int, str] = {}
    for _, fields in records(text):
        if len(fields) > 2 and fields[0] and is_id(fields[2]):
            names.setdefault(int(fields[2]), fields[0])
    return names


def damage(path: str, text: str, colons: int) -> list[str]:
    """Signs that a file is damaged as a whole: one message each.

    Args:
        path: the file.
        text: its content.
        colons: how many a whole line has; the last one may lack its line feed.
    """
    problems = []
    if "\0" in text:  # blocks that a crash left unwritten
        problems.append(f"{path}: contains NUL bytes")
    elif _CONTROL.search(text):  # no tool writes any: other blocks are there
        problems.append(f"{path}: contains control characters")
    last = text.rpartition("\n")[2]
    if last and last.count(":") < colons:
        problems.append(f"{path}: ends in the middle of a line")
    return problems


def malformed(path: str, lines: list[int]) -> str:
    """One message that names a file's malformed lines."""
    named = ", ".join(map(str, lines[:LINES_NAMED]))
    more = f" and {len(lines) - LINES_NAMED} more" if len(lines) > LINES_NAMED else ""
    return f"{path}: malformed line{'s' if len(lines) > 1 else ''} {named}{more}"
