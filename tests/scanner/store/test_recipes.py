"""What the documentation says of reading facts without fleetscan, over three runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from fleetscan.scanner.store import layout
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.views import connect, query
from tests import documentation
from tests.scanner.store.making import add_machine

PAGE = "scanner/store/README.md"
Row = tuple[object, ...]
COLUMNS = ("machine_id", "name", "sid")

# Any: pyarrow's stubs differ from version to version.
_read: Any = pyarrow.parquet.read_table
_write: Any = pyarrow.parquet.write_table


def recipe(language: str, word: str) -> str:
    """The block that contains this word, about groups instead of packages."""
    (text,) = [one.text for one in documentation.blocks(PAGE, language) if word in one.text]
    return text.replace("packages", "groups")


def forget_column(facts: Path, run_id: str, column: str) -> None:
    """Make a run's groups those of a version that did not have a column."""
    for part in facts.glob(f"groups/run={run_id}/*.parquet"):
        rows = _read(part, partitioning=None)
        _write(rows.drop_columns([column]), part)
    path = layout.run_file(facts, run_id)
    content = json.loads(path.read_text())
    content["tables"]["groups"]["columns"].remove(column)
    path.write_text(json.dumps(content))


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three nights: machines that change, do not change twice, disappear and appear."""
    ids = (f"2026013{night}T020000Z-00000{9 - night}" for night in (0, 1, 2))
    monkeypatch.setattr(layout, "new_run_id", lambda now: next(ids))
    store = Store(tmp_path / "facts")
    first = store.begin(["same", "changed", "gone"], settings={})
    for name in ("same", "changed", "gone"):
        add_machine(first, name, ["adm", "sudo"])
    first.finish()
    second = store.begin(["same", "changed", "gone"], settings={})
    add_machine(second, "same", [], facts_run=first.run_id)
    add_machine(second, "changed", ["second"])
    add_machine(second, "gone", [], facts_run=first.run_id)
    second.finish()
    third = store.begin(["same", "changed", "new"], settings={})
    add_machine(third, "same", [], facts_run=first.run_id)
    add_machine(third, "changed", [], facts_run=second.run_id)
    add_machine(third, "new", ["third"])
    third.finish()
    forget_column(store.path, first.run_id, "sid")
    monkeypatch.chdir(tmp_path)
    return store.path


EXPECTED = [
    ("changed", "second", None),
    ("new", "third", None),
    ("same", "adm", None),
    ("same", "sudo", None),
]


def by_duckdb() -> list[Row]:
    with duckdb.connect() as connection:  # the module's own may have another test's result
        found = connection.sql(recipe("sql", "parse_filename"))
        assert found is not None
        return found.select(*COLUMNS).fetchall()


def by_pandas() -> list[Row]:
    names: dict[str, Any] = {}
    exec(recipe("python", "import pandas"), names)  # noqa: S102 - our documentation
    frame = names["groups"][list(COLUMNS)].astype(object)
    return list(frame.where(frame.notna(), None).itertuples(index=False, name=None))


def by_polars() -> list[Row]:
    names: dict[str, Any] = {}
    exec(recipe("python", "import polars"), names)  # noqa: S102 - our documentation
    return list(names["groups"].select(COLUMNS).rows())


@pytest.mark.parametrize("read", [by_duckdb, by_pandas, by_polars])
def test_a_recipe_reads_each_machine_of_the_newest_run_once(
    read: Callable[[], list[Row]], facts: Path
) -> None:
    assert sorted(read()) == EXPECTED


def test_fleetscan_reads_the_same(facts: Path) -> None:
    with connect(facts) as connection:
        rows = query(connection, "SELECT machine_id, name FROM groups").to_pylist()
    assert sorted((row["machine_id"], row["name"]) for row in rows) == [row[:2] for row in EXPECTED]
