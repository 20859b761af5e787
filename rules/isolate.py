"""What becomes of a rule that fails: only the machines that it fails over get an ``error``.

A guest may choose its rows so that a rule's SQL overflows, runs for hours or fills the memory.
Such a rule is evaluated again over parts of the fleet, and over parts of those parts that fail,
until the machines are found over which it fails by themselves. Later rules are evaluated without
these machines first, and over them apart, for a short time: whoever makes every rule slow costs
``check`` one search, and no more than one rule's time besides.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Sequence

import pyarrow as pa

from fleetscan.rules.judge import Judging, RuleError
from fleetscan.rules.query import RuleQuery
from fleetscan.scanner.tables.results.spec import ResultState

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

_RULE_TIMES = 10
"""Time for one rule's search, in times of the longest that a rule may take."""

_CHECK_TIMES = 30
"""Time for the searches of all rules together, in the same."""

_NO_TIME = "no time was left to find the machines that cause it"
_SPENT = "earlier rules failed over this machine, and took all the time that is given to one"


class Isolation:
    """Evaluates rules even if some machines make them fail, and remembers these machines.

    Args:
        judging: what evaluates rules.
        seconds: longest time for a rule over all machines together.
    """

    def __init__(self, judging: Judging, seconds: float) -> None:
        self._judging = judging
        self._seconds = seconds
        self._left = seconds * _CHECK_TIMES
        self._suspects: dict[str, float] = {}  # time left for trying each of them apart

    def states(self, rule: RuleQuery) -> list[pa.Table]:
        """A rule's states for all machines."""
        if self._suspects:
            return self._apart(rule)
        try:
            return [self._judging.judge(rule, self._seconds)]
        except RuleError as error:
            log.warning("rule %s cannot be evaluated: %s", rule.rule_id, error)
            if error.is_general:
                return [self._judging.state(rule, ResultState.ERROR, _message(str(error)), None)]
            machines = self._judging.machines()
            search = self._search(rule)
            search.divide(machines, str(error))
        return self._finished(search, machines)

    def _apart(self, rule: RuleQuery) -> list[pa.Table]:
        """As :meth:`states`, where some machines made earlier rules fail."""
        machines = self._judging.machines()
        search = self._search(rule)
        try:
            search.try_apart(self._suspects)
            search.try_together(machines, self._suspects)
        except RuleError as error:
            return [self._judging.state(rule, ResultState.ERROR, _message(str(error)), None)]
        return self._finished(search, machines)

    def _search(self, rule: RuleQuery) -> _Search:
        longest = min(self._seconds * _RULE_TIMES, max(0.0, self._left))
        return _Search(self._judging, rule, self._seconds, longest)

    def _finished(self, search: _Search, machines: Sequence[str]) -> list[pa.Table]:
        states = search.states(machines)
        self._left -= search.seconds
        for machine in search.alone:
            self._suspects.setdefault(machine, self._seconds)
        return states


def _message(reason: str) -> str:
    return f"the rule cannot be evaluated: {reason}"


