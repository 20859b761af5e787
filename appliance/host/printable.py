"""Text from elsewhere, made fit to stand in an error message."""

from __future__ import annotations

LIMIT = 300
"""Longest piece of foreign text in a message, in characters: some lines of a terminal."""


def printable(text: str, limit: int = LIMIT) -> str:
    r"""Text with everything unprintable escaped, and cut to a length.

    Control sequences, bidirectional marks and surrogates cannot reach a terminal this way.

    >>> printable("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
