"""A QEMU that was taken over reaches its own descriptors and nothing else.

A library loaded into the QEMU of a real clone tries what an attacker would, with the filter of
system calls on, beside a second clone. The issue's attacks are all among the attempts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import built, cache
from fleetscan.appliance.confinement import layers
from tests.hostile import taken_over
from tests.vm.machines import prepared
from tests.vm.test_clones import ORDINARY_USER

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

SOURCE = Path(taken_over.__file__).with_name("vmm_probe.c")

# What worked for a QEMU on commit e30eef2, as another user than the images': from the issue.
REACHED = (
    *("connect_loopback", "listen_everywhere", "connect_abstract", "socket_vsock", "io_uring"),
    *("read_passwd", "read_neighbours_image", "see_processes", "signal_sibling"),
    *("siblings_descriptors", "pidfd_of_sibling", "many_memory_files", "outlive"),
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user may enter, with the library."""
    if shutil.which("gcc") is None:
        pytest.fail("gcc is missing: install gcc and libc6-dev")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        flags = ["-Wall", "-Werror", "-O1", "-shared", "-fPIC"]
        library = top / "probe.so"
        subprocess.run(["gcc", *flags, "-o", library, SOURCE, "-lpthread"], check=True, timeout=60)
        library.chmod(0o644)
        yield top


def secrets_of(user: int, top: Path) -> Path:
    """A user's files: their own disk, another machine's image, facts and something at home."""
    folder = top / f"of-{user}"
    folder.mkdir()
    for name in ("own", "image", "facts", "home"):
        (folder / name).write_bytes(bytes(1 << 20))
        (folder / name).chmod(0o644)
        os.chown(folder / name, user, user)
    return folder


@pytest.fixture(scope="module")
def own_cache(place: Path) -> Path:
    """A cache of the ordinary user's own, with a copy of this host's appliance."""
    user = ORDINARY_USER if os.geteuid() == 0 else os.geteuid()
    appliance = built.find()
    cache = place / "cache"
    (cache / "appliance").mkdir(parents=True, mode=0o700)
    folder = cache / "appliance" / appliance.directory.name
    shutil.copytree(appliance.directory, folder)
    if os.geteuid() == 0:
        for path in (cache, *cache.rglob("*")):
            os.chown(path, user, user)
    return cache


def check(answer: dict[str, object]) -> None:
    found = answer["found"]
    assert isinstance(found, dict)
    expected = set(taken_over.known_attempts(SOURCE))
    assert set(found) == expected
    assert {name for name, outcome in found.items() if outcome == "worked"} == set()
    assert {name for name, outcome in found.items() if outcome in ("0", "no answer")} == set()
    killed = {name for name, outcome in found.items() if outcome == signal.SIGSYS.name}
    assert {"trace_sibling", "take_siblings_descriptor", "mount_something", "keyring"} <= killed


def test_started_by_root_it_reaches_nothing_but_its_own_descriptors(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root shows what QEMU may do when root scans")
    prepared()
    answer = taken_over.run(0, cache.cache_directory(), place / "probe.so", secrets_of(0, place))
    assert set(layers.LEAST) <= set(answer["layers"])  # type: ignore[call-overload] # JSON
    check(answer)


def test_started_by_an_ordinary_user_it_reaches_nothing_but_its_own_descriptors(
    place: Path, own_cache: Path
) -> None:
    user = ORDINARY_USER if os.geteuid() == 0 else os.geteuid()
    answer = taken_over.run(user, own_cache, place / "probe.so", secrets_of(user, place))
    assert answer["uid"] == user
    check(answer)


@pytest.mark.skipif(os.geteuid() != 0, reason="it is started as another user")
def test_without_confinement_the_same_attempts_succeed(place: Path) -> None:
    secrets = secrets_of(1, place)
    library = place / "probe.so"
    answer = taken_over.run(0, cache.cache_directory(), library, secrets, "bare")
    found = answer["found"]
    assert isinstance(found, dict)
    assert {name for name in REACHED if found[name] != "worked"} == set()
