"""Templates on disk and in sealed memory; the appliance's boot is stood in for by a moment."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance import accelerator, initrd, template
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.template import Template
from fleetscan.appliance.verified import identity
from tests.agents import agent_of

OPTIONS = VMOptions("tcg", memory_mib=4)
SIZE = OPTIONS.memory_mib << 20
STATE = b"device state " * 1000
PAGE = b"\x5a" * 4096


def save(memory: int, state: BufferedWriter) -> None:
    """What a boot leaves: some memory here and there, and the rest of the state."""
    for offset in (0, 1 << 20, os.fstat(memory).st_size - len(PAGE)):
        os.pwrite(memory, PAGE, offset)
    state.write(STATE)


@pytest.fixture
def boots(small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """When an appliance was booted."""
    times: list[float] = []

    def boot(appliance: Appliance, options: VMOptions, memory: int, state: BufferedWriter) -> None:
        times.append(time.monotonic())
        save(memory, state)

    monkeypatch.setattr(template, "_boot_and_save", boot)
    monkeypatch.setattr(accelerator, "qemu_build", lambda: "qemu-7.2")
    forget()
    yield times
    forget()


def forget() -> None:
    """What this process knows of templates; it holds its memory files as long as it lives."""
    template._prepared.cache_clear()
    template._failures.clear()


@pytest.fixture
def place(cache: Path, small_appliance: Appliance, boots: list[float]) -> Path:
    """Where the template is."""
    return cache / "template" / template.key_of(small_appliance, OPTIONS)


def content(made: Template) -> bytes:
    return os.pread(made.memory, SIZE, 0)


EXPECTED = PAGE + bytes((1 << 20) - 4096) + PAGE + bytes(SIZE - (1 << 20) - 2 * 4096) + PAGE


# -- Making and finding ----------------------------------------------------------------------


def test_a_template_holds_memory_and_state(
    small_appliance: Appliance, boots: list[float], place: Path
) -> None:
    made = template.prepare(small_appliance, OPTIONS)
    assert (made.key, made.state, content(made)) == (place.name, STATE, EXPECTED)
    names = {path.name for path in place.iterdir()}
    assert names == {"memory", "state", "sums.json", "shared.json"}
    assert (place / "memory").stat().st_blocks * 512 < SIZE  # holes stay holes


def test_it_is_made_once_a_host(small_appliance: Appliance, boots: list[float]) -> None:
    first = template.prepare(small_appliance, OPTIONS)
    assert template.prepare(small_appliance, OPTIONS) is first
    forget()
    assert content(template.prepare(small_appliance, OPTIONS)) == EXPECTED
    assert len(boots) == 1


def test_what_a_crash_left_is_swept_away(
    small_appliance: Appliance, place: Path, cache: Path
) -> None:
    leftover = cache / "template" / ".new-crashed"
    leftover.mkdir(parents=True)
    (leftover / "memory").write_bytes(b"half")
    template.prepare(small_appliance, OPTIONS)
    assert {path.name for path in (cache / "template").iterdir()} == {"lock", place.name}


def test_the_three_used_last_are_kept(
    small_appliance: Appliance, cache: Path, boots: list[float]
) -> None:
    keys = {}
    for size in (2, 3, 4, 5, 6):
        keys[size] = template.prepare(small_appliance, VMOptions("tcg", size)).key
        used = 100 if size == 2 else size  # the first is used again and again
        os.utime(cache / "template" / keys[size], (used, used))
    kept = {path.parent.name for path in (cache / "template").glob("*/state")}
    assert kept == {keys[2], keys[5], keys[6]}
    assert len(boots) == 5


PREPARE = """
import os, sys, time
from pathlib import Path
from fleetscan.appliance import accelerator, built, cache, template
from fleetscan.appliance.qemu_args import VMOptions

def boot(appliance, options, memory, state):
    print("booted", flush=True)
    time.sleep(float(sys.argv[1]))
    os.pwrite(memory, b"x" * 4096, 0)
    state.write(b"state")

