"""A name means one thing: classes and modules of the four packages are told apart by theirs."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("scanner", "appliance", "rules", "reports")

ROLES = {
    "__init__": "what a package says of itself",
    "__main__": "what a package does as a program",
    "base": "what the modules beside it implement",
    "collect": "a table's collector",
    "options": "what one layer asks of the next: the command line, an inspection, the agent",
    "spec": "a table's definition",
    "windows": "what a table reads of Windows",
}
"""Module names that stand for a place in their folder, not for what is inside."""

NAMED_FOR_USERS = ("reports/formats", "scanner/preflight/formats", "scanner/sources/kinds")
"""Folders whose modules are found by being there, and named as users name what they hold."""

ALIKE: dict[str, str] = {}
"""Public class names that two modules may share, and why."""


def _modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if "cases" not in path.parts:
                yield path.relative_to(REPOSITORY)


def test_no_two_modules_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in _modules():
        if str(path.parent) not in NAMED_FOR_USERS:
            places[path.stem].append(str(path))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in ROLES} == {}
    assert ROLES.keys() <= places.keys()


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in _modules():
        for node in ast.parse((REPOSITORY / path).read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in ALIKE} == {}
    assert ALIKE.keys() <= twice.keys()
