"""sources.list(5): apt's one-line and deb822 sources.

Augeas' lens knows neither the second form nor most options of the first. Source: sources.list(5)
of apt 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)(?:#.*)?")
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]*):\s*(.*)")

Node = tuple[int, str, str]
"""Line from 1, path (number of the source from 1, and a field's name in lower case), value."""


def one_line(text: str, malformed: list[int]) -> Iterator[Node]:
    """Sources of a ``.list`` file, under the names that the other form gives their fields."""
    source = 0
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            malformed.append(number)
            continue
        source += 1
        names = ("types", "uris", "suites", "components")
        values = (match[1], match[3], match[4], match[5].strip())
        for name, value in zip(names, values, strict=True):
            if value:
                yield number, f"{source}/{name}", value
        for option in (match[2] or "").split():
            name, _, value = option.partition("=")
            yield number, f"{source}/{name.lower()}", value


def deb822(text: str, malformed: list[int]) -> Iterator[Node]:
    """Sources of a ``.sources`` file; continued lines are joined by spaces."""
    source, within = 0, False
    pending: Node | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if line[:1] == "#":
            continue
        if line[:1] in (" ", "\t") and line.strip() and pending:
            pending = (*pending[:2], f"{pending[2]} {line.strip()}".strip())
            continue
        if pending:
            yield pending
            pending = None
        if not line.strip():
            within = False
        elif match := _FIELD.fullmatch(line.rstrip()):
            source += not within
            within = True
            pending = (number, f"{source}/{match[1].lower()}", match[2])
        else:
            malformed.append(number)
    if pending:
        yield pending
