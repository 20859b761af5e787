"""Run one collector over a directory tree: in this process, or in Debian's Python.

The second way is for what needs librpm's binding, which virtual environments do not see.
Standard library only, as the module is also the program that Debian's Python runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables import load_collector

REPOSITORY = Path(__file__).parents[3]
DEBIAN_PYTHON = "/usr/bin/python3"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / ".venv/namespace")}
"""In which Debian's Python finds our package."""


@dataclass(frozen=True)
class Outcome:
    """What a collector gave: encoded rows, then "<class>: <message>" if it ended in an error."""

    rows: list[str]
    error: str = ""


def lay_out(case: Path, top: Path) -> Path:
    """Make a case's tree below a directory, with its symbolic links, and return the tree's top.

    The links stand in the case's file ``links``, a line "path -> target" each: not every way that
    a checkout or an archive travels keeps links.
    """
    tree = shutil.copytree(case / "tree", top / "tree")
    links = case / "links"
    for line in links.read_text().splitlines() if links.exists() else []:
        path, _, target = line.partition(" -> ")
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    return tree


def run(table: str, tree: Path) -> Outcome:
    """Run a table's collector over a tree."""
    rows: list[str] = []
    with Root("case", str(tree)) as root:
        try:
            rows.extend(row.decode() for row in encode_rows(load_collector(table)(root)))
        except (schema.NotApplicable, schema.IncompleteError, OSError) as error:
            return Outcome(rows, f"{type(error).__name__}: {error}")
    return Outcome(rows)


def run_in_debian_python(table: str, tree: Path) -> Outcome:
    """As :func:`run`, in the Python of Debian's packages."""
    argv = [DEBIAN_PYTHON, "-m", "tests.scanner.tables.run_case", table, str(tree)]
    done = subprocess.run(
        argv, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return Outcome(done.stdout.splitlines(keepends=True), done.stderr.strip())


if __name__ == "__main__":
    outcome = run(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.writelines(outcome.rows)
    sys.exit(outcome.error or 0)
