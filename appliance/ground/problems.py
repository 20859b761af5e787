"""What could not be read while rows are gathered: noted as it is met, reported after the rows.

Collectors, and the readers that they use, continue while there is something to read. What
they could not read is noted here, and ends as one error of the table, so that nothing that is
missing passes for absent. Any other exception of a collector is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fleetscan.appliance.ground.schema import UNREAD_FILES, incomplete

_NAMED = 10


@dataclass
class Problems:
    """Notes of what is missing; of very many the first ones. True when there are any."""

    _named: list[str] = field(default_factory=list, init=False)
    _more: int = field(default=0, init=False)
    _unread: set[str] | None = field(default_factory=set, init=False)

    def note(self, problem: str, *unread: str) -> None:
        """Keep a problem for :meth:`finish`.

        Args:
            problem: what is wrong.
            unread: the files whose rows are all that lacks for it; none when more may lack.
        """
        if not unread:
            self._unread = None
        elif self._unread is not None and len(self._unread) <= UNREAD_FILES:
            self._unread.update(unread)
        if len(self._named) < _NAMED:
            self._named.append(problem)
        else:
            self._more += 1

    def extend(self, problems: Iterable[str]) -> None:
        """Keep several, for which more rows may lack than those of some files."""
        for problem in problems:
            self.note(problem)

    def __len__(self) -> int:
        return len(self._named) + self._more

    def __iter__(self) -> Iterator[str]:
        """The problems that are named, and how many more there are."""
        yield from self._named
        if self._more:
            yield f"and {self._more} more"

    def finish(self) -> None:
        """Report what was noted; for the end of a collector.

        Raises:
            UnreadError: all of it was about some files' own rows.
            IncompleteError: something else was noted.
        """
        if self:
            unread = None if self._unread is None else sorted(self._unread)
            raise incomplete("; ".join(self), unread)
