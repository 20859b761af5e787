"""Clones: twins made distinct, sealed from each other, and gone whatever happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance import accelerator, built, initrd, template
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.plugging import PluggedLayer
from fleetscan.appliance.vm import ApplianceVM
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import MemorySink
from tests.vm.machines import (
    Host,
    checksum,
    eventually,
    has_ended,
    image_of,
    prepared,
    qemus,
    small_system,
    soon,
    taken_over,
)
from tests.vm.ordinary import facts

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ORDINARY_USER = 12345
DEADLINE = 6.0
SLACK = 9.0  # a host that is busy with other things


@pytest.fixture(scope="module")
def hostile() -> Host:
    return taken_over()


@pytest.fixture
def hostile_everywhere(hostile: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine that is inspected has the hostile agent in its appliance."""
    monkeypatch.setattr(template, "prepare", lambda appliance, options: hostile.template)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a QEMU behind."""
    before = qemus()
    yield
    assert qemus() <= before


def personalize(machine: ApplianceVM) -> None:
    entropy, now = os.urandom(64).hex(), int(time.time() * 1e6)
    machine.call("personalize", soon(), entropy=entropy, time_us=now)


# -- Twins -----------------------------------------------------------------------------------


def test_twins_draw_different_random_numbers(hostile: Host) -> None:
    drawn = []
    for _ in range(3):
        with hostile.clone() as machine:
            personalize(machine)
            drawn += [machine.call("random", soon()) for _ in range(2)]
    assert len(set(drawn)) == len(drawn) == 6


def test_a_clones_clock_is_right_however_old_its_template(hostile: Host) -> None:
    with hostile.clone() as machine:
        stale = machine.call("now", soon())
        personalize(machine)
        before = time.time()
        told = machine.call("now", soon())
        assert before - 1 <= told <= time.time() + 1
        assert stale < told


def test_twins_do_not_see_what_the_other_writes(hostile: Host) -> None:
    memory = f"/proc/self/fd/{hostile.template.memory}"
    before = checksum(memory)
    with hostile.clone() as one, hostile.clone() as other:
        assert one.call("scribble", soon(120), mebibytes=64) == 64 << 20
        assert other.call("hello", soon()) == {"protocol": 1}
    with hostile.clone() as next_one:
        assert next_one.call("hello", soon()) == {"protocol": 1}
    assert checksum(memory) == before


def test_a_guest_cannot_write_its_disks_nor_the_root_image(hostile: Host, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(os.urandom(1 << 20))
    before = checksum(disk), checksum(hostile.appliance.root)
    with hostile.clone() as machine:
        plug(machine, disk, os.O_RDONLY)
        words = [machine.call("write", soon(), path=path) for path in ("/dev/sda", "/dev/vda")]
    assert all(words), words
    assert "No such file or directory" not in words
    assert (checksum(disk), checksum(hostile.appliance.root)) == before


def test_a_descriptor_that_could_be_written_is_refused_by_qemu(
    hostile: Host, tmp_path: Path
) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    with hostile.clone() as machine, pytest.raises(ApplianceError, match="Permission denied"):
        plug(machine, tmp_path / "disk.raw", os.O_RDWR)


def plug(machine: ApplianceVM, disk: Path, flags: int) -> None:
    descriptor = os.open(disk, flags)
    try:
        machine.plug(0, [PluggedLayer("raw", (descriptor,))], soon())
    finally:
        os.close(descriptor)


# -- A guest that was taken over -------------------------------------------------------------


def bait(folder: Path, behaviour: str) -> Machine:
    """A machine whose disk tells the hostile agent what to do."""
    image = folder / f"{behaviour}.raw"
    image.write_bytes(f"{behaviour}\n".encode().ljust(1 << 20, b"\0"))
    return Machine(behaviour, (Disk(str(image), "raw"),), "test")


def inspected(machine: Machine, **options: Any) -> dict[str, Any]:  # Any: options and columns
    sink = MemorySink()
    inspect_machine(machine, ScanOptions.of(deadline=DEADLINE, **options), sink)
    (row,) = sink.table("machines").to_pylist()
    return dict(row)


@pytest.mark.usefixtures("hostile_everywhere")
@pytest.mark.parametrize(
    ("behaviour", "outcome", "words"),
    [
        ("stall", "failed", "did not finish within 6 s"),
        ("exit", "failed", "the appliance stopped: QEMU ended with status 0"),
        ("zeros", "failed", "invalid frame"),
        ("announce", "failed", "invalid frame"),
        ("deep-json", "failed", "JSON"),
        ("roots-many", "failed", "wrong shape"),
        ("row-flood", "partial", ""),
        ("other-table", "partial", "not asked for"),
        ("long-row", "partial", "rows were refused"),
        ("all-empty", "ok", ""),
    ],
)
def test_what_an_image_makes_of_its_guest_costs_its_machine_alone(
    tmp_path: Path, behaviour: str, outcome: str, words: str
) -> None:
    begun = time.monotonic()
    row = inspected(bait(tmp_path, behaviour))
    assert time.monotonic() - begun < DEADLINE + SLACK
    assert row["outcome"] == outcome
    assert words in (row["error"] or "")


def test_a_guest_that_panics_is_reported(hostile: Host) -> None:
    with hostile.clone() as machine:
        with pytest.raises(ApplianceError, match="the appliance stopped: QEMU ended") as caught:
            machine.call("sysrq", soon(), key="c")
        assert "Kernel panic - not syncing: sysrq triggered crash" in str(caught.value)
        assert str(caught.value).isprintable()


# -- A VM that is hurt from outside ----------------------------------------------------------


def hurt(number: signal.Signals, before: set[int], after: float) -> None:
    """Send a signal to the next QEMU of ours, some seconds after it began."""
    assert eventually(lambda: bool(qemus() - before), 30)
    time.sleep(after)
    for pid in qemus() - before:
        os.kill(pid, number)


@contextlib.contextmanager
def hurting(number: signal.Signals, after: float) -> Iterator[None]:
    thread = threading.Thread(target=hurt, args=(number, qemus(), after))
    thread.start()
    yield
    thread.join()


@pytest.mark.usefixtures("hostile_everywhere")
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "QEMU ended with status -9"), (signal.SIGSTOP, "did not finish within 6 s")],
)
def test_a_vm_that_is_killed_or_hangs_costs_its_deadline_at_most(
    tmp_path: Path, number: signal.Signals, words: str
) -> None:
    begun = time.monotonic()
    with hurting(number, after=1.5):
        row = inspected(bait(tmp_path, "stall"))
    assert time.monotonic() - begun < DEADLINE + SLACK
    assert (row["outcome"], row["stage"]) == ("failed", "discover")
    assert words in row["error"]


@pytest.mark.usefixtures("hostile_everywhere")
@pytest.mark.parametrize("after", [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_a_vm_that_is_killed_at_any_moment_is_reported(tmp_path: Path, after: float) -> None:
    with hurting(signal.SIGKILL, after):
        row = inspected(bait(tmp_path, "stall"))
    assert (row["outcome"], row["error_kind"]) == ("failed", "ApplianceError")
    assert row["stage"] in ("appliance", "discover")
    assert "QEMU" in row["error"]


HOLDER = """
import time
from tests.vm.machines import prepared
with prepared().clone() as machine:
    print(machine.pid, flush=True)
    time.sleep(600)
