"""Takes secrets out of text: passwords, tokens, keys, wherever a table, error or log quotes them.

Most texts hold none, which ``sieve`` finds out quickly. A secret is found by the name that
stands before it (``names``), by its own shape or the grammar around it (``shapes``), and by the
program that it is handed to (``commands``). What is found is replaced by `MARKER`; all other text
stays as it is, so that rules still see the rest, and that a secret stands there.

The text is hostile: every search is linear in its length.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from fleetscan.appliance.ground.redaction import commands, shapes, sieve
from fleetscan.appliance.ground.redaction.names import MARKER, is_secret
from fleetscan.appliance.ground.redaction.spans import Span

__all__ = ["MARKER", "is_secret", "redact", "redact_named", "warm_up"]

_LIMIT = 1 << 15
"""Characters of a text that are searched: no setting or command is longer. What follows is left
out as a whole where anything in the text speaks of secrets."""

# Most texts stand in many rows and on many machines: those of the appliance's own tree, which are
# met before the template is made, cost next to nothing in its clones.
_REMEMBERED, _REMEMBERED_LENGTH = 8192, 256


def redact(text: str) -> str:
    """A text with a marker in the place of each secret that it holds.

    >>> redact("backup --password=hunter2 --verbose")
    'backup --password=[redacted] --verbose'
    """
    return _remembered(text) if len(text) <= _REMEMBERED_LENGTH else _redacted(text)


def redact_named(name: str, text: str) -> str:
    """As :func:`redact`, of a value whose name is known: all of it may be the secret.

    >>> redact_named("main/proxy_password", "hunter2")
    '[redacted]'
    """
    if len(name) + len(text) <= _REMEMBERED_LENGTH:
        return _remembered_named(name, text)
    return _redacted_named(name, text)


def warm_up() -> None:
    """Have all patterns compiled, and met."""
    for text in commands.samples():
        redact(f"{text} --password=x https://a:b@c <<< x | cat\nuser=a%b $1$ {{sha}}")
        redact_named("password", text)


def _redacted_named(name: str, text: str) -> str:
    if is_secret(name, text):
        return MARKER
    return redact(shapes.by_grammar(name, text[:_LIMIT]) + text[_LIMIT:])


def _redacted(text: str) -> str:
    if len(text) > _LIMIT:
        return _redacted(text[:_LIMIT]) + MARKER if sieve.is_suspect(text) else text
    # An option with its value may look like a name before one: -pmysecret, and then a database.
    for find in (commands.found, shapes.found):
        text = _without(text, find(text, text.lower()))
    return text


_remembered = functools.lru_cache(_REMEMBERED)(_redacted)
_remembered_named = functools.lru_cache(_REMEMBERED)(_redacted_named)


def _without(text: str, spans: Iterable[Span]) -> str:
    parts = []
    position = 0
    for start, end in sorted(spans):
        if start >= position and start < end:
            parts += [text[position:start], MARKER]
        position = max(position, end)
    return "".join([*parts, text[position:]])
