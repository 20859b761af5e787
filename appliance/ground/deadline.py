"""Deadlines: one object says how long a piece of work may still take."""

from __future__ import annotations

import time

from fleetscan.appliance.ground.errors import DeadlineError


class Deadline:
    """A point in time by which something must be done.

    Args:
        seconds: time from now.
        doing: what must be done by then, for the error's text.
    """

    def __init__(self, seconds: float, doing: str) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._doing = doing

    def left(self) -> float:
        """Seconds left, always positive.

        Raises:
            DeadlineError: there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def missed(self) -> DeadlineError:
        """The error for not making it."""
        return DeadlineError(f"{self._doing} did not finish within {self._seconds:g} s")

    def within(self, seconds: float, doing: str) -> Deadline:
        """A deadline for a part of the work: its own, or this one where that comes first.

        Raises:
            DeadlineError: no time is left.
        """
        left = self.left()
        return self if left <= seconds else Deadline(seconds, doing)
