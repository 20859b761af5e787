"""Keys for encrypted volumes: where each comes from, and the keys themselves, at the last moment.

A key is written ``SELECTOR:KIND:VALUE``, after the virt tools' ``--key``:

* SELECTOR is what it opens: ``all``, the UUID of a container or of an encrypted qcow2 image's LUKS
  header, or a container's device name in the appliance (``/dev/sda2``, ``/dev/vg0/home``).
* ``file:PATH``: a passphrase or key file. Of a file that ends in a line end, the content without
  it is tried first, and the whole after that.
* ``env:NAME``: an environment variable of whoever scans, or of the worker on a cluster.
* ``command:WORDS``: what a program prints, started without a shell.

Both the user names: on the command line, or in an inventory, whose commands are run only where the
command line says so (``--allow-key-commands``). This text travels with the task of its machine and
is stored nowhere, as a command's words may be secret too: errors, which become facts, tell a key by
its kind and a digest of its text. The key itself is read on the host that opens the machine, goes
to that machine's appliance alone, and is kept nowhere.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fleetscan.appliance.ground.errors import FleetscanError, UsageError

KEY_LIMIT = 16 << 10
"""Longest key in bytes. Those that installers make have 512 to 4096."""

_COMMAND_SECONDS = 60
_KINDS = ("file", "env", "command")
_FROM = {"file": "a file", "env": "a variable", "command": "a command"}


class KeyUnavailableError(FleetscanError):
    """A key cannot be read; says from where, and never what."""


@dataclass(frozen=True)
class KeySource:
    """Where a key comes from.

    Attributes:
        selector: what it is for: ``all``, a container's UUID, or its device's name.
        kind: what ``value`` is.
        value: a file's absolute path, a variable's name, or a command line.
    """

    selector: str
    kind: Literal["file", "env", "command"]
    value: str = field(repr=False)

    def __str__(self) -> str:
        text = f"{self.selector}:{self.kind}:{self.value}"
        digest = hashlib.sha256(os.fsencode(text)).hexdigest()
        return f"from {_FROM[self.kind]} (sha256 of its text: {digest[:16]})"


def parse_key(text: str, base: Path) -> KeySource:
    """A key's source from its text.

    Args:
        text: ``SELECTOR:KIND:VALUE``.
        base: where relative paths of files start.

    Raises:
        UsageError: it is malformed.
    """
    selector, _, rest = text.partition(":")
    kind, _, value = rest.partition(":")
    if not selector or not value or kind not in _KINDS:
        # Not shown: somebody may have put the key itself there.
        raise UsageError(
            "a key is not of the form SELECTOR:file:PATH, SELECTOR:env:NAME or "
            "SELECTOR:command:WORDS",
            hint="keys themselves are not accepted: put the key into a file that only you can read",
        )
    if kind == "file":
        return KeySource(selector, "file", str(base.absolute() / value))
    return KeySource(selector, "env" if kind == "env" else "command", value)


def read_keys(sources: Sequence[KeySource]) -> Iterator[tuple[str, bytes]]:
    """Selector and key, for each key that may be meant.

    Raises:
        KeyUnavailableError: a key cannot be read.
    """
    for source in sources:
        content = _READERS[source.kind](source)
        if not content:
            raise KeyUnavailableError(f"the key {source} is empty")
        if len(content) > KEY_LIMIT:
            raise KeyUnavailableError(f"the key {source} is longer than {KEY_LIMIT} bytes")
        stripped = content.removesuffix(b"\n").removesuffix(b"\r")
        yield from ((source.selector, key) for key in dict.fromkeys((stripped, content)) if key)


def _from_file(source: KeySource) -> bytes:
    try:
        with Path(source.value).open("rb") as stream:
            return stream.read(KEY_LIMIT + 1)
    except OSError as error:
        raise KeyUnavailableError(f"the key {source} cannot be read: {error.strerror}") from error


def _from_environment(source: KeySource) -> bytes:
    value = os.environb.get(os.fsencode(source.value))
    if value is None:
        raise KeyUnavailableError(f"the key {source} cannot be read: there is no such variable")
    return value


def _from_command(source: KeySource) -> bytes:
    # What it prints on standard error goes to the user's terminal, not into our errors: it is
    # somebody else's program, and may print anything there.
    try:
        done = subprocess.run(
            shlex.split(source.value),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise KeyUnavailableError(f"the key {source} cannot be read: it took too long") from None
    except (OSError, ValueError) as error:  # its text would reveal the command
        reason = error.strerror if isinstance(error, OSError) else "it is no command line"
        raise KeyUnavailableError(f"the key {source} cannot be read: {reason}") from None
    if done.returncode:
        raise KeyUnavailableError(
            f"the key {source} cannot be read: the command ended with status {done.returncode}"
        )
    return done.stdout


_READERS = {"file": _from_file, "env": _from_environment, "command": _from_command}
