"""Processes of our own do without pandas, and with pyarrow all the same."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.scanner.cluster import ClusterOptions, open_cluster

_TRIAL = """\
import sys
import pyarrow as pa
assert pa.table({"a": [1, 2]}).filter(pa.array([True, False])).to_pylist() == [{"a": 1}]
"""


def loaded(*command: str) -> set[str]:
    """Modules that a Python process imported."""
    argv = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_pyarrow_would_import_pandas_and_does_not_where_it_is_kept_out() -> None:
    assert "pandas.core" in loaded("-c", _TRIAL)
    lean = "from fleetscan.appliance.host.without_pandas import without_pandas\nwithout_pandas()\n"
    modules = loaded("-c", lean + _TRIAL)
    assert "pyarrow" in modules
    assert "pandas.core" not in modules


def test_the_command_does_without(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    command = (
        "-m",
        "fleetscan.scanner.cli",
        "inspect",
        "--directory",
        str(tmp_path),
        "--output",
        "json",
    )
    modules = loaded(*command)
    assert "pyarrow" in modules
    assert "pandas.core" not in modules


@pytest.fixture
def modules_of_a_worker() -> Iterator[set[str]]:
    """What a worker of a cluster of our own has imported once it has made an array."""
    ended = threading.Event()
    with open_cluster(ClusterOptions(slots=1)) as cluster:
        task = cluster.submit("trial", lambda _: ended.set(), _modules_after_the_trial)
        assert ended.wait(60)
        assert task.error() is None
        yield set(task.result())


def _modules_after_the_trial() -> list[str]:
    exec(_TRIAL, {})  # noqa: S102 - our own few lines
    return list(sys.modules)


def test_workers_do_without(modules_of_a_worker: set[str]) -> None:
    assert "pyarrow" in modules_of_a_worker
    assert "pandas" not in modules_of_a_worker
