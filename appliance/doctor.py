"""Checks of everything that a scan needs from its host, each by using it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance import accelerator, built, cache
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, CommandError, FleetscanError
from fleetscan.appliance.host import command, writing
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.vm import ApplianceVM

SLOT_MIB = 700
"""Memory that one scan at a time needs: the appliance's own and a worker's."""

_COMMAND_SECONDS = 30
_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
_DOCTOR = "`fleetscan doctor` checks everything that a scan needs"
_MIN_QEMU = (6, 2)
_CACHE_MIB = 2000


@dataclass(frozen=True)
class HostCheck:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        ok: whether a scan can do with it.
        detail: what was found.
        hint: what to do when it is not ok, or could be better; empty for nothing.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""


def run_checks() -> Iterator[HostCheck]:
    """All checks, in the order in which a scan would need their subjects."""
    for name, check in _CHECKS.items():
        try:
            yield check(name)
        except FleetscanError as error:
            yield HostCheck(name, False, str(error).splitlines()[0], error.hint)
        except OSError as error:
            yield HostCheck(name, False, str(error), "install what is missing and try again")


def require_programs_and_memory() -> None:
    """Make sure, at next to no cost, that this host could start an appliance at all.

    Raises:
        ApplianceError: it cannot, and every machine would fail for the same reason.
    """
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise ApplianceError(
                f"this host cannot scan: {program} is not installed",
                hint=f"on Debian: apt-get install {package}; {_DOCTOR}",
            )
    memory = _memory("memory")
    if not memory.ok:
        raise ApplianceError(
            f"this host cannot scan now: {memory.detail}", hint=f"{memory.hint}; {_DOCTOR}"
        )


def _qemu(name: str) -> HostCheck:
    text = _output(["qemu-system-x86_64", "--version"], "qemu-system-x86")
    found = re.search(r"version (\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _MIN_QEMU:
        return HostCheck(name, False, text.splitlines()[0], "install QEMU 6.2 or newer")
    return HostCheck(name, True, text.splitlines()[0])


def _qemu_img(name: str) -> HostCheck:
    with tempfile.TemporaryDirectory() as folder:
        image = f"{folder}/probe.qcow2"
        _output(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], "qemu-utils")
        _output(["qemu-img", "check", "-q", "-f", "qcow2", image], "qemu-utils")
    return HostCheck(name, True, "makes and reads a qcow2 image")


def _confinement(name: str) -> HostCheck:
    found = layers.listed(layers.renewed())
    missing = [layer for layer in found if not layer.holds]
    holding = ", ".join(layer.name for layer in found if layer.holds) or "nothing"
    lacking = ", ".join(layer.name for layer in missing) or "nothing"
    detail = f"holds: {holding}; missing: {lacking}"
    hint = "; ".join(f"{layer.name}: {layer.hint}" for layer in missing)
    return HostCheck(name, not any(layer.name in layers.LEAST for layer in missing), detail, hint)


def _worker_keys(name: str) -> HostCheck:
    return HostCheck(name, True, f"made by {_output(['openssl', 'version'], 'openssl').strip()}")


def _memory(name: str) -> HostCheck:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    available = int(fields["MemAvailable"].split()[0]) // 1024
    slots = available // SLOT_MIB
    detail = f"{available} MiB available: enough for {slots} machines at a time"
    hint = "" if slots else f"a scan needs {SLOT_MIB} MiB; free some"
    return HostCheck(name, slots > 0, detail, hint)


def _space(name: str) -> HostCheck:
    place = cache.cache_directory()
    with cache.trusted(place):
        writing.make_directory(place)
    with tempfile.TemporaryFile(dir=place):
        free = shutil.disk_usage(place).free >> 20
    hint = "" if free >= _CACHE_MIB else f"free {_CACHE_MIB} MiB, or set FLEETSCAN_CACHE elsewhere"
    return HostCheck(name, free >= _CACHE_MIB, f"{free} MiB free in {place}", hint)


def _appliance(name: str) -> HostCheck:
    appliance = built.find()
    built.verify(appliance)
    made_of = f"{appliance.suite}, kernel {appliance.kernel_release}"
    return HostCheck(name, True, f"{appliance.content} ({made_of}) in {appliance.directory}")


def _acceleration(name: str) -> HostCheck:
    appliance = built.find()
    if not Path(accelerator.KVM).exists():
        why = f"there is no {accelerator.KVM}"
    elif not os.access(accelerator.KVM, os.R_OK | os.W_OK):
        why = f"{accelerator.KVM} may not be used by this user"
    else:
        kvm = accelerator.probe(appliance, "kvm")
        if kvm.works:
            return HostCheck(name, True, f"kvm boots a kernel in {kvm.seconds:.1f} s")
        why = f"kvm does not work here ({kvm.detail})"
    tcg = accelerator.probe(appliance, "tcg")
    if not tcg.works:
        return HostCheck(name, False, f"{why}; tcg: {tcg.detail}", "see the QEMU check above")
    detail = f"tcg boots a kernel in {tcg.seconds:.1f} s; {why}"
    return HostCheck(
        name, True, detail, "scans are faster if /dev/kvm works and this user may use it"
    )


def _whole(name: str) -> HostCheck:
    appliance = built.find()
    chosen = accelerator.choose(appliance)
    begun = time.monotonic()
    deadline = Deadline(accelerator.BOOT_SECONDS[chosen], "the appliance's start")
    with ApplianceVM(appliance, VMOptions(chosen), deadline, SessionLimits()):
        seconds = time.monotonic() - begun
    return HostCheck(name, True, f"the agent was ready after {seconds:.1f} s under {chosen}")


_CHECKS: dict[str, Callable[[str], HostCheck]] = {
    "QEMU": _qemu,
    "qemu-img": _qemu_img,
    "confinement": _confinement,
    "worker keys": _worker_keys,
    "memory": _memory,
    "cache space": _space,
    "appliance": _appliance,
    "accelerator": _acceleration,
    "a whole start": _whole,
}


def _output(argv: list[str], package: str) -> str:
    try:
        return command.run("a check", argv, seconds=_COMMAND_SECONDS, package=package)
    except CommandError as error:
        hint = error.hint or f"on Debian: apt-get install --reinstall {package}"
        raise ApplianceError(error.in_short, hint=hint) from None
