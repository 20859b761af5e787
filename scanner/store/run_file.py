"""The run file: what a finished run is, in one small JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class TableInfo:
    """What a run holds of one table.

    Attributes:
        rows: number of rows.
        columns: names of its columns, so that runs of other versions can be read.
    """

    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class RunInfo:
    """A visible run, as its run file describes it.

    Attributes:
        run_id: the run.
        started, finished: when, UTC.
        interrupted: finished before all of its machines were.
        version: the version of fleetscan that finished it.
        settings: what the caller gave :meth:`Store.begin`.
        machines: number of machines planned.
        outcomes: number of machines finished, by ``machines.outcome``.
        parts: number of parts that every table has.
        tables: what it holds of each table.
        facts_runs: number of machines whose facts earlier runs hold, by run.
    """

    run_id: str
    started: datetime
    finished: datetime
    interrupted: bool
    version: str
    settings: dict[str, Any]  # JSON values of the caller's
    machines: int
    outcomes: dict[str, int]
    parts: int
    tables: dict[str, TableInfo]
    facts_runs: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """The run file's content."""
        times = {"started": self.started.isoformat(), "finished": self.finished.isoformat()}
        return asdict(self) | times

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RunInfo:
        """Read what :meth:`to_json` made; what a newer version added is passed over.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        values = {name: content[name] for name in cls.__dataclass_fields__}
        for name in ("started", "finished"):
            values[name] = datetime.fromisoformat(values[name])
        values["tables"] = {
            name: TableInfo(table["rows"], tuple(table["columns"]))
            for name, table in values["tables"].items()
        }
        return cls(**values)
