"""Who may know whom: host and guest are two rooms over one ground, and imports go one way."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from fleetscan.appliance import initrd
from tests.structure.modules import (
    PACKAGE,
    PROJECT,
    cycles,
    imports,
    modules,
    siblings,
    within,
)

GROUND = f"{PACKAGE}.appliance.ground"
GUEST = f"{PACKAGE}.appliance.guest"
TABLES = f"{PACKAGE}.scanner.tables"
COMMANDS = f"{PACKAGE}.scanner.cli"
"""The commands stand above all rooms, in whatever folder they lie."""

SPECS = {name for name in modules() if re.fullmatch(rf"{TABLES}(\.\w+\.spec)?", name)}
"""What the host knows of the fact tables: their columns."""

SHIPPED = {name for name in modules() if within(name, (GROUND, GUEST, TABLES))}
HOST = set(modules()) - SHIPPED
MOST_LINES = 400

PACKAGES = sorted({name.rpartition(".")[0] for name in modules()})


def known(names: set[str], rooms: tuple[str, ...]) -> dict[str, set[str]]:
    """Which modules of ours outside of these rooms each module imports."""
    found = {
        name: {it for it in imports(name) if it.startswith(f"{PACKAGE}.") and not within(it, rooms)}
        for name in names
    }
    return {name: others for name, others in found.items() if others}


# -- One way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [package for package in PACKAGES if package != PACKAGE])
def test_no_folders_and_modules_beside_each_other_form_a_cycle(package: str) -> None:
    assert cycles(siblings(package)) == []


def test_the_four_folders_form_no_cycle_below_the_commands() -> None:
    graph: dict[str, set[str]] = {}
    for name in modules():
        if not within(name, (COMMANDS,)):
            assert not [it for it in imports(name) if within(it, (COMMANDS,))], name
            here = name.split(".")[1]
            graph.setdefault(here, set()).update(
                it.split(".")[1] for it in imports(name) if it.startswith(f"{PACKAGE}.")
            )
            graph[here] -= {here}
    assert graph["appliance"] == set()
    assert cycles(graph) == []


def test_cycles_are_found() -> None:
    assert cycles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [{"b", "c"}]
    assert cycles({"a": ["b"], "b": []}) == []


def test_the_ground_knows_nothing_of_ours() -> None:
    assert known({name for name in modules() if within(name, (GROUND,))}, (GROUND,)) == {}


def test_the_guests_room_knows_the_ground_alone() -> None:
    guest = {name for name in modules() if within(name, (GUEST,))}
    assert len(guest) > 30
    assert known(guest, (GUEST, GROUND)) == {}


def test_tables_know_the_guests_room_and_the_ground_alone() -> None:
    tables = {name for name in modules() if within(name, (TABLES,))}
    assert known(tables, (TABLES, GUEST, GROUND)) == {}


def test_columns_know_the_ground_alone() -> None:
    assert known(SPECS, (GROUND, TABLES)) == {}


# -- Two halves ------------------------------------------------------------------------------


def test_the_host_imports_nothing_that_only_runs_in_the_guest() -> None:
    guest_only = {name for name in SHIPPED if within(name, (GUEST, TABLES))} - SPECS
    found = {name: imports(name) & guest_only for name in HOST}
    assert {name: others for name, others in found.items() if others} == {}


def test_two_modules_at_most_know_both_halves() -> None:
    """Only by name, as none does by import: what is packed, and which collector a table has."""
    names = re.compile(r"appliance[./]guest|\.collect$")
    both = {
        name for name in HOST | SPECS if any(names.search(text) for text in _words(modules()[name]))
    }
    assert both == {f"{PACKAGE}.appliance.initrd", TABLES}


def _words(path: Path) -> list[str]:
    """The texts of a module that are one word, such as names of modules, in templates as well."""
    values = (
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [value for value in values if re.fullmatch(r"[\w./]+", value)]


# -- The border ------------------------------------------------------------------------------


def in_appliance() -> set[str]:
    """What can be imported there: Python's own modules, and Debian's of the packages in it."""
    packages = (PROJECT / "appliance" / "packages.list").read_text().split()
    bindings = {name.removeprefix("python3-") for name in packages if name.startswith("python3-")}
    assert bindings >= {"rpm", "hivex"}
    return {*sys.stdlib_module_names, *bindings}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_ships_imports_nothing_that_the_appliance_lacks(name: str) -> None:
    assert {it for it in imports(name) if it not in in_appliance()} <= SHIPPED


def test_what_ships_is_what_lies_in_the_guests_rooms() -> None:
    files = {name for name in initrd.agent_files() if name != "start.py"}
    parents = {"fleetscan/appliance/__init__.py", "fleetscan/scanner/__init__.py"}
    shipped = {f"{PACKAGE}/{modules()[name].relative_to(PROJECT)}" for name in SHIPPED}
    assert files == shipped | parents


# -- Size ------------------------------------------------------------------------------------


def test_no_module_is_longer_than_one_can_keep_in_mind() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
