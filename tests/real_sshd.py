"""A real OpenSSH server as a judge: it prints its settings for a login, and serves nobody.

The program is this machine's, or Debian's package, unpacked without being installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import PROJECT

_PACKAGES = ("openssh-server", "libwrap0")
_UNPACKED = PROJECT / ".fleetscan" / "openssh-server"
_END = "-- end"


@dataclass(frozen=True)
class Question:
    """A configuration, how the server is started with it, and who logs in.

    Attributes:
        config: its file.
        login: as sshd's option -C takes it.
        options: other options.
    """

    config: Path
    login: str
    options: tuple[str, ...] = ()


@cache
def program() -> Path:
    """The server's path.

    Raises:
        AssertionError: there is none, and none can be fetched.
    """
    if installed := shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin"):
        return Path(installed)
    found = _UNPACKED / "usr/sbin/sshd"
    if not found.exists():
        _UNPACKED.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            ["apt-get", "download", "-qq", *_PACKAGES], cwd=_UNPACKED, check=False
        )
        assert fetched.returncode == 0, "install openssh-server: the tests compare with its sshd"
        for package in _UNPACKED.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, _UNPACKED], check=True)
    return found


def answers(questions: Sequence[Question], folder: Path) -> list[Mapping[str, str] | None]:
    """What the server says to each question; None where it refuses the configuration.

    Args:
        questions: the questions.
        folder: an empty folder.
    """
    key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    lines = []
    for number, question in enumerate(questions):
        argv = [str(program()), "-T", "-h", str(key), "-f", str(question.config)]
        quoted = shlex.join([*argv, "-C", question.login, *question.options])
        lines.append(f"{quoted} 2>>errors && echo '{_END} {number}'")
    script = folder / "ask.sh"
    script.write_text("\n".join(lines) + "\n:\n")
    # Root's sshd wants an account of its own; in a namespace it is not root.
    sandbox = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--dev-bind", "/", "/"]
    libraries = ":".join(str(path) for path in _UNPACKED.glob("*/lib/*-linux-gnu"))
    done = subprocess.run(
        [*sandbox, "sh", script],
        cwd=folder,
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        check=True,
    )
    return _parse(done.stdout, len(questions))


def _parse(text: str, count: int) -> list[Mapping[str, str] | None]:
    found: list[Mapping[str, str] | None] = [None] * count
    settings: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(rf"{_END} (\d+)", line):
            found[int(match[1])], settings = settings, {}
        else:
            name, _, value = line.partition(" ")
            settings[name] = value
    return found
