"""What becomes of a rule that fails: only the machines that it fails over get an ``error``.

A guest may choose its rows so that a rule's SQL overflows, runs for hours or fills the memory.
Such a rule is evaluated again over parts of the fleet, and over parts of those parts that fail,
until the machines are found over which it fails by themselves.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence

import pyarrow as pa

from fleetscan.rules.judge import Judging, RuleError
from fleetscan.rules.query import RuleQuery

log = logging.getLogger(__name__)

_PARTS = 8
"""Parts that machines are divided into. One that fails costs the longest time a part may take,
those that do not fail little: more parts make fewer levels."""

_HOPELESS = 64
"""Parts that failed, none having passed, after which it is likely that the rule is at fault."""

_SAMPLE = 32
"""Single machines that are tried before that is believed: somebody may have put one of his
machines into each of the parts."""

_PART_OF_TIME = 4
"""A part of the fleet may take this part of the time of the whole, and ``_LEAST_SECONDS``."""

_LEAST_SECONDS = 10.0

_ALL_TIMES = 10
"""Time for the whole search, in times of the longest that the rule may take."""


def states(judging: Judging, rule: RuleQuery, seconds: float) -> list[pa.Table]:
    """A rule's states for all machines, whatever some of them hold.

    Args:
        judging: what evaluates it.
        rule: the rule.
        seconds: longest time for all machines together.
    """
    try:
        return [judging.judge(rule, seconds)]
    except RuleError as error:
        log.warning("rule %s cannot be evaluated: %s", rule.rule_id, error)
        if error.is_general:
            return [judging.state(rule, "error", _message(str(error)), None)]
        search = _Search(judging, rule, seconds, str(error))
    return search.states()


def _message(reason: str) -> str:
    return f"the rule cannot be evaluated: {reason}"


class _Search:
    """Finds the machines over which a rule fails."""

    def __init__(self, judging: Judging, rule: RuleQuery, seconds: float, reason: str) -> None:
        self._judging = judging
        self._rule = rule
        self._reason = reason
        self._seconds = min(seconds, max(_LEAST_SECONDS, seconds / _PART_OF_TIME))
        self._whole = seconds
        self._end = time.monotonic() + seconds * _ALL_TIMES
        self._found: list[pa.Table] = []
        self._guilty: dict[str, list[str]] = {}  # machines by reason
        self._failed = 0

    def states(self) -> list[pa.Table]:
        """The states of all machines."""
        machines = self._judging.machines()
        if len(machines) == 1:
            self._blame(machines, self._reason)
        else:
            self._divide(machines)
        if self._rule.fleet:
            self._compare(machines)
        errors = [
            self._judging.state(self._rule, "error", _message(reason), some)
            for reason, some in self._guilty.items()
        ]
        return [*self._found, *errors]

    def _divide(self, machines: Sequence[str]) -> None:
        pending = _parts(machines)
        while pending:
            failing: list[Sequence[str]] = []
            for part in pending:
                failing += self._try(part)
            # A level at a time: what passes shows soon that the rule itself is not at fault.
            pending = [smaller for part in failing for smaller in _parts(part)]
            if pending and self._is_hopeless(pending):
                for part in pending:
                    self._blame(part, self._reason)
                return

    def _is_hopeless(self, pending: Sequence[Sequence[str]]) -> bool:
        if self._found or self._failed < _HOPELESS:
            return False
        left = [machine for part in pending for machine in part]
        sample = random.SystemRandom().sample(left, min(_SAMPLE, len(left)))
        return not any(map(self._passes, sample))

    def _passes(self, machine: str) -> bool:
        try:
            self._judging.judge(self._rule, self._seconds, [machine])
        except RuleError:
            return False
        return True

    def _try(self, part: Sequence[str]) -> list[Sequence[str]]:
        """The part, when it must be divided further."""
        if time.monotonic() > self._end:
            self._blame(part, f"{self._reason} (no time was left to tell which machines cause it)")
            return []
        try:
            self._found.append(self._judging.judge(self._rule, self._seconds, part))
        except RuleError as error:
            self._failed += 1
            if len(part) > 1:
                return [part]
            self._blame(part, str(error))
        return []

    def _blame(self, machines: Sequence[str], reason: str) -> None:
        log.warning(
            "rule %s fails over %d machines, %s and so on: %s",
            self._rule.rule_id,
            len(machines),
            machines[0],
            reason,
        )
        self._guilty.setdefault(reason, []).extend(machines)

    def _compare(self, machines: Sequence[str]) -> None:
        """Evaluate a rule that compares machines over all that it does not fail over."""
        guilty = {machine for some in self._guilty.values() for machine in some}
        honest = [machine for machine in machines if machine not in guilty]
        self._found = []
        if not honest:
            return
        try:
            self._found = [self._judging.judge(self._rule, self._whole, honest)]
        except RuleError as error:
            self._blame(honest, str(error))


def _parts(machines: Sequence[str]) -> list[Sequence[str]]:
    """Machines in a few parts of about the same length, none of them empty."""
    size = -(-len(machines) // _PARTS)
    return [machines[start : start + size] for start in range(0, len(machines), size)]