"""


def test_a_parent_that_is_killed_takes_its_vm_with_it_and_leaves_no_file(tmp_path: Path) -> None:
    prepared()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(initrd.PROJECT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    assert eventually(lambda: has_ended(pid))
    assert list(temporary.iterdir()) == []


# -- The same facts, whatever way ------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small guest's disk, where an ordinary user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tree = small_system(tmp_path_factory.mktemp("guest"))
        disk = image_of(tree, Path(folder) / "guest.raw")
        disk.chmod(0o644)
        yield disk


@pytest.fixture(scope="module")
def by_template(image: Path) -> dict[str, list[dict[str, Any]]]:
    prepared()
    return facts(image, ScanOptions())


def test_a_clone_finds_the_facts(by_template: dict[str, list[dict[str, Any]]]) -> None:
    assert [row["name"] for row in by_template["packages"]] == ["bash"]
    assert len(by_template["files"]) > 300
    assert "4755" in {oct(int(row["mode"]))[2:] for row in by_template["files"]}


def test_a_boot_finds_the_same_facts_row_for_row(
    image: Path, by_template: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_template(*_: object) -> None:
        raise AssertionError("no template is to be used")

    monkeypatch.setattr(template, "prepare", no_template)
    assert facts(image, ScanOptions.of(template=False)) == by_template


def test_an_ordinary_user_finds_the_same_facts_row_for_row(
    image: Path, by_template: dict[str, list[dict[str, Any]]]
) -> None:
    user = ORDINARY_USER if os.geteuid() == 0 else os.geteuid()
    appliance = built.find()
    environment = {**os.environ, "FLEETSCAN_ACCELERATOR": accelerator.choose(appliance)}
    with tempfile.TemporaryDirectory() as cache:
        place = Path(cache, "appliance", appliance.directory.name)
        shutil.copytree(appliance.directory, place, copy_function=link_or_copy)
        if os.geteuid() == 0:
            os.chown(cache, user, user)
        command = [sys.executable, "-m", "tests.vm.ordinary", str(user), cache, str(image)]
        done = subprocess.run(
            command,
            cwd=initrd.PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        made = list(Path(cache, "template").glob("*/state"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["uid"] == user
    assert len(made) == 1
    assert answer["tables"] == by_template


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_where_there_can_be_no_template_the_appliance_is_booted(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_template(*_: object) -> None:
        raise ApplianceError("the disk is full")

    def booted(*_: object, **options: object) -> None:
        raise ApplianceError(f"booted without state: {options.get('state')}")

    monkeypatch.setattr(template, "prepare", no_template)
    monkeypatch.setattr("fleetscan.scanner.isolation.ApplianceVM", booted)
    row = inspected(Machine("m", (Disk(str(image), "raw"),), "test"))
    assert row["error"] == "booted without state: None"
