"""Virtual machines for tests: the real appliance, with the agent it has or with another."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetscan.appliance import accelerator, built, cache, initrd, template
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.qemu_args import VMOptions
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.template import Template
from fleetscan.appliance.vm import ApplianceVM
from tests.agents import agent_of

_HOSTILE = initrd.PROJECT / "tests" / "appliance" / "hostile.py"
_START = b"""\
import sys
sys.path[:] = ["/run/agent", *sys.path, "/usr/lib/python3/dist-packages"]
from hostile import boot
boot()
"""


@dataclass(frozen=True)
class Host:
    """An appliance, how to run it here, and a template of it."""

    appliance: Appliance
    options: VMOptions
    template: Template

    def clone(self, seconds: float = 60) -> contextlib.AbstractContextManager[ApplianceVM]:
        """A fresh clone, its agent ready."""
        deadline = Deadline(seconds, "the clone's start")
        return template.clone(
            self.appliance, self.template, self.options, deadline, SessionLimits()
        )

    @property
    def place(self) -> Path:
        """The directory that holds the template."""
        return cache.cache_directory() / "template" / self.template.key


def soon(seconds: float = 60) -> Deadline:
    """A deadline that a test does not expect to miss."""
    return Deadline(seconds, "the test")


def prepared() -> Host:
    """This host's appliance and its template."""
    try:
        appliance = built.find()
    except ApplianceError as error:
        pytest.fail(f"{error}: {error.hint}")
    options = VMOptions(accelerator.choose(appliance))
    return Host(appliance, options, template.prepare(appliance, options))


@functools.cache
def taken_over() -> Host:
    """As :func:`prepared`, with the hostile agent; made once a test session."""
    appliance = built.find()
    with other_cache(), hostile_agent():
        found = prepared()
    return Host(appliance, found.options, found.template)


@contextlib.contextmanager
def other_cache() -> Iterator[Path]:
    """A cache with this host's appliance and no templates."""
    chosen = accelerator.choose(built.find())
    real = cache.cache_directory()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)
        Path(folder, "appliance").symlink_to(real / "appliance")
        patch.setenv("FLEETSCAN_CACHE", folder)
        patch.setenv("FLEETSCAN_ACCELERATOR", chosen)
        yield Path(folder)


@contextlib.contextmanager
def hostile_agent() -> Iterator[None]:
    """Every appliance that is booted meanwhile has the hostile agent in it."""
    files = {**initrd.agent_files(), "hostile.py": _HOSTILE.read_bytes(), "start.py": _START}
    with agent_of(files):
        yield


def qemus() -> set[int]:
    """QEMU processes that this process started, by way of bubblewrap, and that are there still."""
    parents, programs = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            programs[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")[0]
    ours = {pid for pid, parent in parents.items() if parent == os.getpid()}
    found = ours | {pid for pid, parent in parents.items() if parent in ours}
    return {pid for pid in found if b"qemu" in programs[pid]}


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a corpse that nobody has fetched."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def checksum(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def small_system(top: Path) -> Path:
    """A tree with an operating system in it, and a file of each kind that a copy can keep."""
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n',
        "etc/hostname": "small\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/bash\n",
        "etc/group": "root:x:0:\nwheel:x:10:me\n",
        "var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n"
        "Architecture: amd64\nMaintainer: Somebody <somebody@example.org>\nDescription: shell\n",
        "usr/lib/systemd/system/ssh.service": "[Unit]\nDescription=SSH\n",
        "home/me/caf\udce9 \u4e2d": "x",
        "usr/bin/sudo": "x" * 10_000,
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    (top / "usr/bin/sudo").chmod(0o4755)
    (top / "bin").symlink_to("usr/bin")
    for number in range(300):
        (top / f"usr/share/doc{number % 7}").mkdir(parents=True, exist_ok=True)
        (top / f"usr/share/doc{number % 7}/file{number}").write_text(str(number))
    return top


def image_of(tree: Path, image: Path, mebibytes: int = 32, *options: str) -> Path:
    """A raw ext4 image with a tree in it, made without any privilege."""
    command = ["mke2fs", "-q", "-t", "ext4", "-F", "-d", str(tree), *options]
    command += [str(image), f"{mebibytes}M"]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, env=environment, timeout=60, stdout=subprocess.DEVNULL)
    return image
