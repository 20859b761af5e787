"""The state of a fleet: how many checks ended in each state, and the rules' texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleetscan.scanner.tables.results.spec import (
    DECIDED,
    UNDECIDED,
    ResultState,
)

WORDS: Mapping[ResultState, str] = {
    ResultState.FAIL: "failed",
    ResultState.ERROR: "error",
    ResultState.UNKNOWN: "unknown",
    ResultState.NOTCHECKED: "not checked",
    ResultState.WAIVED: "waived",
    ResultState.PASS: "passed",
    ResultState.INFORMATIONAL: "informational",
    ResultState.NOTAPPLICABLE: "not applicable",
    ResultState.NOTSELECTED: "not selected",
}
"""States as words beside numbers."""


@dataclass(frozen=True)
class Tally:
    """How many checks ended in each state; a check is one rule on one machine or root."""

    counts: Mapping[str, int]

    def __getitem__(self, state: str) -> int:
        return self.counts.get(state, 0)

    def of(self, states: Sequence[str]) -> int:
        """Checks in any of these states."""
        return sum(self[state] for state in states)

    @property
    def total(self) -> int:
        """All checks."""
        return sum(self.counts.values())

    @property
    def decided(self) -> int:
        """Checks with a verdict: the denominator of the pass rate."""
        return self.of(DECIDED)

    @property
    def undecided(self) -> int:
        """Checks that should have a verdict and have none."""
        return self.of(UNDECIDED)

    @property
    def present(self) -> list[tuple[ResultState, int]]:
        """States that occur, in order."""
        return [(state, self[state]) for state in ResultState if self[state]]


class RuleText(Protocol):
    """What a report says about a rule besides its results."""

    @property
    def id(self) -> str:
        """The rule's identifier, as in the results."""

    @property
    def title(self) -> str:
        """What must hold, in one line."""

    @property
    def failing(self) -> str | None:
        """What is wrong where it fails, in one line; None to show the title there too."""

    @property
    def severity(self) -> str:
        """How serious a failure is: a value of ``results.severity``."""

    @property
    def rationale(self) -> str:
        """Why it matters."""

    @property
    def remediation(self) -> str:
        """What to do about a failure."""

    @property
    def references(self) -> Mapping[str, Sequence[str]]:
        """Catalogue, such as CIS, to its entries."""


@dataclass(frozen=True)
class Words:
    """A rule's texts, as :class:`RuleText` asks for them, and nothing else of it."""

    id: str
    title: str
    failing: str | None
    severity: str
    rationale: str
    remediation: str
    references: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, rule: RuleText) -> Words:
        """The texts of a rule."""
        texts = (rule.severity, rule.rationale, rule.remediation, rule.references)
        return cls(rule.id, rule.title, rule.failing, *texts)
