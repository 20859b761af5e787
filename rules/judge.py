"""Rules over one connection: a state for each machine and root, for all machines or some.

For each rule one query finds the violations of all machines asked for, and set-based joins turn
them into states; nothing here loops over machines. What to do when that fails is
rules.isolate's business.
"""

# ruff: noqa: S608 - SQL is made of our own text, of quoted names and of SELECTs found harmless
from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host.child import sql_memory
from fleetscan.appliance.host.printable import printable
from fleetscan.rules import query, subjects
from fleetscan.rules.query import RuleQuery
from fleetscan.rules.results import UNWAIVED
from fleetscan.rules.sql import Select
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.results.spec import ResultState

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class RuleLimits:
    """What rules may use.

    Attributes:
        seconds: longest time for one rule over all machines.
        memory: DuckDB's memory limit, in its own notation.
    """

    seconds: float = 120.0
    memory: str = field(default_factory=sql_memory)


class RuleError(FleetscanError):
    """A rule cannot be evaluated, at least over the machines asked for.

    Attributes:
        is_general: it cannot be evaluated over any machines, because its SQL is wrong.
    """

    def __init__(self, message: str, *, is_general: bool = False) -> None:
        super().__init__(message)
        self.is_general = is_general


class Judging(Protocol):
    """What evaluates rules: a connection, or a process that has one."""

    def machines(self) -> list[str]:
        """All machines of the run, in order."""

    def judge(
        self, rule: RuleQuery, seconds: float, machines: Sequence[str] | None = None
    ) -> pa.Table:
        """A rule's states for some machines; all of them when None.

        Raises:
            RuleError: there are none.
        """

    def state(
        self,
        rule: RuleQuery,
        state: ResultState,
        message: str | None,
        machines: Sequence[str] | None,
    ) -> pa.Table:
        """One state for all roots of some machines; of all of them when None."""


