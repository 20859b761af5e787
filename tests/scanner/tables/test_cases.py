"""Every case of every table: a tree of input files gives exactly the rows beside it.

A case is scanner/tables/<table>/cases/<case>/ with ``tree/`` (the root), ``expected.jsonl`` (the
rows as encode_rows writes them, keys in any order), where the tree has symbolic links ``links``
("<path> -> <target>"), and where the collector ends in an error ``error.txt`` ("<class>:
<message>"). In trees of Windows a file NAME.reg stands for the registry hive NAME, which is made
of it.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import pytest

from fleetscan.appliance.ground.schema import Column, Kind
from fleetscan.scanner.tables import load_tables
from tests.scanner.tables.make_hives import make_hives
from tests.scanner.tables.run_case import (
    DEBIAN_PYTHON,
    REPOSITORY,
    Outcome,
    lay_out,
    run,
    run_in_debian_python,
)

TABLES = REPOSITORY / "scanner" / "tables"
LIBRPM_CASES = [TABLES / f"packages/cases/rpm-{kind}" for kind in ("sqlite", "ndb", "bdb")]
WINDOWS_CASES = sorted(
    path for path in TABLES.glob("*/cases/*/") if next(path.rglob("*.reg"), None)
)
SPECIAL_CASES = [*LIBRPM_CASES, *WINDOWS_CASES]
CASES = sorted(path for path in TABLES.glob("*/cases/*/") if path not in SPECIAL_CASES)

_JSON_TYPES: dict[Kind, type] = {
    Kind.STRING: str,
    Kind.ENUM: str,
    Kind.BOOL: bool,
    Kind.FLOAT64: float,
    Kind.STRING_LIST: list,
}


def _name(case: Path) -> str:
    return f"{case.parent.parent.name}/{case.name}"


def _expected(case: Path) -> Outcome:
    error = case / "error.txt"
    rows = (case / "expected.jsonl").read_text().splitlines(keepends=True)
    return Outcome(rows, error.read_text().strip() if error.exists() else "")


def _lines(outcome: Outcome) -> list[str]:
    rows = [json.dumps(json.loads(row), indent=1, sort_keys=True) for row in outcome.rows]
    return [line for row in rows for line in row.splitlines()] + [f"error: {outcome.error}"]


def _assert_same(found: Outcome, expected: Outcome) -> None:
    difference = difflib.unified_diff(
        _lines(expected), _lines(found), "expected", "found", lineterm="", n=12
    )
    if text := "\n".join(difference):
        pytest.fail(text, pytrace=False)


def _fits(column: Column, value: object) -> bool:
    if value is None:
        return column.nullable
    if column.kind is Kind.ENUM:
        return value in column.values
    return type(value) is _JSON_TYPES.get(column.kind, int)


def _assert_rows_fit(table: str, outcome: Outcome) -> None:
    columns = load_tables()[table].columns
    for row in map(json.loads, outcome.rows):
        assert not row.keys() - {column.name for column in columns}
        assert [c.name for c in columns if not _fits(c, row.get(c.name))] == []


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_tree_gives_the_rows_beside_it(case: Path, tmp_path: Path) -> None:
    table = case.parent.parent.name
    found = run(table, lay_out(case, tmp_path))
    _assert_same(found, _expected(case))
    _assert_rows_fit(table, found)


@pytest.mark.parametrize("case", LIBRPM_CASES, ids=_name)
def test_real_rpm_databases_give_the_rows_beside_them(case: Path, tmp_path: Path) -> None:
    found = run_in_debian_python("packages", lay_out(case, tmp_path))
    assert "No module named 'rpm'" not in found.error, (
        f"{DEBIAN_PYTHON} lacks librpm's binding: apt-get install python3-rpm"
    )
    _assert_same(found, _expected(case))
    _assert_rows_fit("packages", found)


@pytest.mark.parametrize("case", WINDOWS_CASES, ids=_name)
def test_hives_give_the_rows_beside_their_text(case: Path, tmp_path: Path) -> None:
    tree = make_hives(lay_out(case, tmp_path))
    found = run_in_debian_python(case.parent.parent.name, tree)
    _assert_same(found, _expected(case))
    _assert_rows_fit(case.parent.parent.name, found)


@pytest.mark.parametrize("case", [*CASES, *SPECIAL_CASES], ids=_name)
def test_case_is_complete(case: Path) -> None:
    assert {path.name for path in case.iterdir()} - {"error.txt", "links"} == {
        "tree",
        "expected.jsonl",
    }
    assert (case / "expected.jsonl").stat().st_size or _expected(case).error or "empty" in case.name
