"""The layers around QEMU and qemu-img, by programs that try them, and the ladder to them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetscan.appliance.confinement import (
    WantedConfinement,
    confined_process,
    identity,
    layers,
    rootfs,
    starter,
    syscalls,
)
from fleetscan.appliance.confinement.confined_process import LayersInUse, Needs, confined
from fleetscan.appliance.ground.errors import ApplianceError
from tests.vm.machines import eventually, has_ended

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
AS_ROOT = os.geteuid() == 0
BARE = LayersInUse(namespaces=None, exact_root=False, user="same", seccomp=False, landlock=0)


def shell(
    script: str, held: LayersInUse | None = None, **needs: object
) -> tuple[int | None, str, str]:
    """A shell's status and outputs; it has its own builtins and nothing else."""
    with confined(
        ["sh", "-c", script],
        Needs(**needs),  # type: ignore[arg-type] # fields by name
        held or layers.current(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        out, err = running.popen.communicate(timeout=30)
    return running.status, out.decode(), err.decode()


def test_numbers_of_system_calls_are_the_kernels() -> None:
    if not HEADER.exists():
        pytest.fail(f"{HEADER} is missing: install linux-libc-dev")
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    for name, number in (syscalls.ALLOWED | syscalls.KILLING).items():
        assert numbers[name] == str(number), name
    assert not set(syscalls.ALLOWED.values()) & set(syscalls.KILLING.values())
    assert len(syscalls.program(kvm=True, becoming=True)) // 8 < 4096  # BPF_MAXINSNS


def test_a_program_gets_what_it_needs_and_ends_with_its_own_status() -> None:
    assert shell("echo $PWD; exit 7") == (7, "/\n", "")
    assert shell("kill -9 $$")[0] != 0  # it has no such call


def test_a_program_starts_no_other() -> None:
    status, _, errors = shell("(echo child)")
    assert status != 0
    assert "fork" in errors


@pytest.mark.skipif(not AS_ROOT, reason="only root makes namespaces without a user namespace")
def test_root_confines_as_well_where_user_namespaces_are_refused() -> None:
    held = dataclasses.replace(layers.current(), namespaces="root")
    assert layers._works(held)
    status, out, _ = shell("read -r line </proc/self/status; echo /*; echo x >/y", held)
    assert status != 0
    assert "home" not in out
    status, out, _ = shell(
        "while read -r k v; do case $k in Uid:) echo $v; esac; done </proc/self/status", held
    )
    assert int(out.split()[0]) >= identity.FIRST


def test_limits_hold_inside(tmp_path: Path) -> None:
    script = "ulimit -f; ulimit -n; ulimit -t; ulimit -v; ulimit -c"
    limits = {"writes": 8192, "memory_bytes": 1 << 30, "cpu_seconds": 9, "open_files": 33}
    _, out, _ = shell(script, None, **limits)
    assert out.split() == ["16", "33", "9", str(1 << 20), "0"]


def test_the_end_of_bubblewrap_is_the_programs_end() -> None:
    with confined(["sh", "-c", "while :; do :; done"], Needs(), layers.current()) as running:
        assert running.pid != running.popen.pid
        program = Path(f"/proc/{running.pid}/comm")
        assert eventually(lambda: program.read_text() not in ("bwrap\n", "start\n"))
        os.kill(running.popen.pid, signal.SIGKILL)
        assert eventually(lambda: has_ended(running.pid))


STARTING = """
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import Needs, confined
held = layers.current()
print(flush=True)
while True:
    with confined(["sh", "-c", "while :; do :; done"], Needs(), held):
        pass
"""


def marked(name: str) -> set[int]:
    """Processes that have the mark and have not ended."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (folder / "environ").read_bytes() and not has_ended(
                int(folder.name)
            ):
                found.add(int(folder.name))
    return found


@pytest.mark.parametrize("after", [0.0, 0.004, 0.008, 0.012, 0.016, 0.02, 0.03, 0.05])
def test_who_is_killed_while_starting_one_leaves_no_program(after: float) -> None:
    mark = f"confinement-test-{os.getpid()}-{after}"
    environment = {**os.environ, "FLEETSCAN_MARK": mark}
    argv = [sys.executable, "-c", STARTING]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as starting:
        assert starting.stdout is not None
        starting.stdout.readline()
        time.sleep(after)
        starting.kill()
    program = rootfs.needed("sh").program.encode()

    def started() -> bool:
        for pid in marked(mark):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == program:
                    return True
        return False

    assert eventually(lambda: not started())
    for pid in marked(mark):  # a bubblewrap that waits for one which was killed at its side
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_end_of_the_block_is_the_programs_end() -> None:
    with confined(["sh", "-c", "while :; do :; done"], Needs(), layers.current()) as running:
        pass
    assert has_ended(running.pid)
    assert has_ended(running.popen.pid)


def test_what_cannot_be_confined_is_reported_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confined_process, "_NAMESPACES", ("pid", "no-such-namespace"))
    with pytest.raises(ApplianceError, match=r"could not be confined: .*unshare-no-such") as caught:
        shell("exit 0")
    assert "doctor" in caught.value.hint


@pytest.mark.skipif(not AS_ROOT, reason="only root has users to give")
def test_no_two_have_the_same_user_at_a_time() -> None:
    take = (
        "from fleetscan.appliance.confinement.identity import own_user\n"
        "with own_user() as user:\n    print(user, flush=True)\n    input()\n"
    )
    argv = [sys.executable, "-c", take]
    others = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        with identity.own_user() as first, identity.own_user() as second:
            users = [first, second, *(int(other.stdout.readline()) for other in others)]  # type: ignore[union-attr]
        assert len(set(users)) == len(users)
        assert all(identity.FIRST <= user < identity.FIRST + identity.COUNT for user in users)
        with identity.own_user() as again:
            assert again == first  # whoever ends gives it back
    finally:
        for other in others:
            other.communicate("\n")


def test_a_root_holds_a_programs_own_files() -> None:
    root = rootfs.needed(rootfs.QEMU)
    assert root.program in root.mounts
    assert any(Path(mount, "kvmvapic.bin").exists() for mount in root.mounts)
    forbidden = ("/", "/usr", "/etc", "/home", "/var", "/root", "/tmp", "/run")
    assert not set(root.mounts) & set(forbidden)


# -- The ladder ------------------------------------------------------------------------------------


def test_where_all_works_all_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[LayersInUse] = []

    def works(one: LayersInUse) -> bool:
        tried.append(one)
        return True

    monkeypatch.setattr(layers, "_works", works)
    assert layers.probe() == tried[0]
    assert len(tried) == 1
    assert (tried[0].namespaces, tried[0].exact_root, tried[0].seccomp) == ("user", True, True)


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ({"landlock": 7}, "landlock"),
        ({"exact_root": True}, "root"),
        ({"seccomp": True}, "seccomp"),
    ],
)
def test_a_layer_that_does_not_work_is_left_out_alone(
    broken: dict[str, object], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((field, value),) = broken.items()
    monkeypatch.setattr(starter, "landlock_version", lambda: 7)
    monkeypatch.setattr(layers, "_works", lambda one: getattr(one, field) != value)
    found = {layer.name: layer.holds for layer in layers.listed(layers.probe())}
    assert not found.pop(missing)
    del found["cgroup"]
    assert all(found.values())


def test_a_host_without_anything_is_refused_unless_the_user_insists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "current", lambda: BARE)
    layers.require(WantedConfinement.ANY)
    for wanted in (WantedConfinement.LEAST, WantedConfinement.ALL):
        with pytest.raises(ApplianceError, match=r"no .*namespaces, .*seccomp") as caught:
            layers.require(wanted)
        assert "--confinement any" in caught.value.hint


def test_the_least_is_enough_unless_all_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    least = dataclasses.replace(BARE, namespaces="user", seccomp=True)
    monkeypatch.setattr(layers, "current", lambda: least)
    layers.require(WantedConfinement.LEAST)
    with pytest.raises(ApplianceError, match="landlock"):
        layers.require(WantedConfinement.ALL)


def test_a_finding_is_remembered_for_this_host_as_it_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes: list[LayersInUse] = []

    def probe() -> LayersInUse:
        probes.append(BARE)
        return BARE

    monkeypatch.setattr(layers, "probe", probe)
    monkeypatch.setattr(layers, "_found", {})
    assert layers.current() == BARE
    layers._found.clear()
    assert layers.current() == BARE
    assert len(probes) == 1
    layers._place().write_text("[]")
    layers._found.clear()
    layers.current()
    assert len(probes) == 2
    monkeypatch.setattr(layers, "_setting", lambda name: "changed")
    layers.current()
    assert len(probes) == 3
