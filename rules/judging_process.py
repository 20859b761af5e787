"""Rules over a stored run, evaluated in a separate process, which a rule may kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host import child
from fleetscan.appliance.host.child import Child, ChildLostError
from fleetscan.rules.judge import Judge, RuleError, RuleLimits
from fleetscan.rules.query import RuleQuery
from fleetscan.rules.results import UNWAIVED
from fleetscan.scanner.store.views import connect
from fleetscan.scanner.tables.results.spec import ResultState

log = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0
"""How long after a rule's time its process is killed: DuckDB ends a query where it looks."""

_STATE_SECONDS = 60.0

# After one of these the connection cannot be trusted with another rule.
_SPENT = (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException, MemoryError)


class JudgingProcess:
    """Evaluates rules in another process, and replaces that process when it dies.

    The process starts to load its libraries at once, so that its parent can go on meanwhile.

    Args:
        limits: time for a rule, memory for all.
    """

    def __init__(self, limits: RuleLimits | None = None) -> None:
        self.limits = limits or RuleLimits()
        self._run: tuple[Path, str, Collection[str]] | None = None
        self._begun = False
        self._child: Child | None = self._launch()

    def __enter__(self) -> JudgingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def prepare(self, facts: Path, run_id: str, read: Collection[str]) -> None:
        """Say what rules are judged over, before any is.

        Args:
            facts: the store's directory.
            run_id: the run.
            read: tables that some rule reads.
        """
        self._run = facts, run_id, read

    def machines(self) -> list[str]:
        """All machines of the run, in order."""
        names: list[str] = json.loads(self._call("machines", seconds=_STATE_SECONDS))
        return names

    def judge(
        self, rule: RuleQuery, seconds: float, machines: Sequence[str] | None = None
    ) -> pa.Table:
        """A rule's states for some machines; all of them when None.

        Raises:
            RuleError: there are none.
        """
        self._running()  # if it dies before it gets the rule, the rule is not at fault
        try:
            answer = self._call("judge", rule, seconds, machines, seconds=seconds + _GRACE_SECONDS)
        except ChildLostError as error:
            raise RuleError(str(error)) from error
        told, _, rest = answer.partition(b"\n")
        failure = json.loads(told)
        if failure is None:
            return _table(rest)
        if failure["spent"]:
            self._end()
        raise RuleError(str(failure["message"]), is_general=bool(failure["is_general"]))

    def state(
        self,
        rule: RuleQuery,
        state: ResultState,
        message: str | None,
        machines: Sequence[str] | None,
    ) -> pa.Table:
        """One state for all roots of some machines; of all of them when None."""
        return _table(self._call("state", rule, state, message, machines, seconds=_STATE_SECONDS))

    def _call(self, method: str, *args: object, seconds: float) -> bytes:
        running = self._running()
        try:
            return running.call(method, *args, seconds=seconds)
        except ChildLostError:
            self._end()
            raise

    def _launch(self) -> Child:
        return Child(__name__, child.memory_limit())

    def _running(self) -> Child:
        if self._child is None:
            self._child, self._begun = self._launch(), False
        if not self._begun:
            if self._run is None:
                raise FleetscanError("there is no run to evaluate rules over")
            self._child.start("open_run", *self._run, self.limits.memory)
            self._begun = True
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def _table(answer: bytes) -> pa.Table:
    """An Arrow table of the process', checked: it read what guests wrote.

    Raises:
        FleetscanError: it is not one.
    """
    try:
        table = pa.ipc.open_stream(answer).read_all()
        table.validate(full=True)
        return table.cast(UNWAIVED)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FleetscanError(
            f"the process that evaluates rules gave an invalid answer: {error}"
        ) from error
    return table


# -- The child's side ----------------------------------------------------------------------------


class _Answers:
    """What the process does: a judge's methods, whose answers are bytes."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def machines(self) -> bytes:
        return json.dumps(self._judge.machines()).encode()

    def judge(self, rule: RuleQuery, seconds: float, machines: Sequence[str] | None) -> bytes:
        try:
            return b"null\n" + _stream(self._judge.judge(rule, seconds, machines))
        except RuleError as error:
            failure = {
                "message": str(error),
                "is_general": error.is_general,
                "spent": isinstance(error.__cause__, _SPENT),
            }
            return json.dumps(failure).encode() + b"\n"

    def state(
        self,
        rule: RuleQuery,
        state: ResultState,
        message: str | None,
        machines: Sequence[str] | None,
    ) -> bytes:
        return _stream(self._judge.state(rule, state, message, machines))


def open_run(facts: Path, run_id: str, read: Collection[str], memory: str) -> _Answers:
    """Open the run, for as long as the process lives."""
    judge = Judge(connect(facts, run_id, memory_limit=memory), read, memory)
    judge.__enter__()
    return _Answers(judge)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
