"""Takes over QEMUs and prints what they could do, as JSON: ``UID CACHE LIBRARY SECRETS [bare]``.

Two clones run at once. Into each QEMU a library is loaded (vmm_probe.c), which nothing but this
does: a mount and a variable are added to what bubblewrap is told. With ``bare`` there is no
confinement but another user, as a control of the attempts themselves.

Started by root it becomes that user once everything is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from fleetscan.appliance import privileges
from fleetscan.appliance.confinement import confined_process, layers, rootfs
from fleetscan.appliance.confinement.confined_process import LayersInUse
from fleetscan.appliance.plugging import PluggedLayer
from fleetscan.appliance.vm import ApplianceVM
from tests.vm.machines import Host, prepared, soon
from tests.vm.ordinary import become

ENDING = (
    *("trace_sibling", "trace_by_number", "read_siblings_memory", "take_siblings_descriptor"),
    *("keyring", "programs_in_kernel", "performance", "new_namespaces", "clone_namespaces"),
    *("join_namespace", "mount_something", "unmount", "change_root", "run_program"),
    *("start_process", "become_root"),
)
"""Attempts that may end QEMU, so that each has one of its own."""

_SECONDS = 60
_BARE = LayersInUse(namespaces=None, exact_root=False, user="nobody", seccomp=False, landlock=0)
_ABSTRACT = "fleetscan-test-probe"


@dataclasses.dataclass(frozen=True)
class _Preloaded(rootfs.SandboxRoot):
    """A root with one library more, which is loaded into the program."""

    library: str = ""

    def arguments(self) -> list[str]:
        loaded = ["--setenv", "LD_PRELOAD", self.library]
        return [*super().arguments(), "--ro-bind", self.library, self.library, *loaded]


def preload(patch: pytest.MonkeyPatch, library: str) -> None:
    """Load the library into every program that is confined from here on."""
    real = rootfs.needed

    def needed(program: str) -> rootfs.SandboxRoot:
        root = real(program)
        return _Preloaded(root.program, root.mounts, root.links, library)

    patch.setattr(rootfs, "needed", needed)


def without_confinement(patch: pytest.MonkeyPatch, library: str) -> None:
    """Start programs as they were before there was confinement, the library in each of them."""
    given = {**privileges.environment(), "LD_PRELOAD": library}
    patch.setattr(layers, "current", lambda: _BARE)
    patch.setattr(confined_process, "environment", lambda: given)


def known_attempts(source: Path) -> list[str]:
    """The names of all that the library can try."""
    return re.findall(r"ATTEMPT\((\w+)\)[,}]", source.read_text())


def tried(
    machine: ApplianceVM, attempts: Iterable[str], knowledge: dict[str, str]
) -> dict[str, str]:
    """What came of attempts: "worked", an error's number, or how QEMU ended."""
    lines = ["PROBE", *(f"set {name} {value}" for name, value in knowledge.items())]
    lines += [*(f"try {name}" for name in attempts), "go", ""]
    messages = machine._messages
    os.pwrite(messages, "\n".join(lines).encode(), os.fstat(messages).st_size)
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        text = os.pread(messages, 1 << 20, 0).decode("utf-8", "replace").partition("\ngo\n")[2]
        ended = machine._process.status
        if "PROBE: done" in text or ended is not None:
            found = dict(re.findall(r"^(\w+): (worked|trying|\d+)$", text, re.MULTILINE))
            last = _end(ended)
            return {name: last if word == "trying" else word for name, word in found.items()}
        time.sleep(0.02)
    raise AssertionError(f"the library does not answer: {text!r}")


def _end(status: int | None) -> str:
    if status is None:
        return "no answer"
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def attacks(host: Host, secrets: Path, attempts: list[str]) -> dict[str, str]:
    """All attempts, in a QEMU that runs beside another."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(f"\0{_ABSTRACT}")
        unix.listen()
        sibling = stack.enter_context(host.clone(_SECONDS))
        knowledge = {
            **{name: str(secrets / name) for name in ("image", "home", "facts")},
            "appliance": str(host.appliance.root),
            "port": str(tcp.getsockname()[1]),
            "abstract": _ABSTRACT,
            "sibling": str(sibling.pid),
            "scanner": str(os.getpid()),
        }
        harmless = [name for name in attempts if name not in ENDING]
        found = _in_a_clone(host, secrets, harmless, knowledge)
        for name in (name for name in attempts if name in ENDING):
            found |= _in_a_clone(host, secrets, [name], knowledge)
        if sibling._process.status is not None:
            found["end_of_sibling"] = "worked"
    return found


def _in_a_clone(
    host: Host, secrets: Path, attempts: list[str], knowledge: dict[str, str]
) -> dict[str, str]:
    with host.clone(_SECONDS) as machine, (secrets / "own").open("rb") as disk:
        machine.plug(0, [PluggedLayer("raw", (disk.fileno(),))], soon())
        return tried(machine, attempts, knowledge)


def main(arguments: list[str]) -> None:
    """Take QEMUs over as the user that the arguments name."""
    user, cache, library, secrets = arguments[:4]
    os.environ["FLEETSCAN_CACHE"] = cache
    become(int(user))
    source = Path(__file__).with_name("vmm_probe.c")
    host = prepared()
    with pytest.MonkeyPatch.context() as patch:
        (without_confinement if "bare" in arguments[4:] else preload)(patch, library)
        attempts = known_attempts(source)
        if "bare" in arguments[4:]:
            attempts = [name for name in attempts if name not in ENDING]
        found = attacks(host, Path(secrets), attempts)
        held = layers.names(layers.current())
    json.dump({"uid": os.geteuid(), "found": found, "layers": held}, sys.stdout)


def run(user: int, cache: Path, library: Path, secrets: Path, *more: str) -> dict[str, object]:
    """What :func:`main` prints, by a process of its own."""
    argv = [sys.executable, "-m", "tests.hostile.taken_over", str(user), str(cache)]
    done = subprocess.run(
        [*argv, str(library), str(secrets), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    main(sys.argv[1:])
