"""sshd_config(5): keywords, quoted arguments, Match blocks and Include.

Source: sshd_config(5), ssh_config(5), strdelim and argv_split of OpenSSH 9.

Shared with ``ssh_keys``: AuthorizedKeysFile says where keys are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_BLANKS = " \t\r"
_TOKEN_ENDS = re.compile(r'[ \t\r"=]')
_KEYWORD = re.compile(r"[A-Za-z0-9]+")
_MAGIC = re.compile(r"[*?\[]")
_ESCAPED = frozenset("'\"\\")
_MAX_DEPTH = 16  # as OpenSSH's own SERVCONF_MAX_DEPTH
_MAX_FILES = 1000  # files that include each other grow by powers


class ConfigFiles(Protocol):
    """Where the files come from."""

    def try_text(self, path: str) -> str | None:
        """A file's text, or None where there is none."""

    def glob(self, directory: str, pattern: str = "*") -> list[str]:
        """Paths in a directory whose names match, sorted."""


@dataclass(frozen=True)
class SshdLine:
    """One setting.

    Attributes:
        file, line: where it stands; lines count from 1.
        name: the keyword in lower case.
        value: its arguments without quotes.
        conditions: the Match blocks around it, the outermost first, as they are written. All of
            them must hold: a block that includes a file holds for the blocks in that file as well.
    """

    file: str
    line: int
    name: str
    value: str
    conditions: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The name after its conditions, in lower case."""
        return "/".join([*(f"match {one.lower()}" for one in self.conditions), self.name])


class SshdReader:
    """Reads a server's configuration in the server's order."""

    def __init__(self, files: ConfigFiles) -> None:
        self._files = files
        self._read = 0

    def settings(
        self, path: str, around: tuple[str, ...] = (), depth: int = 0
    ) -> Iterator[SshdLine]:
        """All settings of a file, what it includes in its place.

        Args:
            path: the file; nothing comes of one that is not there.
            around: the Match blocks that include it.
            depth: how many files include it in turn.

        Raises:
            ValueError: files include each other too deeply.
        """
        self._count(path)
        if depth > _MAX_DEPTH:
            raise ValueError(f"{path}: files include each other without end")
        conditions = around
        for number, text in enumerate((self._files.try_text(path) or "").split("\n"), start=1):
            name, rest = keyword(text)
            if not name or not rest:
                continue
            value = " ".join(arguments(rest))
            if name == "match":
                conditions = (*around, value)  # a block lasts to the next one or the file's end
                continue
            yield SshdLine(path, number, name, value, conditions)
            if name == "include":
                for included in self._included(rest):
                    yield from self.settings(included, conditions, depth + 1)

    def _count(self, path: str) -> None:
        self._read += 1
        if self._read > _MAX_FILES:
            raise ValueError(f"{path}: files include each other without end")

    def _included(self, text: str) -> Iterator[str]:
        for argument in arguments(text):
            yield from self._matching(
                argument if argument.startswith("/") else f"/etc/ssh/{argument}"
            )

    def _matching(self, pattern: str) -> list[str]:
        """Paths that match a pattern as glob(3) would expand it, sorted."""
        found = [""]
        for name in pattern.strip("/").split("/"):
            if _MAGIC.search(name):
                found = [path for folder in found for path in self._entries(folder, name)]
            else:
                found = [f"{folder}/{name}" for folder in found]
        return found

    def _entries(self, folder: str, pattern: str) -> list[str]:
        self._count(folder)
        paths = self._files.glob(folder or "/", pattern.replace("[^", "[!"))
        if pattern.startswith("."):
            return paths
        return [path for path in paths if not path.rpartition("/")[2].startswith(".")]


def keyword(text: str) -> tuple[str, str]:
    """A line's keyword, in lower case, and what follows it; an empty one if it has none."""
    text = text.strip(f"{_BLANKS}\f") if text[:1] != "\f" else ""
    name, rest = token(text)
    return (name.lower(), rest) if _KEYWORD.fullmatch(name) else ("", "")


def token(text: str) -> tuple[str, str]:
    """The first word of a line and the rest, as strdelim parts them: one "=" is a blank too."""
    end = _TOKEN_ENDS.search(text)
    if end is None:
        return text, ""
    if end[0] == '"':
        word, _, rest = (text[: end.start()] + text[end.end() :]).partition('"')
        return word, rest.lstrip(_BLANKS)
    rest = text[end.end() :].lstrip(_BLANKS)
    if end[0] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(_BLANKS)
    return text[: end.start()], rest


def arguments(text: str) -> list[str]:
    """The words of a line without their quotes, up to a comment, as argv_split parts them."""
    words: list[str] = []
    rest = text.lstrip(_BLANKS)
    while rest and not rest.startswith("#"):
        word, rest = _argument(rest)
        words.append(word)
    return words


def _argument(text: str) -> tuple[str, str]:
    word, quote, place = "", "", 0
    while place < len(text):
        letter, following = text[place], text[place + 1 : place + 2]
        place += 1
        if letter == "\\" and following in (_ESCAPED if quote else {*_ESCAPED, " "}):
            word += following
            place += 1
        elif letter in _BLANKS and not quote:
            break
        elif letter == quote:
            quote = ""
        elif letter in "'\"" and not quote:
            quote = letter
        else:
            word += letter
    return word, text[place:].lstrip(_BLANKS)
