"""YAML that remembers where its lines are, so that errors name file and line.

Every problem of every file is collected before anything is raised: a person who edits rules sees
all that is wrong at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner import bounded_yaml

MAX_BYTES = 2 << 20
"""Longest file, in bytes: sixteen thousand waivers, or a hundred times the longest of our packs.
PyYAML takes 16 s for as much, and a minute for the worst."""

_MOST_SHOWN = 100  # problems; nobody corrects more at once

T = TypeVar("T")
Location = tuple[str | int, ...]
"""Keys and list positions from a document's top to one of its values."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a file.

    Attributes:
        path: the file.
        line: line of the value, from 1; 0 when the file as a whole is meant.
        message: what is wrong.
    """

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.message}"


class SourceError(ValueError):
    """A file cannot be used; carries its problems until they are raised together."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Document:
    """One YAML document.

    Attributes:
        path: the file it was read from.
        value: its content as plain Python values.
        lines: line of each value, from 1, by its location.
    """

    path: Path
    value: Any  # plain YAML data; its shape is checked by the models
    lines: dict[Location, int]

    def problem(self, location: Location, message: str) -> Problem:
        """A problem with the value at a location, or with the nearest value around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return Problem(self.path, self.lines.get(location, 1), message)

    def items(self) -> list[Document]:
        """Each item of a list as a document of its own, lines kept; else the document itself."""
        if not isinstance(self.value, list):
            return [self]
        lines: list[dict[Location, int]] = [{} for _ in self.value]
        for (index, *rest), line in (pair for pair in self.lines.items() if pair[0]):
            lines[int(index)][tuple(rest)] = line
        return [Document(self.path, *pair) for pair in zip(self.value, lines, strict=True)]

    def parse(self, kind: type[T]) -> T:
        """The document as an instance of a pydantic model.

        Raises:
            SourceError: it does not fit; every misfit is a problem with its line.
        """
        try:
            return pydantic.TypeAdapter(kind).validate_python(self.value)
        except pydantic.ValidationError as error:
            raise SourceError(
                self.problem(item["loc"], _explain(item["loc"], item["msg"]))
                for item in error.errors(include_url=False)
            ) from None


def _explain(location: Location, message: str) -> str:
    names = [str(key) for key in location if isinstance(key, str)]
    message = message.removeprefix("Value error, ")
    return f"{'.'.join(names)}: {message}" if names else message


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SourceError([Problem(path, 0, f"is larger than {MAX_BYTES >> 20} MiB")])
    return data.decode("utf-8")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not UTF-8 text: {error}"


def read(path: Path) -> Document:
    """Read a file that holds one YAML document.

    Raises:
        SourceError: it cannot be read, is not such a file, too long or nested too deep.
    """
    try:
        parsed = bounded_yaml.parse(_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError([Problem(path, 0, f"cannot be read: {_reason(error)}")]) from error
    except bounded_yaml.RefusedError as error:
        raise SourceError([Problem(path, error.line, str(error))]) from error
    if parsed.node is None:
        raise SourceError([Problem(path, 0, "the file is empty")])
    lines: dict[Location, int] = {}
    _note_lines(parsed.node, (), lines)
    return Document(path, parsed.value, lines)


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int]) -> None:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*location, index), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            place = (*location, str(key.value))
            _note_lines(item, place, lines)
            lines[place] = key.start_mark.line + 1


def usage_error(problems: Iterable[Problem]) -> UsageError:
    """All problems as the one error that the user sees."""
    found = sorted(set(problems))
    if len(found) == 1:
        return UsageError(str(found[0]))
    more = len(found) - _MOST_SHOWN
    shown = [*map(str, found[:_MOST_SHOWN]), *([f"and {more} more"] if more > 0 else [])]
    return UsageError("\n".join([f"{len(found)} problems:", *shown]))
