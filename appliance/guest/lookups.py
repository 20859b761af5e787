"""Which of a tree's missing parts its collectors looked for.

A filesystem that cannot be mounted takes with it what lies below its mountpoint, and nothing else.
So each path that a collector looks up is compared with the missing mountpoints, after its links
have been followed: a table that never looked below one of them lacks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_MOST_LINKS = 40  # as the kernel follows, path_resolution(7)
_MOST_KNOWN = 4096
_MOST_UNSEEN = 10
_ODD = re.compile(r"//|(?:^|/)\.\.?(?:/|$)|./$")  # what a path has that is more than names
_NO_NAMES = ("", ".", "..")

_Place = tuple[str | None, bool]
"""A directory below the top with a slash behind it, and whether anything is missing in it; None
where only resolving it shows."""


@dataclass(frozen=True)
class Lack:
    """A part of a tree that the system has and this scan has not.

    Attributes:
        path: the directory that it lies below; ``/`` when it may lie anywhere.
        reason: why it is not here.
        local: whether it belongs on the machine's disks, so that a walk over all of its files
            is incomplete without it; False for shares of other machines, and for what the system
            itself is content to start without.
    """

    path: str
    reason: str
    local: bool = True

    @property
    def prefix(self) -> str:
        """How ``coverage.unread`` names it: a directory with a slash at its end."""
        return self.path.rstrip("/") + "/"

    def holds(self, path: str) -> bool:
        """Whether a path is in it, its links followed."""
        return f"{path}/".startswith(self.prefix)


def told(lacks: Sequence[Lack]) -> str:
    """Missing parts in words."""
    named = (f"{lack.path} ({lack.reason})" for lack in lacks)
    return f"not mounted: {', '.join(dict.fromkeys(named))}" if lacks else ""


@dataclass
class LostLookups:
    """What some lookups did not find because it is missing; empty when nothing was.

    Attributes:
        lacks: the missing parts that they led into.
        unread: these as prefixes, and the paths that led there by a link.
        unseen: paths of which it is not known whether there is anything, and why; the first few.
    """

    lacks: list[Lack] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    unseen: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.lacks or self.unseen)

    def __str__(self) -> str:
        unseen = [f"{path}: {why}" for path, why in self.unseen.items()]
        return "; ".join(filter(None, [told(self.lacks), *unseen]))

    def add(self, other: LostLookups) -> None:
        """Add what other lookups did not find."""
        self.lacks += [lack for lack in other.lacks if lack not in self.lacks]
        self.unread |= other.unread
        for path, why in other.unseen.items():
            if len(self.unseen) < _MOST_UNSEEN:
                self.unseen[path] = why
                self.unread.add(path)
            elif path not in self.unseen:
                self.unread.add("/")  # more than are named


class _Watch:
    """As :meth:`Lookups.watching` says; a class, since most files are read inside one."""

    __slots__ = ("_before", "_lookups", "_mine")

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    def __enter__(self) -> LostLookups:
        self._before = self._lookups.lost
        self._mine = self._lookups.lost = LostLookups()
        return self._mine

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lookups.lost = self._before
        if kind is not None:
            self._before.add(self._mine)


class Lookups:
    """Compares looked-up paths with what is missing.

    Args:
        lacks: the missing parts, as the system's own files name them.
        link: what a path holds that is a symbolic link; None for any other. Links of its directory
            have been followed.
    """

    def __init__(self, lacks: Sequence[Lack], link: Callable[[str], str | None]) -> None:
        self._link = link
        self._known: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        self.lost = LostLookups()
        self.lacks = tuple(Lack(self.real(lack.path), lack.reason, lack.local) for lack in lacks)

    def missing(self, path: str) -> list[Lack]:
        """The missing parts that a path leads into."""
        return self._holding(self.real(path))

    def _holding(self, place: str) -> list[Lack]:
        return [lack for lack in self.lacks if lack.holds(place)]

    def plain(self, path: str) -> str | None:
        """The path below the top to look up for this one, its directory's links resolved if known.

        It leads where it says unless there are more links in it, and what is missing of it is
        noted. None where only resolving the path itself shows: one with dots, or with a slash too
        many.
        """
        directory, _, name = path.rpartition("/")
        prefix, near = self._places.get(directory) or self._place(directory)
        if prefix is None or name in _NO_NAMES:
            return None
        plain = prefix + name
        if near:
            self._note(path, self._holding(f"/{plain}"))
        return plain

    def _place(self, directory: str) -> _Place:
        """Where a directory is; kept, as most lookups are of directories that had one before."""
        if len(self._places) >= _MOST_KNOWN:
            self._places.clear()
        place: _Place = (None, True)
        if not _ODD.search(directory):
            real = self._known.get(directory, directory).strip("/")
            near = any(
                lack.holds(f"/{real}") or lack.path.rpartition("/")[0].strip("/") == real
                for lack in self.lacks
            )
            place = (f"{real}/" if real else "", near)
        self._places[directory] = place
        return place

    def note(self, path: str) -> None:
        """Remember what is missing of a path that is about to be looked up."""
        self._note(path, self.missing(path))
        # Whether there are links in its directory is known now.
        self._places.pop(path.rpartition("/")[0], None)

    def _note(self, path: str, lacks: list[Lack]) -> None:
        if lacks:
            unread = {lack.prefix for lack in lacks}
            if not any(lack.holds(f"/{path.strip('/')}") for lack in lacks):
                unread.add(f"/{path.strip('/')}/")
            self.lost.add(LostLookups(lacks, unread))

    def add(self, lost: LostLookups) -> None:
        """Remember what was noted at another time."""
        self.lost.add(lost)

    def watching(self) -> _Watch:
        """Do not report what a ``with`` block looks up without success.

        When the block fails, its lookups are those of the block around it as well.
        """
        return _Watch(self)

    def real(self, path: str) -> str:
        """An absolute path without links, dots and double slashes, as far as the tree has it."""
        directory, _, name = path.rstrip("/").rpartition("/")
        if directory not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[directory] = self._real_directory(directory)
        return self._follow(self._known[directory], name)

    def _real_directory(self, directory: str) -> str:
        """As :meth:`real`, from what is known of the directories above."""
        above, parts = directory, []
        while above and above not in self._known:
            above, _, part = above.rpartition("/")
            parts.append(part)
        real = self._known.get(above, "/")
        for part in reversed(parts):
            real = self._follow(real, part)
            above = f"{above}/{part}"
            self._known[above] = real
        return real

    def _follow(self, start: str, path: str) -> str:
        """A path from a directory that has no links itself."""
        done = [part for part in start.split("/") if part]
        waiting = path.split("/")[::-1]
        links = _MOST_LINKS
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            target = self._link("/".join(["", *done, part])) if links else None
            if target is None:
                done.append(part)
                continue
            links -= 1
            if target.startswith("/"):
                done.clear()
            waiting += target.split("/")[::-1]
        return "/" + "/".join(done)