class Judge:
    """Evaluates rules over one connection, which it seals permanently.

    Args:
        connection: with a view for every fact table, holding the rows of one run.
        read: tables that some rule reads.
        memory: DuckDB's memory limit.

    Raises:
        FleetscanError: the connection still reaches files and cannot be sealed.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, read: Collection[str], memory: str
    ) -> None:
        self._connection = connection
        self._read = read
        seal(connection, memory)

    def __enter__(self) -> Judge:
        subjects.prepare(self._connection, self._read)
        self._connection.execute("CREATE TEMP TABLE _shard(machine_id VARCHAR)")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.execute("DROP TABLE IF EXISTS temp._shard")
        subjects.clean_up(self._connection)

    def machines(self) -> list[str]:
        """All machines of the run, in order."""
        rows = self._connection.execute("SELECT DISTINCT machine_id FROM _subjects ORDER BY 1")
        return [row[0] for row in rows.fetchall()]

    def judge(
        self, rule: RuleQuery, seconds: float, machines: Sequence[str] | None = None
    ) -> pa.Table:
        """A rule's states for some machines; all of them when None.

        Raises:
            RuleError: there are none.
        """
        known = {*load_tables(), *subjects.REFERENCE}
        if missing := sorted(rule.tables - known):
            raise RuleError(f"there is no fact table {', '.join(missing)}", is_general=True)
        try:
            # In this order: an interruption that comes late must not hit the cleaning up.
            with self._only(rule, machines) as within, self._deadline(seconds):
                sql = self._evaluation(rule, within)
                values = {**rule.values, **rule.labels, **rule.bindings}
                return self._rows(sql, values)
        except (duckdb.Error, pa.ArrowException, MemoryError) as error:
            reason = printable(" ".join(str(error).split("\n\n")[0].split()), query.MESSAGE_TEXT)
            raise RuleError(reason or type(error).__name__) from error

    def state(
        self,
        rule: RuleQuery,
        state: ResultState,
        message: str | None,
        machines: Sequence[str] | None,
    ) -> pa.Table:
        """One state for all roots of some machines; of all of them when None."""
        values = {**rule.labels, "_state": state, "_message": message, "_unread": rule.unread}
        with self._only(None, machines) as within:
            sql = query.PLAIN.format(within=within)
            return self._rows(sql, values)

    def _rows(self, sql: str, values: dict[str, Any]) -> pa.Table:  # Any: what DuckDB binds
        # A relation, which its warning suggests instead, would plan the query twice and take half
        # as long again.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Arrow output", UserWarning)
            cursor: Any = self._connection.execute(sql, values)  # typed as if it had no rows
            reader: pa.RecordBatchReader = cursor.to_arrow_reader(_BATCH_ROWS)
        return reader.read_all().cast(UNWAIVED)

    def _evaluation(self, rule: RuleQuery, within: str) -> str:
        columns = self._columns(rule, rule.violations)
        if "machine_id" not in columns:
            raise RuleError("violations must return machine_id", is_general=True)
        unsure = self._columns(rule, rule.unknown) if rule.unknown else None
        if unsure is not None and not {"machine_id", "root", "message"} <= set(unsure):
            raise RuleError("unknown must return machine_id, root and message", is_general=True)
        return query.EVALUATE.format(
            root="root" if "root" in columns else "NULL::VARCHAR",
            evidence=query.evidence(columns),
            violations=rule.violations.sql,
            applies_to=rule.applies_to,
            unknown=rule.unknown.sql if rule.unknown else query.NOBODY,
            subject=self._subject(rule),
            rows=query.EVIDENCE_ROWS,
            text=query.MESSAGE_TEXT,
            bytes=query.EVIDENCE_BYTES,
            within=within,
        )

    def _subject(self, rule: RuleQuery) -> str:
        if rule.subject is None:
            return query.EVERYBODY
        columns = self._columns(rule, rule.subject)
        if "machine_id" not in columns:
            raise RuleError("subject must return machine_id", is_general=True)
        root = "root" if "root" in columns else "NULL::VARCHAR AS root"
        return f"SELECT machine_id, {root} FROM (\n{rule.subject.sql}\n)"

    def _columns(self, rule: RuleQuery, select: Select) -> dict[str, str]:
        """Names and types of what a SELECT returns; it is planned, and not run."""
        sql = f"SELECT * FROM (\n{select.sql}\n) LIMIT 0"
        try:
            cursor = self._connection.execute(sql, rule.values_of(select))
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise RuleError(reason, is_general=True) from error
        return {str(item[0]): str(item[1]) for item in cursor.description or ()}

    @contextlib.contextmanager
    def _only(self, rule: RuleQuery | None, machines: Sequence[str] | None) -> Iterator[str]:
        """Restrict the rule to some machines, and return the condition that selects them."""
        if machines is None:
            yield "true"
            return
        execute = self._connection.execute
        names = sorted(rule.tables & load_tables().keys()) if rule else []
        # Fully named: a schema alone would be looked for among the temporary views as well.
        (database,) = execute("SELECT current_database()").fetchone() or ("memory",)
        try:
            execute("INSERT INTO _shard SELECT unnest($machines)", {"machines": list(machines)})
            for name in names:
                execute(
                    f'CREATE TEMP VIEW "{name}" AS FROM "{database}".main."{name}" '
                    "WHERE machine_id IN (SELECT machine_id FROM temp._shard)"
                )
            yield "machine_id IN (SELECT machine_id FROM temp._shard)"
        finally:
            for name in names:
                execute(f'DROP VIEW IF EXISTS temp."{name}"')
            execute("DELETE FROM _shard")

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Interrupt the connection when the block exceeds its time."""
        expired = threading.Event()

        def interrupt() -> None:
            expired.set()
            self._connection.interrupt()

        timer = threading.Timer(seconds, interrupt)
        timer.start()
        try:
            yield
        except duckdb.InterruptException as error:
            if not expired.is_set():
                raise
            raise RuleError(f"it took longer than {seconds:g} seconds") from error
        finally:
            timer.cancel()
            timer.join()


def seal(connection: duckdb.DuckDBPyConnection, memory: str) -> None:
    """Take file and network access away from a connection, and lock its configuration.

    Directories in ``allowed_directories``, which views over Parquet files need, stay readable;
    rules cannot name them, as they may use no table function that reads files.

    Raises:
        FleetscanError: it was locked before while it could still reach files.
    """
    settings = (
        "SET TimeZone = 'UTC'",  # evidence shows times as text
        "SET python_enable_replacements = false",  # names in SQL must not find Python variables
        f"SET memory_limit = '{memory}'",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    )
    for setting in settings:
        with contextlib.suppress(duckdb.InvalidInputException):  # locked already
            connection.execute(setting)
    row: Any = connection.execute("SELECT current_setting('enable_external_access')").fetchone()
    if row is None or row[0]:
        raise FleetscanError(
            "rules are not run: the connection's file access cannot be switched off"
        )
