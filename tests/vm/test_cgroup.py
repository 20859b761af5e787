"""Memory limits by control groups, on a kernel where they are delegated as systemd does it.

Few hosts of tests are set up so, the appliance's own kernel can be: the builder's VM is that host.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.builder import vm
from fleetscan.appliance import built, cgroup

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

_HOST = b"""\
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/unit/scan
python3 -c 'import os; os.setxattr("/sys/fs/cgroup/unit", "user.delegate", b"1")'
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
echo $$ >/sys/fs/cgroup/unit/scan/cgroup.procs
python3 trial.py >"$EXPECTED/outcome"
"""

_TRIAL = b"""\
import json, os, subprocess, sys
from pathlib import Path
import cgroup

TAKE = "import sys; sys.stdin.read(); held = b'x' * (int(sys.argv[1]) << 20)"

def take(mebibytes):
    with cgroup.memory_group(64 << 20) as group:
        child = subprocess.Popen(
            [sys.executable, "-c", TAKE, str(mebibytes)], stdin=subprocess.PIPE
        )
        group.add(child.pid)
        child.communicate(b"")
        there = group.path.exists()
    return {"status": child.returncode, "there": there, "left": group.path.exists()}

outcome = {"delegated": str(cgroup.delegated()), "much": take(200), "little": take(8)}
os.removexattr("/sys/fs/cgroup/unit", "user.delegate")
with cgroup.memory_group(64 << 20) as group:
    outcome["not handed over"] = group is None
print(json.dumps(outcome))
"""


def test_a_process_with_too_much_memory_is_killed_and_its_group_is_gone(tmp_path: Path) -> None:
    scripts = {
        "image.sh": _HOST,
        "trial.py": _TRIAL,
        "cgroup.py": Path(cgroup.__file__).read_bytes(),
    }
    vm.run(built.find(), scripts, [], tmp_path)
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert outcome == {
        "delegated": "/sys/fs/cgroup/unit",
        "much": {"status": -9, "there": True, "left": False},
        "little": {"status": 0, "there": True, "left": False},
        "not handed over": True,
    }


def test_a_host_that_delegates_nothing_has_no_groups() -> None:
    if cgroup.delegated() is None:
        with cgroup.memory_group(1 << 30) as group:
            assert group is None
    else:
        with cgroup.memory_group(1 << 30) as group:
            assert group is not None
            assert group.path.is_dir()
        assert not group.path.exists()
