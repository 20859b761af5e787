"""Results: one row a rule, machine and root, as an Arrow table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.rules.query import READABLE
from fleetscan.scanner.store import files
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.tables import load_all_tables
from fleetscan.scanner.tables.results.spec import DECIDED, UNDECIDED, ResultState, Severity

if TYPE_CHECKING:
    from fleetscan.rules.model import Waiver

_RUN_ID = pa.field("run_id", pa.string(), nullable=False)

SCHEMA = pa.schema([_RUN_ID, *arrow_schema(load_all_tables()["results"])])
"""Columns of the results, ordered by machine, root, pack and rule."""


def _as_text(field: pa.Field[Any]) -> pa.Field[Any]:
    is_enum = pa.types.is_dictionary(field.type)
    return pa.field(field.name, pa.string() if is_enum else field.type)


AS_TEXT = pa.schema([_as_text(field) for field in SCHEMA])
"""The same for SQL. Dictionaries are text: DuckDB would take them for enums of just the values
that occur."""

UNWAIVED = pa.schema([field for field in AS_TEXT if not field.name.startswith("waiver_")])
"""The same of what evaluating one rule gives, before waivers."""


_SEEN = (*DECIDED, ResultState.INFORMATIONAL)
"""States of rules that looked at something."""


class NoResultsError(StoreError):
    """A run that was never checked."""


@dataclass(frozen=True)
class Results:
    """What an evaluation found.

    Attributes:
        table: the rows, with the columns of SCHEMA.
        unused_waivers: waivers that no failing result matched.
    """

    table: pa.Table
    unused_waivers: tuple[Waiver, ...] = ()

    def counts(self) -> dict[tuple[Severity, ResultState], int]:
        """Number of results by severity and state."""
        grouped = self.table.group_by(["severity", "state"]).aggregate([([], "count_all")])
        found: Counter[tuple[Severity, ResultState]] = Counter()
        for row in grouped.to_pylist():
            found[Severity(row["severity"]), ResultState(row["state"])] += row["count_all"]
        return dict(found)

    def unjudged(self) -> list[str]:
        """The machines that have no verdict, though some rule should have given one, in order."""
        seen, undecided = self._having("machine_id", _SEEN), self._having("machine_id", UNDECIDED)
        return sorted(undecided - seen)

    def broken(self) -> list[str]:
        """The rules that gave nothing but errors, in order."""
        others = [state for state in ResultState if state is not ResultState.ERROR]
        erring = self._having("rule_id", [ResultState.ERROR]) - {READABLE}
        return sorted(erring - self._having("rule_id", others))

    @property
    def says_anything(self) -> bool:
        """Whether any rule has a verdict on any machine."""
        return bool(self._having("machine_id", _SEEN))

    def _having(self, column: str, states: Collection[ResultState]) -> set[str]:
        """The machines or rules that have a result in one of these states."""
        found = self.table.group_by([column, "state"]).aggregate([]).to_pylist()
        return {row[column] for row in found if row["state"] in states}

    def findings(self, at_least: Severity) -> int:
        """Number of failing results of a severity or a graver one."""
        return sum(
            count
            for (severity, state), count in self.counts().items()
            if state is ResultState.FAIL and severity.rank <= at_least.rank
        )


def results_path(facts: Path, run_id: str) -> Path:
    """Where a run's results lie in a fact store."""
    return facts / "results" / f"run={run_id}" / "part-0.parquet"


def write_results(results: Results, facts: Path, run_id: str) -> Path:
    """Write a run's results beside its facts, in place of earlier ones; returns the path.

    Raises:
        StoreError: they cannot be written.
    """
    path = results_path(facts, run_id)
    with files.store_errors(f"writing {path}"), files.replacing(path) as stream:
        pq.write_table(results.table, stream, compression="zstd")
    return path


def read_results(facts: Path, run_id: str) -> pa.Table:
    """The results of a run that was checked before.

    Raises:
        NoResultsError: there are none.
        StoreError: they cannot be read.
    """
    path = results_path(facts, run_id)
    with files.store_errors(f"reading {path}", hint="run fleetscan check to make them again"):
        try:
            return pq.read_table(path, partitioning=None).cast(SCHEMA).unify_dictionaries()
        except FileNotFoundError as error:
            raise NoResultsError(
                f"run {run_id} has no results", hint="run fleetscan check to make them"
            ) from error
