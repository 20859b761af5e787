"""Trees of Windows whose registry hives are made from text."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.scanner.tables.run_case import DEBIAN_PYTHON, REPOSITORY

_MAKER = REPOSITORY / "examples" / "builder" / "hives.py"


def make_hive(text: Path, hive: Path) -> Path:
    """Make a hive of a .reg file."""
    command = [DEBIAN_PYTHON, str(_MAKER), str(text), str(hive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "No module named 'hivex'" not in done.stderr, (
        f"{DEBIAN_PYTHON} lacks hivex' binding: apt-get install python3-hivex"
    )
    assert done.returncode == 0, done.stderr
    return hive


def make_hives(tree: Path) -> Path:
    """Put a hive in the place of each .reg file of a tree."""
    for text in sorted(tree.rglob("*.reg")):
        make_hive(text, text.with_suffix(""))
        text.unlink()
    return tree
