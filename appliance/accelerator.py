"""Which accelerator really runs a guest on this host: found by running one, and remembered.

KVM can be present and broken (a nested host whose outer layer lets only some guests run), so
nothing short of a kernel that boots under it counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance import privileges, qemu_args
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.cache import cache_directory
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import Needs, Process, confined
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust, writing
from fleetscan.appliance.host.descriptors import memory_copy
from fleetscan.appliance.qemu_args import Accelerator, VMOptions

KVM = privileges.KVM

# A sound KVM boots the kernel in well under a second; one that takes longer than this is slower
# than software emulation and not worth having. Emulation itself takes 2 to 4 s on a slow host.
_PROBE_SECONDS: dict[Accelerator, float] = {"kvm": 6.0, "tcg": 60.0}
_PROBE_MIB = 256
_REMEMBER_SECONDS = 7 * 24 * 3600
_SAID = b"fleetscan-probe-ok"

BOOT_SECONDS: dict[Accelerator, float] = {"kvm": 30.0, "tcg": 120.0}
"""How long the appliance may take to come up, on a host that is busy with other machines."""


@dataclass(frozen=True)
class Probe:
    """The outcome of trying an accelerator.

    Attributes:
        works: whether a kernel booted within the deadline.
        seconds: how long that took.
        detail: what went wrong, in one line; empty when nothing did.
    """

    works: bool
    seconds: float
    detail: str = ""


def choose(appliance: Appliance) -> Accelerator:
    """The accelerator to use on this host: KVM where it works, else software emulation.

    FLEETSCAN_ACCELERATOR (``kvm`` or ``tcg``) overrides it. The finding is kept in the cache for
    a week, for this host's kernel, QEMU's build and the appliance's kernel.

    Raises:
        ApplianceError: FLEETSCAN_ACCELERATOR has another value.
    """
    if forced := os.environ.get("FLEETSCAN_ACCELERATOR"):
        if forced not in _PROBE_SECONDS:
            raise ApplianceError(
                f"FLEETSCAN_ACCELERATOR is {forced!r}", hint="set it to kvm or tcg"
            )
        return "kvm" if forced == "kvm" else "tcg"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "tcg"
    place = cache_directory() / "accelerator.json"
    key = _key(appliance)
    remembered = _recall(place, key)
    if remembered is None:
        remembered = probe(appliance, "kvm").works
        _remember(place, key, remembered)
    return "kvm" if remembered else "tcg"


def probe(appliance: Appliance, accelerator: Accelerator) -> Probe:
    """Boot the appliance's kernel under an accelerator, as far as its first process."""
    options = VMOptions(accelerator, _PROBE_MIB)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        kernel, initrd = (
            memory_copy(stack, path.name, appliance.opened(stack, path))
            for path in (appliance.kernel, appliance.initrd)
        )
        paths = [f"/proc/self/fd/{descriptor}" for descriptor in (kernel, initrd)]
        needs = Needs(
            descriptors=(kernel, initrd),
            kvm=accelerator == "kvm",
            memory_bytes=qemu_args.address_space(options),
        )
        argv = qemu_args.probe_argv(options, *paths)
        process = stack.enter_context(
            confined(
                argv, needs, layers.current(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
        output, timed_out = _output(process, _PROBE_SECONDS[accelerator])
    seconds = time.monotonic() - begun
    if _SAID in output:
        return Probe(True, seconds)
    if timed_out:
        return Probe(False, seconds, f"no kernel came up within {_PROBE_SECONDS[accelerator]:g} s")
    words = output.decode("utf-8", "replace").strip().splitlines()
    return Probe(False, seconds, words[-1] if words else f"QEMU ended with {process.status}")


def _output(process: Process, seconds: float) -> tuple[bytes, bool]:
    try:
        return process.popen.communicate(timeout=seconds)[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        return process.popen.communicate()[0], True


def _key(appliance: Appliance) -> str:
    return "|".join([platform.node(), platform.release(), qemu_build(), appliance.content])


def qemu_build() -> str:
    """What identifies a QEMU build on this host: path, size and time of its program.

    Raises:
        ApplianceError: it is not installed.
    """
    for folder in os.get_exec_path():
        program = Path(folder) / "qemu-system-x86_64"
        with contextlib.suppress(OSError):
            status = program.stat()
            return f"{program}:{status.st_size}:{status.st_mtime_ns}"
    raise ApplianceError(
        "qemu-system-x86_64 is not installed", hint="install qemu-system-x86 (run fleetscan doctor)"
    )


def _recall(place: Path, key: str) -> bool | None:
    try:
        with place.open("rb") as stream:
            trust.check_file(place, stream.fileno())
            kept = json.load(stream)
        fresh = time.time() - kept["at"] < _REMEMBER_SECONDS
        return bool(kept["kvm"]) if fresh and kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, trust.UntrustedError):
        return None  # what others could have written is tried anew, and replaced


def _remember(place: Path, key: str, works: bool) -> None:
    content = json.dumps({"key": key, "kvm": works, "at": time.time()})
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a probe, no more
        writing.make_directory(place.parent)
        with writing.replacing(place, durable=False) as stream:
            stream.write(content.encode())
