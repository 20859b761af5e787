"""The doctor on hosts that lack something, each made so by an environment of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import accelerator, built, doctor
from fleetscan.appliance.accelerator import Probe
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError

QEMU = "qemu-system-x86_64"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is all of PATH, with what the checks start themselves."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for tool in ("setpriv", "sh", "id"):
            place = next(
                Path(top) / tool for top in ("/usr/bin", "/bin") if (Path(top) / tool).exists()
            )
            Path(folder, tool).symlink_to(place)
        monkeypatch.setenv("PATH", folder)
        yield Path(folder)


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def check(name: str) -> doctor.HostCheck:
    """One check's outcome; none of the others is carried out."""
    only = {name: doctor._CHECKS[name]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "_CHECKS", only)
        (outcome,) = doctor.run_checks()
    assert outcome.name == name
    assert outcome.ok or outcome.hint
    return outcome


def test_every_part_is_checked_in_the_order_of_a_scan() -> None:
    assert list(doctor._CHECKS) == [
        "QEMU",
        "qemu-img",
        "confinement",
        "worker keys",
        "memory",
        "cache space",
        "appliance",
        "accelerator",
        "a whole start",
    ]


@pytest.mark.parametrize(
    ("name", "package"),
    [("QEMU", "qemu-system-x86"), ("qemu-img", "qemu-utils"), ("worker keys", "openssl")],
)
def test_a_missing_tool_is_reported_with_its_package(
    programs: Path, name: str, package: str
) -> None:
    outcome = check(name)
    assert not outcome.ok
    assert "is not installed" in outcome.detail
    assert outcome.hint == f"on Debian: apt-get install {package}"


@pytest.mark.parametrize(
    ("version", "ok"),
    [("6.1.0", False), ("6.2.0", True), ("7.2.22", True), ("10.0.3", True), ("x", False)],
)
def test_qemu_must_be_new_enough(programs: Path, version: str, ok: bool) -> None:
    program(programs, QEMU, f"echo QEMU emulator version {version}")
    outcome = check("QEMU")
    assert (outcome.ok, outcome.detail) == (ok, f"QEMU emulator version {version}")


def test_a_tool_that_does_not_work_is_reported_with_its_last_words(programs: Path) -> None:
    program(programs, QEMU, "echo error while loading libfoo.so >&2; exit 127")
    outcome = check("QEMU")
    assert not outcome.ok
    assert "ended with 127: error while loading libfoo.so" in outcome.detail
    assert "--reinstall" in outcome.hint


def test_a_tool_that_hangs_is_reported(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_COMMAND_SECONDS", 0.2)
    program(programs, QEMU, "exec /bin/sleep 60")
    assert check("QEMU").detail == f"{QEMU} does not finish within 0.2 s"


def test_confinement_is_tried_by_confining(cache: Path) -> None:
    outcome = check("confinement")
    assert outcome.ok
    assert "namespaces, root, seccomp" in outcome.detail


def test_layers_that_do_not_hold_are_listed_with_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for tool in ("setpriv", "sh", QEMU, "qemu-img", "ldd"):
            Path(folder, tool).symlink_to(str(shutil.which(tool)))
        monkeypatch.setenv("PATH", folder)  # no bubblewrap
        outcome = check("confinement")
    assert not outcome.ok
    assert "namespaces, root, seccomp, landlock" in outcome.detail.partition("missing:")[2]
    assert "namespaces: install bubblewrap" in outcome.hint


def test_keys_are_made_by_openssl() -> None:
    assert "OpenSSL" in check("worker keys").detail


def test_an_appliance_whose_files_changed_is_reported(small_appliance: Appliance) -> None:
    small_appliance.root.write_bytes(b"evil")
    outcome = check("appliance")
    assert not outcome.ok
    assert "damaged" in outcome.detail


def test_memory_counts_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOT_MIB", 1)
    assert check("memory").ok
    monkeypatch.setattr(doctor, "SLOT_MIB", 1 << 40)
    outcome = check("memory")
    assert not outcome.ok
    assert "enough for 0 machines" in outcome.detail


def test_space_is_checked_in_the_cache_by_writing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_CACHE_MIB", 0)
    assert check("cache space").ok
    monkeypatch.setattr(doctor, "_CACHE_MIB", 1 << 40)
    assert "FLEETSCAN_CACHE" in check("cache space").hint
    (cache / "file").touch()
    monkeypatch.setenv("FLEETSCAN_CACHE", str(cache / "file"))
    assert not check("cache space").ok


@pytest.mark.usefixtures("cache")
def test_a_missing_appliance_is_reported_with_the_command_that_makes_it() -> None:
    outcome = check("appliance")
    assert not outcome.ok
    assert "fleetscan appliance build" in outcome.hint


def test_an_appliance_is_reported_with_its_kernel(small_appliance: Appliance) -> None:
    outcome = check("appliance")
    assert outcome.ok
    assert small_appliance.kernel_release in outcome.detail


@pytest.mark.usefixtures("small_appliance")
@pytest.mark.parametrize(
    ("kvm", "tcg", "ok", "words"),
    [
        (Probe(True, 0.4), Probe(True, 2), True, "kvm boots a kernel in 0.4 s"),
        (
            Probe(False, 6, "it hangs"),
            Probe(True, 2),
            True,
            "tcg boots a kernel in 2.0 s; kvm does",
        ),
        (Probe(False, 6, "it hangs"), Probe(False, 1, "no room"), False, "it hangs); tcg: no room"),
    ],
)
def test_accelerators_are_told_by_what_boots(
    kvm: Probe, tcg: Probe, ok: bool, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM", str(tmp_path / "kvm"))
    probes = {"kvm": kvm, "tcg": tcg}
    monkeypatch.setattr(accelerator, "probe", lambda appliance, name: probes[name])
    outcome = check("accelerator")
    assert outcome.ok is ok
    assert words in outcome.detail


@pytest.mark.usefixtures("small_appliance")
def test_a_host_without_kvm_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "KVM", "/nowhere/kvm")
    monkeypatch.setattr(accelerator, "probe", lambda appliance, name: Probe(name == "tcg", 2))
    outcome = check("accelerator")
    assert outcome.ok
    assert "there is no /nowhere/kvm" in outcome.detail


def test_a_whole_start_that_fails_is_reported(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise ApplianceError("the appliance stopped: QEMU ended with status 1\nmore", hint="why")

    monkeypatch.setattr(accelerator, "choose", lambda appliance: "tcg")
    monkeypatch.setattr(doctor, "ApplianceVM", stopped)
    outcome = check("a whole start")
    assert (outcome.ok, outcome.hint) == (False, "why")
    assert outcome.detail == "the appliance stopped: QEMU ended with status 1"
    assert built.find() == small_appliance
