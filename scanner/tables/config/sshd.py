"""sshd_config(5): keywords, quoted arguments, Match blocks and Include.

Source: sshd_config(5) and ssh_config(5) of OpenSSH 9.

Shared with ``ssh_keys``: AuthorizedKeysFile says where keys lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_LINE = re.compile(r"^\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$")
_ARGUMENT = re.compile(r'"([^"]*)"|(\S+)')
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
    """One setting: file, line from 1, name in lower case with its condition, value."""

    file: str
    line: int
    path: str
    value: str


class SshdReader:
    """Reads a server's configuration in the server's order."""

    def __init__(self, files: ConfigFiles) -> None:
        self._files = files
        self._read = 0

    def settings(self, path: str, condition: str = "", depth: int = 0) -> Iterator[SshdLine]:
        """All settings of a file, what it includes in its place.

        Args:
            path: the file; nothing comes of one that is not there.
            condition: the Match block that includes it, in lower case.
            depth: how many files include it in turn.

        Raises:
            ValueError: files include each other too deeply.
        """
        self._read += 1
        if depth > _MAX_DEPTH or self._read > _MAX_FILES:
            raise ValueError(f"{path}: files include each other without end")
        for number, text in enumerate((self._files.try_text(path) or "").split("\n"), start=1):
            match = _LINE.match(text)
            if match is None:
                continue
            name, value = match[1].lower(), _unquoted(match[2])
            if name == "match":
                # A block lasts to the next one or the file's end; "all" ends it.
                condition = "" if value.lower() == "all" else f"match {value.lower()}"
                continue
            yield SshdLine(path, number, f"{condition}/{name}" if condition else name, value)
            if name == "include":
                for included in self._included(match[2]):
                    yield from self.settings(included, condition, depth + 1)

    def _included(self, arguments: str) -> Iterator[str]:
        for argument in _arguments(arguments):
            path = argument if argument.startswith("/") else f"/etc/ssh/{argument}"
            directory, _, pattern = path.rpartition("/")
            yield from self._files.glob(directory or "/", pattern)


def _arguments(text: str) -> list[str]:
    words = []
    for quoted, plain in _ARGUMENT.findall(text):
        if plain.startswith("#"):
            break
        words.append(quoted or plain)
    return words


def _unquoted(text: str) -> str:
    return " ".join(_arguments(text))
