"""Results: one row a rule, machine and root, as an Arrow table."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.rules.query import READABLE
from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.tables import load_all_tables
from fleetscan.scanner.tables.results.spec import DECIDED, UNDECIDED, ResultState, Severity

if TYPE_CHECKING:
    from fleetscan.rules.model import Waiver

pc: Any = pyarrow.compute  # no stubs know which kernel fits which array

_NAME = 100  # characters of a pack's name that its file's name keeps

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
        packs: names of the packs that were evaluated, those without a row too.
    """

    table: pa.Table
    unused_waivers: tuple[Waiver, ...] = ()
    packs: tuple[str, ...] = ()

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


def results_path(facts: Path, run_id: str, pack: str) -> Path:
    """Where a pack's results of a run lie in a fact store."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", pack)[:_NAME]
    if name != pack:
        name += f"-{hashlib.sha256(pack.encode()).hexdigest()[:8]}"
    return layout.results_folder(facts, run_id) / f"pack-{name}.parquet"


def has_results(facts: Path, run_id: str) -> bool:
    """Whether a run was checked."""
    return bool(layout.results_files(facts, run_id))


def write_results(results: Results, facts: Path, run_id: str) -> None:
    """Write results beside the run's facts, in place of earlier ones of the same packs.

    Raises:
        StoreError: they cannot be written.
    """
    found = map(str, results.table["pack"].unique().to_pylist())
    for pack in dict.fromkeys((*results.packs, *found)):
        path = results_path(facts, run_id, pack)
        rows = results.table.filter(pc.equal(results.table["pack"], pa.scalar(pack)))
        with files.store_errors(f"writing {path}"), files.replacing(path) as stream:
            pq.write_table(rows, stream, compression="zstd")


def read_results(facts: Path, run_id: str) -> pa.Table:
    """The results of a run that was checked before, of all packs.

    Raises:
        NoResultsError: there are none.
        StoreError: they cannot be read.
    """
    tables = [_read(path) for path in layout.results_files(facts, run_id)]
    if not tables:
        raise NoResultsError(
            f"run {run_id} has no results", hint="run fleetscan check to make them"
        )
    table = pa.concat_tables(tables)
    if len(tables) > 1:
        # A machine has one subject without a root, or none: nulls need no place of their own.
        keys = [(name, "ascending") for name in ("machine_id", "root", "pack", "rule_id")]
        table = table.take(pc.sort_indices(table, keys))
    return table.unify_dictionaries()


def _read(path: Path) -> pa.Table:
    with files.store_errors(f"reading {path}", hint="run fleetscan check to make them again"):
        return pq.read_table(path, partitioning=None).cast(SCHEMA)
