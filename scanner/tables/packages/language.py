"""Packages of programming languages, where they are on disk.

A default scan looks into the places of each language's own tools; with ``--packages all`` the whole
tree is walked, and Java archives and Go programs, which must be opened to be recognised, are
opened too.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.spec import Package

ENTRIES = 20_000_000
"""Most directory entries that a walk of the whole tree looks at."""


class Language(Protocol):
    """What a language's module offers."""

    def places(self, root: Root) -> Iterator[str]:
        """Directories that its own tools install into; none where that may be anywhere."""

    def records(self, directory: str, names: Sequence[str]) -> Iterator[str]:
        """Entries of a directory, links aside, that may describe packages."""

    def read(self, root: Root, path: str) -> Iterator[Package]:
        """The packages that a path describes; none when it is something else.

        Raises:
            OSError, ValueError: it cannot be read, or is damaged.
        """


@functools.cache
def load_languages() -> tuple[Language, ...]:
    """All languages, by name: one module each in ``languages/``."""
    folder = Path(__file__).with_name("languages")
    return tuple(map(_load, sorted(path.stem for path in folder.glob("[!_]*.py"))))


def _load(name: str) -> Language:
    module: Any = importlib.import_module(f"fleetscan.scanner.tables.packages.languages.{name}")
    return module  # type: ignore[no-any-return] # a module of that folder has these functions


def collect(reader: Reader) -> Iterator[Package]:
    """One row a package found.

    Args:
        reader: of the root, whose options say where to look; notes what cannot be read.
    """
    root = reader.root
    everywhere = root.options.packages == "all"
    walked = walk(reader) if everywhere else _known(root)
    for languages, directory, names in walked:
        for language in languages:
            for path in language.records(directory, names):
                try:
                    yield from language.read(root, path)
                except FileNotFoundError:
                    pass  # what an interrupted removal left is not a package
                except (OSError, ValueError, RecursionError) as error:
                    reader.note(f"{path}: {reason(error)}", path)


def _known(root: Root) -> Iterator[tuple[Sequence[Language], str, list[str]]]:
    for language in load_languages():
        for directory in language.places(root):
            yield (language,), directory, root.listdir(directory)


def walk(
    reader: Reader, entries: int = ENTRIES
) -> Iterator[tuple[Sequence[Language], str, list[str]]]:
    """Every directory of the tree, with its entries that are not links."""
    languages = load_languages()
    pending, unread, first = [""], 0, ""
    while pending and entries > 0:
        directory = pending.pop()
        try:
            names, below = _entries(reader.root, directory or "/")
        except OSError as error:
            unread += 1
            first = first or f"{directory}: {reason(error)}"
            continue
        entries -= len(names)
        pending += [f"{directory}/{name}" for name in below]
        yield languages, directory, names
    if pending:
        reader.note("looking for packages ended early: too many directory entries")
    if unread:
        reader.note(f"{unread} directories unreadable, the first: {first}")


def _entries(root: Root, directory: str) -> tuple[list[str], list[str]]:
    """Names of a directory's entries, and those of its directories among them."""
    descriptor = root.open_fd(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    names, below = [], []
    try:
        with os.scandir(descriptor) as listed:
            for entry in listed:
                if not entry.is_symlink():
                    names.append(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
    finally:
        os.close(descriptor)
    return sorted(names), sorted(below, reverse=True)
