"""The modules of the four folders and what each imports, read off their source."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("appliance", "scanner", "rules", "reports")
PACKAGE = "fleetscan"


@functools.cache
def modules() -> Mapping[str, Path]:
    """Every module of ours by name, ``fleetscan.scanner.inspect`` for example."""
    found = (path for room in ROOMS for path in (PROJECT / room).rglob("*.py"))
    return {_name(path): path for path in found if "cases" not in path.parts}


def _name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join((PACKAGE, *(part for part in parts if part != "__init__")))


@functools.cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, within functions as well: our modules, and others by first name."""
    tree = ast.parse(modules()[module].read_text())
    return frozenset(name for node in ast.walk(tree) for name in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (_known(alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (_known(f"{node.module}.{alias.name}") for alias in node.names)


def _known(name: str) -> str:
    """The module that a dotted name is, or that it is a name in."""
    if not name.startswith(f"{PACKAGE}."):
        return name.partition(".")[0]
    parts = name.split(".")
    return name if name in modules() else ".".join(parts[:-1])


def within(name: str, packages: Iterable[str]) -> bool:
    """Whether a module lies in one of the packages."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def siblings(package: str) -> dict[str, set[str]]:
    """What lies directly in a package, and which of it each imports, by all that lies in it."""
    depth = package.count(".") + 1
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        if module.startswith(f"{package}."):
            here = module.split(".")[depth]
            there = {
                name.split(".")[depth] for name in imports(module) if name.startswith(f"{package}.")
            }
            graph[here] |= there - {here}
    return graph


def cycles(graph: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """The groups of names each of which leads to all others of its group."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached.get(other, ()))
        for name in graph
    }
    return [set(group) for group in groups if group]


def _reached(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found