template._boot_and_save = boot
accelerator.qemu_build = lambda: "qemu-7.2"
made = template.prepare(built.find(), VMOptions("tcg", 4))
print(os.fstat(made.memory).st_ino, flush=True)
sys.stdin.read()
"""


def processes(count: int, seconds: float = 0.5) -> Iterator[subprocess.Popen[str]]:
    """Processes that want the template, whose boot takes so long; they end with their input."""
    for _ in range(count):
        yield subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(initrd.PROJECT)},
        )


def words(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


@pytest.mark.usefixtures("small_appliance")
def test_processes_that_want_it_at_once_make_it_once_and_share_its_memory() -> None:
    started = list(processes(3))
    try:
        said = [words(process, 1)[0] for process in started]
        assert said.count("booted") == 1
        maker = started[said.index("booted")]
        inodes = {*words(maker, 1), *(word for word in said if word != "booted")}
        assert len(inodes) == 1
    finally:
        for process in started:
            process.communicate()


@pytest.mark.usefixtures("small_appliance")
def test_a_process_that_is_killed_while_it_makes_one_holds_nobody_up(cache: Path) -> None:
    (killed,) = processes(1, seconds=60)
    assert words(killed, 1) == ["booted"]
    killed.kill()
    killed.communicate()
    assert list((cache / "template").glob(".new-*"))
    (next_one,) = processes(1)
    assert words(next_one, 1) == ["booted"]
    next_one.communicate(timeout=60)
    assert not list((cache / "template").glob(".new-*"))
    assert len(list((cache / "template").glob("*/state"))) == 1


@pytest.mark.usefixtures("small_appliance")
def test_memory_outlives_the_process_that_sealed_it(cache: Path) -> None:
    (process,) = processes(1)
    assert words(process, 1) == ["booted"]
    (inode,) = words(process, 1)
    (path,) = cache.glob("template/*/shared.json")
    made = template._load(path.parent)
    assert made is not None
    assert str(os.fstat(made.memory).st_ino) == inode
    process.communicate()
    assert os.pread(made.memory, 1, 0) == b"x"
    again = template._load(path.parent)  # nobody is where the note says: a copy of its own
    assert again is not None
    assert os.fstat(again.memory).st_ino != os.fstat(made.memory).st_ino
    for descriptor in (made.memory, again.memory):
        os.close(descriptor)


# -- Damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory", "state", "sums.json"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "changed"])
def test_a_damaged_template_is_made_anew(
    small_appliance: Appliance, boots: list[float], place: Path, name: str, damage: str
) -> None:
    os.close(template.prepare(small_appliance, OPTIONS).memory)  # as if its process had ended
    forget()
    path = place / name
    whole = path.read_bytes()
    changes = {"emptied": b"", "cut": whole[:-1], "changed": bytes([whole[0] ^ 1]) + whole[1:]}
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(changes[damage])
    made = template.prepare(small_appliance, OPTIONS)
    assert (made.state, content(made)) == (STATE, EXPECTED)
    assert len(boots) == 2
    assert json.loads((place / "sums.json").read_text()).keys() == {"memory", "state"}


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"null", b'{"pid": 1, "descriptor": 0, "inode": 1}', b'{"pid": "x"}']
)
def test_a_note_that_leads_nowhere_is_no_harm(
    small_appliance: Appliance, boots: list[float], place: Path, note: bytes
) -> None:
    template.prepare(small_appliance, OPTIONS)
    forget()
    (place / "shared.json").write_bytes(note)
    assert content(template.prepare(small_appliance, OPTIONS)) == EXPECTED
    assert len(boots) == 1


def test_a_note_that_leads_to_another_file_is_not_followed(
    small_appliance: Appliance, place: Path, tmp_path: Path
) -> None:
    template.prepare(small_appliance, OPTIONS)
    forget()
    other = os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(other, SIZE)
    notes = [(other, os.fstat(other).st_ino)]
    with (tmp_path / "plain").open("wb+") as plain:
        plain.truncate(SIZE)
        notes.append((plain.fileno(), os.fstat(plain.fileno()).st_ino))
        for descriptor, inode in notes:
            note = {"pid": os.getpid(), "descriptor": descriptor, "inode": inode}
            (place / "shared.json").write_text(json.dumps(note))
            assert content(template.prepare(small_appliance, OPTIONS)) == EXPECTED
            forget()
    os.close(other)


# -- Failure ---------------------------------------------------------------------------------


def test_a_failure_is_told_and_not_tried_again_for_every_machine(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch, boots: list[float], cache: Path
) -> None:
    tries: list[int] = []

    def fail(*_: object) -> None:
        tries.append(1)
        raise ApplianceError("the appliance stopped: no words")

    monkeypatch.setattr(template, "_boot_and_save", fail)
    for _ in range(3):
        with pytest.raises(ApplianceError, match="the appliance stopped: no words"):
            template.prepare(small_appliance, OPTIONS)
    assert len(tries) == 1
    assert [path.name for path in (cache / "template").iterdir()] == ["lock"]
    monkeypatch.setattr(template, "_RETRY_SECONDS", -1.0)
    template._failures.clear()
    for _ in range(2):
        with pytest.raises(ApplianceError):
            template.prepare(small_appliance, OPTIONS)
    assert len(tries) == 3


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    small_appliance: Appliance, cache: Path, boots: list[float]
) -> None:
    (cache / "template").write_text("in the way")
    with pytest.raises(ApplianceError, match="the template could not be made"):
        template.prepare(small_appliance, OPTIONS)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    small_appliance: Appliance, cache: Path, monkeypatch: pytest.MonkeyPatch, boots: list[float]
) -> None:
    def full(source: int, target: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(template, "_copy_sparse", full)
    with pytest.raises(ApplianceError, match="No space left on device"):
        template.prepare(small_appliance, OPTIONS)
    assert [path.name for path in (cache / "template").iterdir()] == ["lock"]


# -- The key ---------------------------------------------------------------------------------


def test_a_change_of_anything_that_is_in_a_template_changes_its_key(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch, boots: list[float]
) -> None:
    keys = [template.key_of(small_appliance, OPTIONS)]
    keys.append(template.key_of(small_appliance, VMOptions("tcg", 8)))
    keys.append(template.key_of(small_appliance, VMOptions("kvm", 4)))
    other = dataclasses.replace(small_appliance, content="another")
    keys.append(template.key_of(other, OPTIONS))
    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "qemu_build", lambda: "qemu-8.2")
        keys.append(template.key_of(small_appliance, OPTIONS))
    with agent_of({"start.py": b"another"}):
        keys.append(template.key_of(small_appliance, OPTIONS))
    assert len(set(keys)) == len(keys)
    assert template.key_of(small_appliance, OPTIONS) == keys[0]


def test_under_kvm_another_processor_has_another_key(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch, boots: list[float]
) -> None:
    kvm = VMOptions("kvm", 4)
    before = [template.key_of(small_appliance, options) for options in (kvm, OPTIONS)]
    monkeypatch.setattr(template, "_host_processor", lambda: "another one")
    after = [template.key_of(small_appliance, options) for options in (kvm, OPTIONS)]
    assert before[0] != after[0]
    assert before[1] == after[1]


# -- Sealed memory ---------------------------------------------------------------------------


def test_the_memory_that_clones_map_is_sealed(
    small_appliance: Appliance, boots: list[float]
) -> None:
    made = template.prepare(small_appliance, OPTIONS)
    seals = fcntl.fcntl(made.memory, fcntl.F_GET_SEALS)
    wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert seals & wanted == wanted
    writable = os.open(f"/proc/self/fd/{made.memory}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(writable, b"x", 0)
    os.close(writable)
    assert not os.get_inheritable(made.memory)


# -- Copies ----------------------------------------------------------------------------------

_UNIT = 64 << 10

layouts = st.lists(st.tuples(st.integers(0, 63), st.binary(min_size=1, max_size=9)), max_size=8)


def sparse(layout: list[tuple[int, bytes]]) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SIZE)
    for unit, data in layout:
        os.pwrite(descriptor, data, unit * _UNIT)
    return descriptor


@settings(max_examples=40)
@given(layouts)
def test_a_copy_is_the_same_whatever_is_data_and_what_is_not(
    layout: list[tuple[int, bytes]],
) -> None:
    source, target = sparse(layout), os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        template._copy_sparse(source, target)
        assert os.pread(target, SIZE, 0) == os.pread(source, SIZE, 0)
        assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks
        assert template._checksum(target) == template._checksum(source)
    finally:
        os.close(source)
        os.close(target)


@settings(max_examples=40)
@given(layouts, st.integers(0, 63), st.integers(1, 255))
def test_a_checksum_tells_any_changed_byte_and_not_how_zeros_are_kept(
    layout: list[tuple[int, bytes]], unit: int, change: int
) -> None:
    source = sparse(layout)
    try:
        before = template._checksum(source)
        (byte,) = os.pread(source, 1, unit * _UNIT)
        os.pwrite(source, bytes([byte]), unit * _UNIT)  # a hole of zeros may become data
        assert template._checksum(source) == before
        os.pwrite(source, bytes([byte ^ change]), unit * _UNIT)
        assert template._checksum(source) != before
    finally:
        os.close(source)


# -- Others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", "memory", "state", "sums.json"])
def test_a_template_that_others_could_have_written_is_made_anew(
    small_appliance: Appliance, boots: list[float], place: Path, name: str
) -> None:
    os.close(template.prepare(small_appliance, OPTIONS).memory)  # as if its process had ended
    forget()
    (place / name).chmod(0o777 if name == "." else 0o666)
    made = template.prepare(small_appliance, OPTIONS)
    assert (made.state, content(made)) == (STATE, EXPECTED)
    assert len(boots) == 2
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert place.stat().st_mode & 0o777 == 0o700


def test_templates_in_a_directory_that_others_may_write_are_not_used(
    small_appliance: Appliance, boots: list[float], place: Path
) -> None:
    template.prepare(small_appliance, OPTIONS)
    forget()
    place.parent.chmod(0o777)
    with pytest.raises(ApplianceError, match="the cache is not used") as caught:
        template.prepare(small_appliance, OPTIONS)
    assert "can be written by other users" in str(caught.value)


def test_sealed_memory_of_another_user_is_not_taken_for_ours(
    small_appliance: Appliance, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gets the number of a process that ended can have a file like ours under the same one."""
    made = template.prepare(small_appliance, OPTIONS)
    forget()
    poisoned = os.memfd_create("fleetscan-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(poisoned, SIZE)
    os.pwrite(poisoned, b"evil", 0)
    fcntl.fcntl(poisoned, fcntl.F_ADD_SEALS, template._SEALS)
    file = list(identity(os.fstat(poisoned)))
    noted = json.loads((place / "shared.json").read_text())["file"]
    for forged, stranger in ((file, True), ([*file[:-1], noted[-1]], False)):
        note = {"pid": os.getpid(), "descriptor": poisoned, "file": forged}
        (place / "shared.json").write_text(json.dumps(note))
        with monkeypatch.context() as patch:
            if stranger:
                patch.setattr(os, "geteuid", lambda: 4711)
            assert content(template.prepare(small_appliance, OPTIONS)) == content(made) == EXPECTED
        forget()
    os.close(poisoned)
