"""The choice of an accelerator, with QEMUs that behave as broken hosts make them behave."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import accelerator
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.qemu_args import Accelerator

BOOTS = "echo '[    0.1] hello'; echo fleetscan-probe-ok"
HANGS = "echo 'KVM internal error. Suberror: 1'; exec sleep 60"
DIES = "echo 'qemu-system-x86_64: failed to initialize kvm: Permission denied' >&2; exit 1"
SILENT = "exit 3"
KILLED = "kill -SEGV $$"


class Qemu:
    """A program in PATH in QEMU's place, which notes each of its starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.chmod(0o755)
        self._starts = folder / "starts"
        self._starts.touch()
        self._starts.chmod(0o666)  # started by root, it runs as nobody

    def does(self, script: str) -> None:
        program = self._folder / "qemu-system-x86_64"
        program.write_text(f'#!/bin/sh\necho "$@" >>{self._starts}\n{script}\n')
        program.chmod(0o755)

    @property
    def starts(self) -> list[str]:
        return self._starts.read_text().splitlines()


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch, unconfined: None) -> Iterator[Qemu]:
    # Not below tmp_path, which is closed to nobody, as whom QEMU runs when we are root.
    with tempfile.TemporaryDirectory() as folder:
        stub = Qemu(Path(folder))
        stub.does(BOOTS)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setitem(accelerator._PROBE_SECONDS, "kvm", 1.0)
        monkeypatch.delenv("FLEETSCAN_ACCELERATOR", raising=False)
        yield stub


@pytest.fixture
def usable_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has /dev/kvm, and lets us use it."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM", str(tmp_path / "kvm"))


def test_a_kernel_that_says_that_it_runs_makes_an_accelerator_work(
    qemu: Qemu, small_appliance: Appliance
) -> None:
    found = accelerator.probe(small_appliance, "kvm")
    assert (found.works, found.detail) == (True, "")
    assert "-accel kvm" in qemu.starts[0]


def test_a_kernel_that_hangs_costs_the_deadline_and_no_more(
    qemu: Qemu, small_appliance: Appliance
) -> None:
    qemu.does(HANGS)
    begun = time.monotonic()
    found = accelerator.probe(small_appliance, "kvm")
    assert (found.works, found.detail) == (False, "no kernel came up within 1 s")
    assert 1 <= time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (DIES, "qemu-system-x86_64: failed to initialize kvm: Permission denied"),
        (SILENT, "QEMU ended with 3"),
        (KILLED, "QEMU ended with -11"),
    ],
    ids=["dies", "silent", "killed"],
)
def test_a_qemu_that_ends_is_reported_with_its_last_words(
    qemu: Qemu, small_appliance: Appliance, script: str, detail: str
) -> None:
    qemu.does(script)
    found = accelerator.probe(small_appliance, "tcg")
    assert (found.works, found.detail) == (False, detail)


@pytest.mark.usefixtures("usable_kvm")
@pytest.mark.parametrize(
    ("script", "chosen"),
    [(BOOTS, "kvm"), (HANGS, "tcg"), (DIES, "tcg")],
    ids=["boots", "hangs", "dies"],
)
def test_kvm_is_chosen_where_a_kernel_boots_under_it(
    qemu: Qemu, small_appliance: Appliance, script: str, chosen: Accelerator
) -> None:
    qemu.does(script)
    assert accelerator.choose(small_appliance) == chosen


def test_without_kvm_nothing_is_probed(
    qemu: Qemu, small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "KVM", "/nowhere/kvm")
    assert accelerator.choose(small_appliance) == "tcg"
    assert qemu.starts == []


@pytest.mark.usefixtures("usable_kvm")
def test_a_finding_is_remembered(qemu: Qemu, small_appliance: Appliance) -> None:
    assert [accelerator.choose(small_appliance) for _ in range(3)] == ["kvm"] * 3
    assert len(qemu.starts) == 1


@pytest.mark.usefixtures("usable_kvm")
def test_another_qemu_is_probed_anew(qemu: Qemu, small_appliance: Appliance) -> None:
    accelerator.choose(small_appliance)
    qemu.does(DIES)
    assert accelerator.choose(small_appliance) == "tcg"


@pytest.mark.usefixtures("usable_kvm")
def test_another_host_kernel_is_probed_anew(
    qemu: Qemu, small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator.choose(small_appliance)
    monkeypatch.setattr(platform, "release", lambda: "9.9.9")
    accelerator.choose(small_appliance)
    assert len(qemu.starts) == 2


@pytest.mark.usefixtures("usable_kvm")
def test_an_old_finding_is_probed_anew(qemu: Qemu, small_appliance: Appliance, cache: Path) -> None:
    accelerator.choose(small_appliance)
    kept = json.loads((cache / "accelerator.json").read_text())
    (cache / "accelerator.json").write_text(json.dumps({**kept, "at": kept["at"] - 8 * 86400}))
    accelerator.choose(small_appliance)
    assert len(qemu.starts) == 2


@pytest.mark.usefixtures("usable_kvm")
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"at": "now"}'])
def test_a_damaged_memory_is_no_memory(
    qemu: Qemu, small_appliance: Appliance, cache: Path, content: bytes
) -> None:
    (cache / "accelerator.json").write_bytes(content)
    assert accelerator.choose(small_appliance) == "kvm"
    assert len(qemu.starts) == 1


@pytest.mark.usefixtures("usable_kvm")
def test_a_cache_that_cannot_be_written_costs_a_probe_and_no_more(
    qemu: Qemu, small_appliance: Appliance, cache: Path
) -> None:
    (cache / "accelerator.json").mkdir()
    assert accelerator.choose(small_appliance) == "kvm"
    assert accelerator.choose(small_appliance) == "kvm"
    assert len(qemu.starts) == 2


@pytest.mark.usefixtures("usable_kvm")
@pytest.mark.parametrize("word", ["kvm", "tcg"])
def test_the_environment_overrides_every_probe(
    qemu: Qemu, small_appliance: Appliance, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETSCAN_ACCELERATOR", word)
    assert accelerator.choose(small_appliance) == word
    assert qemu.starts == []


def test_another_word_in_the_environment_is_an_error(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETSCAN_ACCELERATOR", "hvf")
    with pytest.raises(ApplianceError, match="FLEETSCAN_ACCELERATOR is 'hvf'") as caught:
        accelerator.choose(small_appliance)
    assert caught.value.hint == "set it to kvm or tcg"


def test_a_host_without_qemu_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ApplianceError, match="not installed") as caught:
        accelerator.qemu_build()
    assert "qemu-system-x86" in caught.value.hint
