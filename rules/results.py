"""Results: one row a rule, machine and root, as an Arrow table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.rules.model import SEVERITIES, Severity, State, Waiver
from fleetscan.scanner.store import files

_REPEATED = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("run_id", _REPEATED, nullable=False),
        pa.field("machine_id", pa.string(), nullable=False),
        pa.field("root", pa.string()),  # null where no operating system was found
        pa.field("pack", _REPEATED, nullable=False),
        pa.field("rule_id", _REPEATED, nullable=False),
        pa.field("title", _REPEATED, nullable=False),
        pa.field("severity", _REPEATED, nullable=False),
        pa.field("state", _REPEATED, nullable=False),
        pa.field("violations", pa.uint64(), nullable=False),
        pa.field("evidence", pa.list_(pa.string()), nullable=False),  # JSON objects, as text
        pa.field("message", pa.string()),  # why the state is neither pass nor plain fail
        pa.field("waiver_justification", pa.string()),
        pa.field("waiver_expires", pa.date32()),  # last day on which the waiver counts
    ]
)
"""Columns of the results, ordered by machine, root, pack and rule."""


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

    def counts(self) -> dict[tuple[Severity, State], int]:
        """Number of results by severity and state."""
        grouped = self.table.group_by(["severity", "state"]).aggregate([([], "count_all")])
        found: Counter[tuple[Severity, State]] = Counter()
        for row in grouped.to_pylist():
            found[row["severity"], row["state"]] += row["count_all"]
        return dict(found)

    def findings(self, at_least: Severity) -> int:
        """Number of failing results of a severity or a graver one."""
        grave = SEVERITIES[SEVERITIES.index(at_least) :]
        return sum(
            count
            for (severity, state), count in self.counts().items()
            if state == "fail" and severity in grave
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
