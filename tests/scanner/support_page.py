"""The table of what can be scanned, scanner/SUPPORT.md, made from support.yaml beside this file,
and from support.yaml in the folders of tables.

A row says what of the code's own lists it
is about, in ``covers``; test_support.py holds it to that and to the tests that it names.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fleetscan.appliance.guest import filesystems
from fleetscan.scanner.tables import load_tables

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).with_name("support.yaml")
PAGE = PROJECT / "scanner" / "SUPPORT.md"

_CASES = PROJECT / "scanner" / "tables"
_TESTS = PROJECT / "tests"
_CASE = "case "

# Columns whose values are kinds of things that a machine may be made of.
_ENUMERATIONS = (
    ("disks", "format"),
    ("partitions", "scheme"),
    ("partitions", "role"),
    ("volumes", "kind"),
    ("operating_systems", "family"),
    ("operating_systems", "form"),
    ("operating_systems", "package_format"),
    ("packages", "manager"),
)

_HEAD = """\
# What can be scanned

<!-- Made by `python -m tests.regenerate` from tests/scanner/support.yaml. -->

Each row names the tests that cover it: functions in [tests](../tests), and cases in
[tables](tables), which are small trees with the rows that a collector must produce. "Named" means
that fleetscan recognises and reports something but cannot read it. What cannot be read is reported
in `coverage`, never skipped silently.
"""


class Row(BaseModel):
    """Something that a machine may have.

    Attributes:
        what: its name.
        covers: of :func:`claims` those that it is about.
        read: what is read of it.
        by: what reads it.
        tests: as ``vm/test_volumes::test_name``, or ``case packages/apk``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    covers: tuple[str, ...] = ()
    read: str
    by: str
    tests: tuple[str, ...] = Field(min_length=1)


def load() -> dict[str, list[Row]]:
    """Rows by section.

    Raises:
        pydantic.ValidationError: one is not of their form.
    """
    rows: dict[str, list[Row]] = {}
    for path in (DATA, *sorted(_CASES.glob("*/support.yaml"))):
        content = yaml.safe_load(path.read_text())
        for section, some in TypeAdapter(dict[str, list[Row]]).validate_python(content).items():
            rows.setdefault(section, []).extend(some)
    return rows


def claims() -> set[str]:
    """Everything that the code's own lists say to exist, as ``column=value`` or ``table=name``."""
    tables = load_tables()
    found = {f"table={name}" for name in tables}
    for table, name in _ENUMERATIONS:
        (column,) = [column for column in tables[table].columns if column.name == name]
        found |= {f"{table}.{name}={value}" for value in column.values}
    kinds = {*filesystems._OPTIONS, *filesystems._IGNORE_JOURNAL, *filesystems._DRIVERS}
    kinds |= filesystems._NOT_FILES
    return found | {f"filesystems.type={kind}" for kind in kinds}


def exists(test: str) -> bool:
    """Whether there is a test, or a case, of this name."""
    if test.startswith(_CASE):
        table, _, name = test.removeprefix(_CASE).partition("/")
        return (_CASES / table / "cases" / name / "expected.jsonl").exists()
    module, _, function = test.partition("::")
    path = _TESTS / f"{module}.py"
    return path.exists() and function in _functions(path)


@functools.cache
def _functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def markdown() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for title, rows in load().items():
        yield f"## {title}\n\n| what | read | by | tests |\n|---|---|---|---|"
        for row in rows:
            tests = "<br>".join(_link(test) for test in row.tests)
            yield f"| {row.what} | {row.read} | {row.by} | {tests} |"
        yield ""


def _link(test: str) -> str:
    if test.startswith(_CASE):
        table, _, name = test.removeprefix(_CASE).partition("/")
        return f"[{test}](tables/{table}/cases/{name})"
    module, _, function = test.partition("::")
    words = function.removeprefix("test_").replace("_", " ")
    return f"[{module.rpartition('/')[2]}](../tests/{module}.py): {words}"