class _Search:
    """Finds the machines over which one rule fails.

    Attributes:
        seconds: what it took so far.
        alone: machines over which the rule failed by themselves.
    """

    def __init__(self, judging: Judging, rule: RuleQuery, whole: float, longest: float) -> None:
        self._judging = judging
        self._rule = rule
        self._whole = whole
        self._part = min(whole, max(_LEAST_SECONDS, whole / _PART_OF_TIME))
        self._longest = longest
        self._found: list[pa.Table] = []
        self._guilty: dict[str, list[str]] = {}  # machines by reason
        self._failed = 0
        self._divided = False
        self.seconds = 0.0
        self.alone: set[str] = set()

    def states(self, machines: Sequence[str]) -> list[pa.Table]:
        """The states of all machines, once each was tried."""
        if self._rule.fleet and self._divided:
            self._compare(machines)
        errors = [
            self._judging.state(self._rule, ResultState.ERROR, _message(reason), some)
            for reason, some in self._guilty.items()
        ]
        return [*self._found, *errors]

    def try_apart(self, suspects: dict[str, float]) -> None:
        """Try machines over which earlier rules failed.

        Args:
            suspects: the time left for each, from which what it takes is subtracted.

        Raises:
            RuleError: the rule's SQL is wrong.
        """
        if spent := [machine for machine, left in suspects.items() if left <= 0]:
            self._blame(spent, _SPENT)
        tried = [machine for machine, left in suspects.items() if left > 0]
        before = self.seconds
        if not tried or self._passes_together(tried):
            return
        together = self.seconds - before
        failing = [machine for machine in tried if not self._is_cleared(machine, suspects)]
        for machine in failing:
            suspects[machine] -= together / len(failing)

    def _passes_together(self, machines: Sequence[str]) -> bool:
        try:
            self._found.append(self._judged(machines))
        except RuleError as error:
            if error.is_general:
                raise
            return False
        return True

    def _is_cleared(self, machine: str, suspects: dict[str, float]) -> bool:
        """Whether a rule does not fail over a suspect by itself."""
        before = self.seconds
        failed = len(self._failing())
        self._try([machine])
        if len(self._failing()) == failed:
            return True
        suspects[machine] -= self.seconds - before
        return False

    def try_together(self, machines: Sequence[str], suspects: Collection[str]) -> None:
        """Try all machines but the suspects; a rule that compares, all that it does not fail over.

        Raises:
            RuleError: the rule's SQL is wrong.
        """
        passed_over = self._failing() if self._rule.fleet else suspects
        rest = [machine for machine in machines if machine not in passed_over]
        if self._rule.fleet:
            self._found = []
        if not rest:
            return
        try:
            self._found.append(self._judging.judge(self._rule, self._whole, rest))
        except RuleError as error:
            if error.is_general:
                raise
            self.divide([machine for machine in machines if machine not in suspects], str(error))

    def divide(self, machines: Sequence[str], reason: str) -> None:
        """Try parts of some machines, and parts of those that fail, as the whole fails.

        Args:
            machines: the machines.
            reason: why the rule fails over them.
        """
        self._divided = True
        if len(machines) == 1:
            self.alone.update(machines)
            self._blame(machines, reason)
        pending = _parts(machines) if len(machines) > 1 else []
        while pending:
            failing: list[Sequence[str]] = []
            for part in pending:
                failing += self._try(part)
            # A level at a time: what passes shows soon that the rule itself is not at fault.
            pending = [smaller for part in failing for smaller in _parts(part)]
            if pending and self._is_hopeless(pending):
                for part in pending:
                    self._blame(part, reason)
                return

    def _is_hopeless(self, pending: Sequence[Sequence[str]]) -> bool:
        if self._found or self._failed < _HOPELESS:
            return False
        left = [machine for part in pending for machine in part]
        sample = random.SystemRandom().sample(left, min(_SAMPLE, len(left)))
        return not any(map(self._passes, sample))

    def _passes(self, machine: str) -> bool:
        try:
            self._judged([machine])
        except RuleError:
            return False
        return True

    def _try(self, part: Sequence[str]) -> list[Sequence[str]]:
        """The part, when it must be divided further."""
        if self.seconds > self._longest:
            self._blame(part, _NO_TIME)
            return []
        try:
            self._found.append(self._judged(part))
        except RuleError as error:
            self._failed += 1
            if len(part) > 1:
                return [part]
            self.alone.update(part)
            self._blame(part, str(error))
        return []

    def _judged(self, part: Sequence[str]) -> pa.Table:
        begun = time.monotonic()
        try:
            return self._judging.judge(self._rule, self._part, part)
        finally:
            self.seconds += time.monotonic() - begun

    def _blame(self, machines: Sequence[str], reason: str) -> None:
        log.warning(
            "rule %s fails over %d machines, %s and so on: %s",
            self._rule.rule_id,
            len(machines),
            machines[0],
            reason,
        )
        self._guilty.setdefault(reason, []).extend(machines)

    def _failing(self) -> set[str]:
        return {machine for some in self._guilty.values() for machine in some}

    def _compare(self, machines: Sequence[str]) -> None:
        """Evaluate a rule that compares machines over all that it does not fail over."""
        failing = self._failing()
        honest = [machine for machine in machines if machine not in failing]
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
