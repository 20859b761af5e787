"""Text from elsewhere, made fit for terminals, logs and error messages."""

from __future__ import annotations

LIMIT = 300
"""Longest piece of foreign text in a message, in characters: some lines of a terminal."""


def escaped(text: str) -> str:
    r"""Text with everything unprintable escaped, however long that becomes.

    Control sequences, bidirectional marks and surrogates cannot reach a terminal this way.

    >>> escaped("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable(text: str, limit: int = LIMIT) -> str:
    r"""The same, cut to a length.

    >>> printable("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    shown = escaped(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
