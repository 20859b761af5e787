"""What a kind of source is: how the user names one, and which machines it yields.

Each module of ``kinds/`` has one, as ``KIND``, and is found by being there. The command line
imports all of them, so what is slow to import is imported when machines are asked for.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.sources.base import Machine, SourceOptions


class SourceKind(ABC):
    """A kind of source.

    Attributes:
        name: what people call it, which is its module's name.
        form: what the user gives, in words that follow "give".
        rank: kinds of a lower rank are asked first whether a source is theirs.
        flag: an option of ``fleetscan scan`` whose values name such sources as well; empty if
            there is none.
        metavar: what stands for that option's value in the help.
        help: what that option does.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    rank: ClassVar[int] = 0
    flag: ClassVar[str] = ""
    metavar: ClassVar[str] = ""
    help: ClassVar[str] = ""

    @abstractmethod
    def accepts(self, source: str) -> bool:
        """Whether a text names such a source.

        Raises:
            UsageError: the source cannot be read.
        """

    @abstractmethod
    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        """The machines of a source; those that the options do not want may be among them.

        No image is opened for more than its header.

        Raises:
            UsageError: what the user named is malformed.
        """

    def named(self, value: str) -> str:
        """The source that a value of the kind's option names."""
        return value

    def absolute(self, source: str) -> str:
        """The source as it is named from any working directory."""
        return str(Path(source).absolute())

    def identity(self, source: str) -> str:
        """What two names of the same source have in common."""
        return os.path.realpath(source)


def is_there(source: str) -> bool:
    """Whether a path exists.

    Raises:
        UsageError: the source cannot be read.
    """
    try:
        return Path(source).exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"source {source!r} cannot be read: {error}") from error
