"""SysV scripts: what their headers say, and the run levels that start them.

Headers are those of the LSB (init scripts' comment conventions) and of Red Hat's chkconfig(8).
Parsers of text and names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fleetscan.scanner.tables.services.spec import Service

RUN_LEVELS = ("S", "0", "1", "2", "3", "4", "5", "6")
STARTING_LEVELS = frozenset("S2345")
"""Run levels in which a system works; S is passed through on the way to each of them."""

_LINK = re.compile(r"([SK])[0-9]{2}(.+)")
_LSB_BEGIN, _LSB_END = "### BEGIN INIT INFO", "### END INIT INFO"
_LSB_SUMMARY = re.compile(r"#\s*Short-Description:\s*(.*)", re.IGNORECASE)
_CHKCONFIG = re.compile(r"#\s*chkconfig:\s*(?:[0-9]+|-)\s+[0-9]+\s+[0-9]+")
_CHKCONFIG_SUMMARY = re.compile(r"#\s*description:\s*(.*?)\\?", re.IGNORECASE)
_HEADER_LINES = 100


def parse_links(names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Scripts that a run level's links start, and all that it has links for."""
    matches = [match for name in names if (match := _LINK.fullmatch(name))]
    return {match[2] for match in matches if match[1] == "S"}, {match[2] for match in matches}


def parse_header(text: str) -> tuple[bool, str | None]:
    """Whether a script says to be a service, and its one-line description."""
    lsb = chkconfig = within = False
    summary = None
    for line in text.split("\n", _HEADER_LINES)[:_HEADER_LINES]:
        stripped = line.strip()
        if stripped == _LSB_BEGIN:
            lsb = within = True
        elif stripped == _LSB_END:
            within = False
        elif within and (match := _LSB_SUMMARY.fullmatch(stripped)):
            summary = match[1].strip() or summary
        elif _CHKCONFIG.match(stripped):
            chkconfig = True
        elif chkconfig and not summary and (match := _CHKCONFIG_SUMMARY.fullmatch(stripped)):
            summary = match[1].strip() or None
    return lsb or chkconfig, summary


def service(
    path: str, text: str, starts: Mapping[str, set[str]], linked: Iterable[str]
) -> Service | None:
    """The row for a script; None for a file that is not a service.

    Args:
        path: the script.
        text: its content.
        starts: scripts that each run level starts.
        linked: scripts that any run level has a link for.
    """
    name = path.rpartition("/")[2]
    declared, summary = parse_header(text)
    if not declared and name not in linked:
        return None
    levels = tuple(level for level in RUN_LEVELS if name in starts.get(level, ()))
    return Service(
        name=name,
        manager="sysv",
        kind="service",
        state="enabled" if STARTING_LEVELS.intersection(levels) else "disabled",
        path=path,
        description=summary,
        wanted_by=levels,
        aliases=(),
    )
