"""Which layers of confinement this host can have: found by using each, and remembered.

Whether a host lets programs have namespaces of their own depends on its kernel, its settings, its
security modules and on what runs it (a container, say). So QEMU itself is started and told to quit,
with every layer at first; where that fails each layer is tried by itself, and those that hold are
used. What holds is part of every machine's facts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fleetscan.appliance import cgroup
from fleetscan.appliance.cache import cache_directory
from fleetscan.appliance.confinement import WantedConfinement, rootfs, starter, syscalls
from fleetscan.appliance.confinement.confined_process import LayersInUse, Needs, confined
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust, writing

log = logging.getLogger(__name__)

_SECONDS = 20
_REMEMBER_SECONDS = 7 * 24 * 3600
_BARE = LayersInUse(namespaces=None, exact_root=False, user="same", seccomp=False, landlock=0)
LEAST = ("namespaces", "seccomp")
"""Layers without which nothing is scanned unless the user says so."""

_SETTINGS = (
    "kernel/unprivileged_userns_clone",  # Debian, before 13
    "kernel/apparmor_restrict_unprivileged_userns",  # Ubuntu, since 23.10
    "user/max_user_namespaces",
)
_TRIAL = (
    rootfs.QEMU,
    *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg"),
    *("-m", "16M", "-S", "-sandbox", "on,spawn=deny", "-qmp", "stdio"),
)
_QUIT = b'{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'


@dataclass(frozen=True)
class ConfinementLayer:
    """One layer on this host.

    Attributes:
        name: as ``machines.confinement`` has it.
        holds: whether it does.
        hint: what to do where it does not.
    """

    name: str
    holds: bool
    hint: str


def names(layers: LayersInUse) -> tuple[str, ...]:
    """The layers that hold, as ``machines.confinement`` has them."""
    return tuple(layer.name for layer in listed(layers) if layer.holds)


def listed(layers: LayersInUse) -> list[ConfinementLayer]:
    """Each layer that this user can have in principle, outermost first."""
    own = (
        [ConfinementLayer("user", layers.user == "own", _HINTS["user"])]
        if os.geteuid() == 0
        else []
    )
    return [
        *own,
        ConfinementLayer("namespaces", layers.namespaces is not None, _namespaces_hint()),
        ConfinementLayer(
            "root", layers.namespaces is not None and layers.exact_root, _HINTS["root"]
        ),
        ConfinementLayer("seccomp", layers.seccomp, _HINTS["seccomp"]),
        ConfinementLayer("landlock", layers.landlock > 0, _HINTS["landlock"]),
        ConfinementLayer("cgroup", cgroup.delegated() is not None, _HINTS["cgroup"]),
    ]


def require(wanted: WantedConfinement) -> None:
    """Make sure that as much confinement can be had as the user insists on.

    Raises:
        ApplianceError: it cannot.
    """
    if wanted is WantedConfinement.ANY:
        return
    missing = [
        layer
        for layer in listed(current())
        if not layer.holds and (wanted is WantedConfinement.ALL or layer.name in LEAST)
    ]
    if missing:
        which = ", ".join(layer.name for layer in missing)
        raise ApplianceError(
            f"QEMU cannot be confined on this host: no {which}",
            hint=f"{missing[0].hint}; --confinement any scans anyway, at your own risk",
        )


def current() -> LayersInUse:
    """The layers that hold on this host for this user, found now or within the last week."""
    key = _key()
    if key not in _found:
        _found[key] = _recall(_place(), key) or renewed()
    return _found[key]


def renewed() -> LayersInUse:
    """The layers that hold, found now."""
    key = _key()
    _found[key] = probe()
    _remember(_place(), key, _found[key])
    return _found[key]


_found: dict[str, LayersInUse] = {}
"""What this process found or read already."""


def probe() -> LayersInUse:
    """Try every layer; those that hold."""
    best = LayersInUse(
        namespaces="user",
        exact_root=True,
        user="own" if os.geteuid() == 0 else "same",
        seccomp=platform.machine() == syscalls.ARCHITECTURE,
        landlock=starter.landlock_version() * (platform.machine() == syscalls.ARCHITECTURE),
    )
    if _works(best):
        return best
    return _ladder(best)


def _ladder(best: LayersInUse) -> LayersInUse:
    """Layer by layer, each kept that can be had together with those before."""
    users: tuple[Literal["own", "nobody"], ...] = ("own", "nobody") if os.geteuid() == 0 else ()
    trials = (replace(_BARE, user=user) for user in users)
    bare = next((trial for trial in trials if _works(trial)), _BARE)
    kinds = ("user", "root") if os.geteuid() == 0 else ("user",)
    for kind in kinds:
        if _works(trial := replace(bare, namespaces=kind)):
            bare = trial
            break
    else:
        return bare
    changes: list[dict[str, object]] = [
        {"exact_root": True},
        {"seccomp": best.seccomp},
        {"landlock": best.landlock},
    ]
    for change in changes:
        trial = replace(bare, **change)  # type: ignore[arg-type] # fields by name, one at a time
        bare = trial if trial != bare and _works(trial) else bare
    return bare


def _works(layers: LayersInUse) -> bool:
    """Whether QEMU starts with these layers and answers."""
    try:
        with confined(
            _TRIAL,
            Needs(),
            layers,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            said, errors = process.popen.communicate(_QUIT, _SECONDS)
            log.debug("%s: %s: %r %r", layers, process.status, said[-200:], errors[-500:])
            return process.status == 0 and b'"SHUTDOWN"' in said
    except (ApplianceError, OSError, subprocess.TimeoutExpired) as error:
        log.debug("%s: %s", layers, error)
        return False


def _place() -> Path:
    return cache_directory() / f"confinement-{os.geteuid()}.json"


def _key() -> str:
    """All that decides what holds, as far as it is cheap to find out."""
    programs = (_stamp(name) for name in (rootfs.QEMU, rootfs.QEMU_IMG, "bwrap", "setpriv"))
    settings = (f"{name}={_setting(name)}" for name in _SETTINGS)
    host = (platform.node(), platform.release(), str(os.geteuid()))
    return "|".join([*host, *programs, *settings])


def _stamp(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        return f"no {name}"
    status = Path(path).stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _recall(place: Path, key: str) -> LayersInUse | None:
    try:
        with place.open("rb") as stream:
            trust.check_file(place, stream.fileno())
            kept = json.load(stream)
        if time.time() - kept["at"] > _REMEMBER_SECONDS or kept["key"] != key:
            return None
        for name, root in kept["roots"].items():
            links = tuple((path, target) for path, target in root["links"])
            rootfs.known[name] = rootfs.SandboxRoot(root["program"], tuple(root["mounts"]), links)
        return LayersInUse(**kept["layers"])
    except (OSError, ValueError, KeyError, TypeError, trust.UntrustedError):
        return None  # what others could have written is tried anew, and replaced


def _remember(place: Path, key: str, layers: LayersInUse) -> None:
    # A cache that cannot be written costs a probe, no more.
    with contextlib.suppress(OSError, ApplianceError):
        roots = {name: asdict(rootfs.needed(name)) for name in (rootfs.QEMU, rootfs.QEMU_IMG)}
        content = {"key": key, "layers": asdict(layers), "roots": roots, "at": time.time()}
        writing.make_directory(place.parent)
        with writing.replacing(place, durable=False) as stream:
            stream.write(json.dumps(content).encode())


def _namespaces_hint() -> str:
    if shutil.which("bwrap") is None:
        return "install bubblewrap"
    settings: dict[str, tuple[str, str]] = {
        _SETTINGS[0]: ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        _SETTINGS[1]: (
            "1",
            "allow bwrap user namespaces with an AppArmor profile "
            "(see examples/README.md), or scan as root",
        ),
        _SETTINGS[2]: ("0", "sysctl user.max_user_namespaces=10000"),
    }
    for name, (value, hint) in settings.items():
        if _setting(name) == value:
            return hint
    return (
        "in a container, allow it to create namespaces and to mount /proc (see examples/README.md)"
    )


_HINTS: dict[str, str] = {
    "user": "root needs /run to be writable, and user ids above 2000000000 where a container maps "
    "them",
    "root": "ldd and `qemu-system-x86_64 -L help` must say where QEMU's files are",
    "seccomp": "the list of system calls is for x86-64 with CONFIG_SECCOMP_FILTER",
    "cgroup": "run in a unit with Delegate= and DelegateSubgroup=, as examples/systemd does",
    "landlock": "Linux 5.13 or newer with landlock among its lsm= modules",
}
