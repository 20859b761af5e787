"""Text and names as SQL, for where nothing can be bound: views, and names of columns."""

from __future__ import annotations


def literal(text: str) -> str:
    """A text as SQL.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name of a table or column as SQL.

    >>> identifier("a")
    '"a"'
    """
    return '"' + name.replace('"', '""') + '"'
