from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

# Hypothesis' own deadline of 0.2 s an example fails on a busy host. pytest-timeout ends what hangs.
hypothesis.settings.register_profile("fleetscan", deadline=None)
hypothesis.settings.load_profile("fleetscan")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def example_images() -> Path:
    """The folder with the example images in ``fleet`` and ``extra``, built where missing.

    Real images cannot be done without: where they cannot be built, the tests that want them fail
    and say what to install.
    """
    from examples.build_fleet import default_directory

    command = [sys.executable, "-m", "examples.build_fleet", "fleet", "extra"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"the example images cannot be built:\n{done.stdout}{done.stderr}")
    return default_directory()
