"""The run file: what a finished run is, in one JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

_PART = re.compile(r"part-[0-9]{5,9}\.parquet")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a run's table.

    Attributes:
        name: its name in the table's directory for the run.
        rows: number of rows.
        bytes: its length.
        sha256: the digest of its content, in hex.
        columns: names of its columns where they are others than its table's.

    Of runs that were written before these were recorded only the name is known.
    """

    name: str
    rows: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TableInfo:
    """What a run holds of one table.

    Attributes:
        rows: number of rows.
        columns: names of its columns, so that runs of other versions can be read.
        files: the files that hold its rows; none when it has no rows.
    """

    rows: int
    columns: tuple[str, ...]
    files: tuple[PartFile, ...] = ()


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
        tables: what it holds of each table.
        facts_runs: number of machines whose facts other runs hold, by run.
    """

    run_id: str
    started: datetime
    finished: datetime
    interrupted: bool
    version: str
    settings: dict[str, Any]  # JSON values of the caller's
    machines: int
    outcomes: dict[str, int]
    tables: dict[str, TableInfo]
    facts_runs: dict[str, int]

    @property
    def held(self) -> int:
        """Number of machines whose facts it holds itself."""
        return sum(self.outcomes.values()) - sum(self.facts_runs.values())

    def files(self) -> Iterator[tuple[str, PartFile]]:
        """Table and file of everything that it holds."""
        for name, table in self.tables.items():
            for file in table.files:
                yield name, file

    def to_json(self) -> dict[str, object]:
        """The run file's content."""
        times = {"started": self.started.isoformat(), "finished": self.finished.isoformat()}
        tables = {
            name: asdict(table) | {"files": [_file_to_json(file) for file in table.files]}
            for name, table in self.tables.items()
        }
        return asdict(self) | times | {"tables": tables}

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
            _checked(_TABLE, name): _table_from_json(table, content.get("parts", 0))
            for name, table in values["tables"].items()
        }
        return cls(**values)


def _file_to_json(file: PartFile) -> dict[str, object]:
    return {name: value for name, value in asdict(file).items() if value is not None}


def _table_from_json(content: Mapping[str, Any], parts: int) -> TableInfo:
    """A table of a run file.

    Args:
        content: what stands there.
        parts: number of parts that every table has, where files are not listed: so it was in
            versions before 0.2.
    """
    listed = content.get("files")
    if listed is None:
        listed = [{"name": f"part-{number:05d}.parquet"} for number in range(parts)]
    files = tuple(_file_from_json(file) for file in listed)
    return TableInfo(content["rows"], tuple(content["columns"]), files)


def _file_from_json(content: Mapping[str, Any]) -> PartFile:
    columns = content.get("columns")
    return PartFile(
        _checked(_PART, content["name"]),  # it becomes part of a path
        content.get("rows"),
        content.get("bytes"),
        content.get("sha256"),
        None if columns is None else tuple(columns),
    )


def _checked(pattern: re.Pattern[str], name: str) -> str:
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is not a name that a store uses")
    return name
