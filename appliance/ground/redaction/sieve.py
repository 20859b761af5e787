"""Tells texts that hold no secret from those that may, many of them at once.

Nearly all texts are innocent, and there are thousands. A test for a substring is the cheapest
search that the interpreter has, so a few dozen of them are made over many texts joined. Only
where one of them succeeds are the texts looked at one by one, with the patterns of the finders.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from fleetscan.appliance.ground.redaction import commands

_NEXT = "\0"  # between texts: neither a blank nor a part of a word

_WORDS = frozenset(
    [
        *("pass", "pw", "psk", "pin", "secret", "token", "cred", "communit", "cookie", "auth"),
        *("key", "bearer", "setenv", "environment", "digital", "amz", "sas"),
    ]
)
"""What names of secrets hold, in lower case."""

_ANY = ("",)
_TOGETHER = {
    "@": ("://", "iscsi:", "cifs:", "smb:", "ftp:", "#", "@tcp(", "@unix("),
    "%": ("user",),
    "=": ("sig=", "signature=", "code="),
    "$": (
        *("$1$", "$2", "$3$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$md5$", "$sha1$", "$apr1$"),
        *("$argon2", "$scrypt$", "$pbkdf2"),
    ),
    "{": ("{md5}", "{smd5}", "{sha", "{ssha", "{crypt}", "{pbkdf2", "{argon2"),
    "_": (
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "k_test_", "npm_"),
        *("dop_v1_", "dckr_pat_"),
    ),
    "gl": ("glpat-", "gldt-", "glrt-"),
    "x": ("xox", "xapp-"),
    ".": ("hvs.", "sg.", "grub.pbkdf2"),
    **dict.fromkeys(("akia", "asia", "aiza", "eyj", "pypi-", "-----begin"), _ANY),
    "trapconfiguration": _ANY,
}
"""What secrets of a known form contain: one of the signs, and one of what follows it."""

_SEPARATORS = ("=", ":", " ", "\t", "\n", "\r", "<")
"""Between a name and its value, where both stand in one text."""

_MARKS = (*_WORDS, *_TOGETHER, *commands.HINTS)


def is_suspect(text: str) -> bool:
    """Whether a text may hold a secret."""
    return bool(_hits(text.lower()))


def suspects(texts: Sequence[str], is_name: Sequence[bool]) -> set[int]:
    """The places of texts that may hold a secret, or the name of one.

    Args:
        texts: the texts of some rows, one after the other.
        is_name: for each text of a row, whether it names another one.
    """
    hits = _hits(_NEXT.join(dict.fromkeys(texts)).lower())
    if not hits:
        return set()
    joined = _NEXT.join(texts).lower()
    ends = _ends(texts)
    if ends[-1] != len(joined) + len(_NEXT):  # a letter that is two in lower case
        ends = _ends([*map(str.lower, texts)])
    return {
        place
        for hit in hits
        for place, text in _places(hit, joined, ends)
        if any(map(text.__contains__, _beside(hit, place, is_name)))
    }


def _ends(texts: Sequence[str]) -> list[int]:
    """Where each text ends, with what is put between them."""
    lengths = itertools.accumulate(map(len, texts))
    return [*map(operator.add, lengths, itertools.count(len(_NEXT), len(_NEXT)))]


def _places(hit: str, joined: str, ends: list[int]) -> Iterator[tuple[int, str]]:
    """The texts that hold a hit, with their places."""
    position = joined.find(hit)
    while position >= 0:
        place = bisect_right(ends, position)
        yield place, joined[ends[place - 1] if place else 0 : ends[place]]
        position = joined.find(hit, ends[place])


def _beside(hit: str, place: int, is_name: Sequence[bool]) -> Sequence[str]:
    """What stands in the same text as a hit, one of it, unless the hit means nothing."""
    if hit in _WORDS:
        return _ANY if is_name[place % len(is_name)] else _SEPARATORS
    if hit == "%" and any(is_name):
        return _ANY  # perhaps its name says "user"
    return _TOGETHER.get(hit, commands.HINTS)


def _hits(lower: str) -> set[str]:
    """What is found in joined texts that may be a part of a secret, or speak of one."""
    marks = set(filter(lower.__contains__, _MARKS))
    hits = marks & _WORDS
    for sign in marks & _TOGETHER.keys():
        if any(map(lower.__contains__, _TOGETHER[sign])):
            hits.add(sign)
    return hits if marks.isdisjoint(commands.HINTS) else hits | commands.programs(lower)
