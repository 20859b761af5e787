"""Text for people: numbers in human units, and guest strings that cannot deceive the eye.

Nothing here escapes for HTML, XML or JSON; each renderer does that for its own format.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

GUEST_LIMIT = 200
"""Characters shown of a guest string, unless the caller sets another limit."""

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_BMP = "\uffff"


def pieces(text: str, limit: int = GUEST_LIMIT) -> Iterator[tuple[str, bool]]:
    r"""Split a guest string into what can be shown as it is and what must be spelt out.

    Control characters, bidirectional overrides, invisible and unassigned characters, and all
    spaces but the plain one are spelt as Python would: ``\x1b``, ``\u202e``.

    Args:
        text: any text, lone surrogates included.
        limit: most characters that the pieces have together; an ellipsis marks what was cut.

    Yields:
        pieces in order, each with whether it is spelt out.
    """
    left = limit
    for shown, group in itertools.groupby(text[: limit + 1], key=str.isprintable):
        for piece in ["".join(group)] if shown else map(_spell, group):
            if len(piece) > left:
                yield (piece[:left] if shown else "") + "…", False
                return
            left -= len(piece)
            yield piece, not shown


def visible(text: str, limit: int = GUEST_LIMIT) -> str:
    r"""A guest string on one line, with nothing in it that is invisible or moves the cursor.

    >>> visible("a\x1b[2J\u202eb")
    'a\\x1b[2J\\u202eb'
    """
    return "".join(piece for piece, _ in pieces(text, limit))


def chart_text(text: str, limit: int) -> str:
    r"""A guest string that the chart renderer can take.

    vl-convert 1.9 aborts the process on characters that XML does not allow, and fails on those
    beyond U+FFFF; both are spelt out.

    >>> chart_text("\U0001f600", 20)
    '\\U0001f600'
    """
    spelt = (char if char <= _LAST_BMP else _spell(char) for char in text[: limit + 1])
    return visible("".join(spelt), limit)


def _spell(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def human_bytes(size: int) -> str:
    """A number of bytes in binary units, as IEC 80000-13 names them.

    >>> human_bytes(1023), human_bytes(1536), human_bytes(200 << 30)
    ('1,023 B', '1.5 KiB', '200 GiB')
    """
    value, unit = float(size), "B"
    for larger in _UNITS:
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    digits = 0 if unit == "B" or value >= 99.95 else 1
    return f"{value:,.{digits}f} {unit}"


def percent(part: int, whole: int) -> str:
    """A share with one decimal, never rounded to all or to nothing.

    >>> percent(9999, 10000), percent(1, 10000), percent(3, 3), percent(0, 0)
    ('99.9 %', '0.1 %', '100 %', 'n/a')
    """
    if whole == 0:
        return "n/a"
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def count(number: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """A span of time in its two largest units.

    >>> duration(0.42), duration(75), duration(7380)
    ('0.4 s', '1 min 15 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return "n/a"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def when(moment: datetime) -> str:
    """A moment in UTC, to the minute, for people."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def iso(moment: datetime) -> str:
    """A moment in UTC as RFC 3339 writes it, to the microsecond."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def from_epoch(microseconds: int) -> datetime:
    """The moment of a ``timestamp`` column's value.

    Args:
        microseconds: since 1970-01-01 00:00 UTC.

    Raises:
        OverflowError: it is outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=microseconds)
