"""Sections of a report: if one cannot be computed, only that one is missing, and says why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import duckdb

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host.printable import printable

log = logging.getLogger(__name__)

T = TypeVar("T")

# After one of these neither the connection nor the process can be trusted with another query.
_SPENT = (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException, MemoryError)


class SectionLostError(FleetscanError):
    """A section cannot be computed, and neither can later ones in this process.

    Attributes:
        section: its name.
        reason: why.
    """

    def __init__(self, section: str, reason: str) -> None:
        super().__init__(f"the report's section {section} cannot be computed: {reason}")
        self.section = section
        self.reason = reason


class Sections:
    """Computes a report's sections.

    Args:
        lost: sections that were tried before, and why they could not be computed.
        starting: called with each section's name before the section is computed.
    """

    def __init__(
        self,
        lost: Mapping[str, str] | None = None,
        starting: Callable[[str], None] = lambda section: None,
    ) -> None:
        self.problems = dict(lost or {})
        self.starting = starting

    def get(self, section: str, compute: Callable[[], T], otherwise: T) -> T:
        """What a section holds; something else when it cannot be computed.

        Raises:
            SectionLostError: it cannot, and the rest cannot be either.
        """
        if section in self.problems:
            return otherwise
        self.starting(section)
        try:
            return compute()
        except Exception as error:
            self.problems[section] = reason = why(error)
            if isinstance(error, _SPENT):
                raise SectionLostError(section, reason) from error
            log.warning("the report's section %s cannot be computed: %s", section, reason)
            return otherwise


def why(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return printable(text or type(error).__name__)
