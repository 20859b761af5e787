from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fleetscan.appliance import built
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import LayersInUse


def write_appliance(place: Path) -> None:
    """A directory that is an appliance to all but QEMU."""
    place.mkdir(parents=True)
    contents = {"vmlinuz": b"kernel", "initrd": b"initrd", "root.erofs": b"root"}
    for name, content in contents.items():
        (place / name).write_bytes(content)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = {
        "inputs": built.inputs_id(),
        "content": hashlib.sha256("".join(sums.values()).encode()).hexdigest()[:12],
        "kernel_release": "6.12.0-1-amd64",
        "suite": built.suite(),
        "versions": {"lvm2": "2.03"},
        "sha256": sums,
    }
    (place / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    place = tmp_path / "cache"
    place.mkdir()
    monkeypatch.setenv("FLEETSCAN_CACHE", str(place))
    return place


@pytest.fixture
def small_appliance(cache: Path) -> Appliance:
    """An appliance in the test's own cache, its files a few bytes each."""
    write_appliance(built.directory())
    return built.find()


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has nothing to confine a program with: for shell scripts in QEMU's place."""
    bare = LayersInUse(namespaces=None, exact_root=False, user="same", seccomp=False, landlock=0)
    monkeypatch.setattr(layers, "current", lambda: bare)
