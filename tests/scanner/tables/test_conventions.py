"""What every fact table must keep to; a new folder under scanner/tables is held to it at once."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import built
from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.schema import Kind, Origin, Scope, Table
from fleetscan.scanner import derived, tables
from tests.scanner.tables.run_case import REPOSITORY

FOLDER = REPOSITORY / "scanner" / "tables"
TABLES = tables.load_tables()
GUEST_TABLES = {name: table for name, table in TABLES.items() if table.origin is Origin.GUEST}

ROOM = {"fleetscan.appliance.guest.lookups", "fleetscan.appliance.guest.tools"}
"""Modules of the agent that any collector may import, beside its root and the readers."""

BINDINGS = {package.removeprefix("python3-") for package in built.packages()}
"""What Debian packages of the appliance are imported as, those of Python among them."""

NUMBERS = {Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64, Kind.INT64, Kind.FLOAT64}

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
every_guest_table = pytest.mark.parametrize("table", GUEST_TABLES.values(), ids=GUEST_TABLES)


def _imports(path: Path, *, nested: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                place = whole.removeprefix("fleetscan.").replace(".", "/")
                yield whole if (REPOSITORY / f"{place}.py").exists() else module


@every_table
def test_table_has_a_summary_line_and_documented_columns(table: Table) -> None:
    assert table.summary.endswith(".")
    assert table.columns
    for column in table.columns:
        assert column.description.endswith("."), column.name
        assert column.description == column.description.strip(), column.name


@every_table
def test_column_names_are_plain_and_do_not_hide_the_key_columns(table: Table) -> None:
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []
    keys = {"machine_id"} | ({"root"} if table.scope is Scope.ROOT else set())
    assert keys.isdisjoint(names)


@every_table
def test_only_numbers_have_units(table: Table) -> None:
    assert [c.name for c in table.columns if c.unit and c.kind not in NUMBERS] == []


@every_table
def test_enum_columns_list_distinct_lower_case_values(table: Table) -> None:
    for column in table.columns:
        assert bool(column.values) == (column.kind is Kind.ENUM), column.name
        assert len(set(column.values)) == len(column.values), column.name
        assert [value for value in column.values if value != value.lower()] == [], column.name


@every_table
def test_examples_are_values_that_the_column_could_hold(table: Table) -> None:
    for column in table.columns:
        if column.example and column.kind in NUMBERS:
            float(column.example)
        if column.example and column.kind is Kind.ENUM:
            assert column.example in column.values, column.name


@every_table
def test_spec_imports_only_the_schema_and_typing(table: Table) -> None:
    spec = FOLDER / table.name / "spec.py"
    assert set(_imports(spec, nested=True)) <= {
        "__future__",
        "typing",
        "fleetscan.appliance.ground.schema",
        "fleetscan.appliance.ground.volumes",  # the words for kinds, which the agent has as well
    }


def test_a_table_made_of_anothers_rows_has_a_module_that_makes_it() -> None:
    modules = {path.stem for path in Path(derived.__file__).parent.glob("[!_]*.py")}
    assert modules == {table.name for table in TABLES.values() if table.derived_from}


@every_table
def test_only_the_host_makes_tables_of_a_guests_rows(table: Table) -> None:
    if table.derived_from:
        assert table.origin is Origin.HOST
        assert TABLES[table.derived_from].origin is Origin.GUEST
        assert table.scope is TABLES[table.derived_from].scope


@every_table
def test_guest_tables_alone_have_a_collector(table: Table) -> None:
    collector = FOLDER / table.name / "collect.py"
    assert collector.exists() == (table.origin is Origin.GUEST)


@every_guest_table
def test_collector_imports_only_what_the_appliance_has(table: Table) -> None:
    own = f"fleetscan.scanner.tables.{table.name}."
    room = "fleetscan.appliance.guest."
    agent = f"{room}root" if table.scope is Scope.ROOT else room
    for module in sorted((FOLDER / table.name).glob("*.py")):
        foreign = {
            name
            for name in _imports(module, nested=False)
            if name.partition(".")[0] not in sys.stdlib_module_names
            and name not in ROOM | BINDINGS
            and not _is_shared(name, table.name)
            and not name.startswith((own, agent, f"{room}readers.", "fleetscan.appliance.ground."))
        }
        assert foreign == set(), module.name


@every_guest_table
def test_collector_takes_what_its_scope_promises(table: Table) -> None:
    parameters = inspect.signature(tables.load_collector(table.name)).parameters.values()
    expected = "Root" if table.scope is Scope.ROOT else "GuestMachine"
    assert [parameter.annotation for parameter in parameters] == [expected]


def _is_shared(module: str, table: str) -> bool:
    """Whether a module of another table says that it is shared with this one."""
    if not module.startswith("fleetscan.scanner.tables."):
        return False
    says = importlib.import_module(module).__doc__ or ""
    return f"``{table}``" in says.partition("Shared with ")[2]


@every_guest_table
def test_collector_has_cases_or_a_reason_for_none(table: Table) -> None:
    cases = list((FOLDER / table.name / "cases").glob("*/expected.jsonl"))
    says = sys.modules[tables.load_collector(table.name).__module__].__doc__ or ""
    assert bool(cases) != ("No cases: " in says)


def test_field_that_is_no_column_is_refused() -> None:
    @schema.table()
    class Odd:
        """Odd."""

        number: int

    with pytest.raises(TypeError, match="number"):
        schema.describe("odd", Odd)
