"""The documentation's recipe for Spark, which is too large to be installed for every test run.

It needs a Java runtime and a Python that has pyspark (half a gigabyte)::

    python3 -m venv .fleetscan/spark && .fleetscan/spark/bin/pip install pyspark
    FLEETSCAN_SPARK_PYTHON=$PWD/.fleetscan/spark/bin/python \\
        .venv/bin/python -m pytest tests/scanner/store/spark_recipe.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.scanner.store.test_recipes import EXPECTED, facts, recipe

__all__ = ["facts"]  # a fixture: three nights

_PRINT = (
    "\nimport json\nprint(json.dumps([[r.machine_id, r.name, r.sid] for r in groups.collect()]))"
)


def test_spark_reads_each_machine_of_the_newest_run_once(facts: Path) -> None:
    python = os.environ.get("FLEETSCAN_SPARK_PYTHON", sys.executable)
    script = recipe("python", "import SparkSession") + _PRINT
    done = subprocess.run(
        [python, "-c", script], cwd=facts.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(tuple(row) for row in json.loads(done.stdout)) == EXPECTED
