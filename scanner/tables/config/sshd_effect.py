"""Which settings of an OpenSSH server decide for some login.

A server reads its configuration twice: first without a login, where the first setting of a name
outside Match blocks counts, then for each login, where the first one in a block that holds replaces
it. So a setting is without effect only if its own conditions cannot hold, or if an earlier one of
the same rank holds wherever it does, or, outside blocks, if one in a block always holds.

What a login comes from (address, host, port) is not known: such a condition may hold or not.

Source: servconf.c (match_cfg_line, parse_server_match_config) and match.c of OpenSSH 9 and 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fleetscan.scanner.tables.config.sshd import SshdLine, token

LISTS = frozenset(
    (
        *("acceptenv", "allowgroups", "allowusers", "denygroups", "denyusers", "hostcertificate"),
        *("hostkey", "include", "listenaddress", "logverbose", "port", "setenv", "subsystem"),
    )
)
"""Keywords of which every setting adds to those before it."""

_ALIASES = {"challengeresponseauthentication": "kbdinteractiveauthentication"}

_MOST_BLOCKS = 500  # that are compared; what more of them shadow counts as in force

Atom = tuple[str, str]
"""A criterion that may hold or not: its name and its patterns."""


@dataclass(frozen=True)
class SshLogin:
    """Who logs in, as far as it is known.

    Attributes:
        user: the account; None for any.
        groups: its groups; None if they are not known.
    """

    user: str | None = None
    groups: tuple[str, ...] | None = None


def in_force(lines: Sequence[SshdLine], login: SshLogin) -> list[bool | None]:
    """Whether each setting decides for some login; None for keywords that collect their values."""
    needs = {one: _needs(one, login) for one in {line.conditions for line in lines}}
    blocks: dict[str, set[frozenset[Atom]]] = {}
    outside: set[str] = set()
    found: list[bool | None] = []
    for line in lines:
        name, need = _name(line), needs[line.conditions]
        if name in LISTS:
            found.append(None)
        elif not line.conditions:
            found.append(name not in outside)
            outside.add(name)
        else:
            found.append(need is not None and _adds(blocks.setdefault(name, set()), need))
    replaced = {name for name, earlier in blocks.items() if frozenset() in earlier}
    return [
        False if one and not line.conditions and _name(line) in replaced else one
        for line, one in zip(lines, found, strict=True)
    ]


def _name(line: SshdLine) -> str:
    return _ALIASES.get(line.name, line.name)


def _adds(earlier: set[frozenset[Atom]], need: frozenset[Atom]) -> bool:
    """Whether a block may hold where none of the earlier ones does; it becomes one of them."""
    if need in earlier or any(one <= need for one in earlier):
        return False
    if len(earlier) < _MOST_BLOCKS or not need:
        earlier.add(need)
    return True


def _needs(conditions: Iterable[str], login: SshLogin) -> frozenset[Atom] | None:
    """What must come true for blocks to hold for a login; None if they cannot."""
    needs: set[Atom] = set()
    for condition in conditions:
        for name, patterns in _criteria(condition):
            holds = _holds(name, patterns, login)
            if holds is False:
                return None
            if holds is None:
                needs.add((name, patterns))
    return frozenset(needs)


def _criteria(condition: str) -> Iterator[Atom]:
    rest = condition
    while rest:
        name, rest = token(rest)
        name = name.lower()
        if name in ("all", "invalid-user"):
            yield name, ""
        else:
            patterns, rest = token(rest)
            yield name, patterns


def _holds(name: str, patterns: str, login: SshLogin) -> bool | None:
    if name == "all":
        return True
    if name == "invalid-user":
        return None if login.user is None else False
    if name == "user" and login.user is not None:
        return matches(login.user, patterns)
    if name == "group" and login.groups is not None:
        return _any_matches(login.groups, patterns)
    listed = patterns.split(",")
    if all(one.startswith("!") for one in listed):
        return False  # nothing but exceptions matches nothing
    return True if listed == ["*"] and name in ("user", "address", "host") else None


def matches(text: str, patterns: str) -> bool:
    """Whether a text matches a list of patterns: one of them, and none with "!" before it."""
    listed = patterns.split(",")
    if any(_matches(text, one[1:]) for one in listed if one.startswith("!")):
        return False
    return any(_matches(text, one) for one in listed if not one.startswith("!"))


def _any_matches(texts: Iterable[str], patterns: str) -> bool:
    excluded = [one[1:] for one in patterns.split(",") if one.startswith("!")]
    names = tuple(texts)
    if any(_matches(name, one) for name in names for one in excluded):
        return False
    return any(matches(name, patterns) for name in names)


def _matches(text: str, pattern: str) -> bool:
    """OpenSSH's patterns: only "*" and "?"; linear, as guests choose both."""
    parts = re.sub(r"\*+", "*", pattern).split("*")
    if len(parts) == 1:
        return len(text) == len(pattern) and _alike(text, pattern)
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not _alike(text[: len(first)], first):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        starts = range(place, end - len(part) + 1)
        found = next((at for at in starts if _alike(text[at : at + len(part)], part)), None)
        if found is None:
            return False
        place = found + len(part)
    return _alike(text[end:], last)


def _alike(text: str, pattern: str) -> bool:
    return all(wanted in ("?", got) for got, wanted in zip(text, pattern, strict=True))
