"""Parser of the .job files in which Windows kept scheduled tasks until XP and Server 2003.

Source: Microsoft's [MS-TSCH] 2.4, ".JOB file format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = struct.Struct("<20xHH24xI")  # where the texts and the triggers begin, flags
_TRIGGER = struct.Struct("<4x8HIIII3H6x")
_LIMIT = 48  # triggers that a task may have
_DISABLED = 0x4  # of a task, and of a trigger
_HAS_END = 0x1

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKS = ("", "first", "second", "third", "fourth", "last")


@dataclass(frozen=True)
class Job:
    """A task: its command with arguments, its triggers in words, and whether it is on."""

    command: str
    schedule: str
    enabled: bool


def parse(content: bytes) -> Job:
    """The task of a file.

    Raises:
        ValueError: it is cut off, or none.
    """
    try:
        texts_at, triggers_at, flags = _HEAD.unpack_from(content)
        program, at = _text(content, texts_at)
        arguments, _ = _text(content, at)
        triggers = list(_triggers(content, triggers_at))
    except struct.error as error:
        raise ValueError(f"is not a task: {error}") from error
    if not program:
        raise ValueError("is not a task: it runs nothing")
    return Job(" ".join(filter(None, (program, arguments))), "; ".join(triggers), _is_on(flags))


def _is_on(flags: int) -> bool:
    return not flags & _DISABLED


def _text(content: bytes, at: int) -> tuple[str, int]:
    """A text, before which its length stands, end mark included; and what follows it."""
    (length,) = struct.unpack_from("<H", content, at)
    end = at + 2 + 2 * length
    if end > len(content):
        raise ValueError("is not a task: a string is cut off")
    return content[at + 2 : end].decode("utf-16-le", "replace").rstrip("\0"), end


def _triggers(content: bytes, at: int) -> Iterator[str]:
    (count,) = struct.unpack_from("<H", content, at)
    if count > _LIMIT:
        raise ValueError(f"is not a task: it has {count} triggers")
    for number in range(count):
        yield _words(*_TRIGGER.unpack_from(content, at + 2 + number * _TRIGGER.size))


def _words(*fields: int) -> str:
    year, month, day, *end, hour, minute, duration, interval, flags, kind, first, second, third = (
        fields
    )
    start = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}"
    words = [_when(kind, start, first, second, third)]
    if interval:
        words.append(f"repeated every {interval} minutes for {duration} minutes")
    if flags & _HAS_END:
        words.append("until {:04}-{:02}-{:02}".format(*end))
    if not _is_on(flags):
        words.append("(disabled)")
    return " ".join(words)


def _when(kind: int, start: str, first: int, second: int, third: int) -> str:
    if kind == 0:
        return f"once at {start}"
    if kind == 1:
        return f"every {first} days from {start}"
    if kind == 2:
        return f"every {first} weeks on {_bits(_DAYS, second)} from {start}"
    if kind == 3:
        days = ", ".join(str(bit + 1) for bit in range(31) if (first | second << 16) & 1 << bit)
        return f"days {days} of {_bits(_MONTHS, third)} from {start}"
    if kind == 4:
        week = _WEEKS[first] if first < len(_WEEKS) else str(first)
        return f"{week} {_bits(_DAYS, second)} of {_bits(_MONTHS, third)} from {start}"
    return {5: "when idle", 6: "at boot", 7: "at logon"}.get(kind, f"trigger {kind}")


def _bits(names: tuple[str, ...], bits: int) -> str:
    return ", ".join(name for bit, name in enumerate(names) if bits & 1 << bit)
