"""What is told of an appliance that ended, and the agent as a local process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fleetscan.appliance import vm
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, DeadlineError, WireError
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.vm import LocalAppliance
from tests.vm.machines import eventually, has_ended

KERNEL = "[    0.100000] Run /init as init process\n[    0.200000] random: crng init done\n"
CRASH = (
    "[   38.533817] BUG: unable to handle page fault for address: 000000000071baf0\n"
    "[   38.533817] RIP: 0010:kmem_cache_alloc+0x1/0x2\n"
    "[   38.533817] R10: ffffffff82c2eaf8 R11: 0000000000000001 R12: ffff8e5bdf2b4a00\n"
    "[   38.533817] Kernel panic - not syncing: Fatal exception\n"
)


def soon() -> Deadline:
    return Deadline(20, "the test")


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ("", ""),
        (KERNEL, KERNEL.strip()),
        (KERNEL + "Traceback:\n  OSError: no\n", "Traceback:\nOSError: no"),
        (KERNEL + CRASH, "".join(CRASH.splitlines(keepends=True)[i] for i in (0, 1, 3)).strip()),
        (
            CRASH * 2 + "word\n",
            "".join(CRASH.splitlines(keepends=True)[i] for i in (0, 1, 3)).strip(),
        ),
    ],
    ids=["nothing", "kernel-alone", "agent", "crash", "crash-and-more"],
)
def test_a_guests_last_words_are_those_that_tell_why(console: str, words: str) -> None:
    assert vm._last_words(console) == words


def agent(script: str) -> type[LocalAppliance]:
    """A local appliance whose agent is this script: ``argv[2]`` is its socket."""

    class Scripted(LocalAppliance):
        agent = (sys.executable, "-c", f"import os, socket, sys, time\n{script}")

    return Scripted


def test_the_agent_answers_as_a_local_process(tmp_path: Path) -> None:
    with LocalAppliance(tmp_path, soon(), SessionLimits()) as local:
        assert local.accelerator == "none"
        assert local.call("discover", soon(), disks=[], options={"files": "none"})["roots"] == ["/"]


def test_an_agent_that_ends_at_once_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    kind = agent("sys.exit('no such luck')")
    with pytest.raises(ApplianceError, match="the appliance stopped: no such luck"):
        kind(tmp_path, soon(), SessionLimits()).__enter__()


def test_an_agent_of_another_protocol_is_refused(tmp_path: Path) -> None:
    reply = b'{"protocol":999}'
    frame = bytes([2]) + len(reply).to_bytes(4, "big") + reply
    kind = agent(f"os.write(int(sys.argv[2]), {frame!r}); time.sleep(60)")
    with pytest.raises(WireError, match="another version of the protocol"):
        kind(tmp_path, soon(), SessionLimits()).__enter__()


def test_an_agent_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    kind = agent(f"open({str(pidfile)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with pytest.raises(DeadlineError):
        kind(tmp_path, Deadline(1.5, "the start"), SessionLimits()).__enter__()
    assert not Path(f"/proc/{pidfile.read_text()}").exists()


def test_a_program_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    kind = agent("")
    kind.agent = ("/no/such/program",)
    with pytest.raises(ApplianceError):
        kind(tmp_path, soon(), SessionLimits()).__enter__()


def test_children_of_the_agent_end_with_it(tmp_path: Path) -> None:
    reply = b'{"protocol":1}'
    frame = bytes([2]) + len(reply).to_bytes(4, "big") + reply
    pidfile = tmp_path / "pid"
    script = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pidfile)!r}, 'w').write(str(child.pid))\n"
        f"os.write(int(sys.argv[2]), {frame!r}); time.sleep(60)"
    )
    with agent(script)(tmp_path, soon(), SessionLimits()):
        child = int(pidfile.read_text())
        assert Path(f"/proc/{child}").exists()
    assert eventually(lambda: has_ended(child))


def test_a_block_leaves_no_descriptor(tmp_path: Path) -> None:
    with LocalAppliance(tmp_path, soon(), SessionLimits()):
        pass
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    for _ in range(3):
        with LocalAppliance(tmp_path, soon(), SessionLimits()):
            pass
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
