"""Run a collector over a tree again and again, one of its files damaged another way each time.

Each run is in a process of its own, whose memory and time are bounded as the appliance's are, in
Debian's Python, which has the bindings of librpm and hivex. Standard library only, as the module
is also the program that Debian's Python runs.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables import load_collector
from tests.scanner.tables.run_case import DEBIAN_PYTHON, ENVIRONMENT, REPOSITORY

MEMORY = 400 << 20
"""Bytes that a collector's process may take, Python itself included; a VM has 512 MiB."""

SECONDS = 30
"""CPU time it may take."""

_FLIPS = 24
_BLOCK = 4096


@dataclass(frozen=True)
class Damaged:
    """What a collector made of one damage.

    Attributes:
        damage: its name; empty for the whole file.
        rows: how many it gave.
        error: "<class>: <message>" of what it ended in; empty if it ended well.
        status: of its process; negative for a signal's number.
        seconds: CPU time it took.
    """

    damage: str
    rows: int
    error: str
    status: int
    seconds: float


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Ways in which a file's content may be damaged, by name."""
    size = len(content)
    block = min(_BLOCK, max(1, size // 4))
    rng = random.Random(size)  # noqa: S311 - repeatable, and nothing to hide
    for part in range(1, 8):
        yield f"truncated to {part}/8", content[: size * part // 8]
    yield "without its last byte", content[:-1]
    yield "zeros", bytes(size)
    for part in range(4):
        start = size * part // 4
        yield f"zeros in quarter {part}", content[:start] + bytes(block) + content[start + block :]
    yield "garbage", rng.randbytes(size)
    yield (
        "garbage in the middle",
        (content[: size // 2] + rng.randbytes(_BLOCK) + content[size // 2 + block :]),
    )
    yield "begun anew in the middle", content[: size // 2] + content
    yield (
        "blocks in another order",
        b"".join(content[start : start + block] for start in reversed(range(0, size, block))),
    )
    for number in range(_FLIPS):
        place = rng.randrange(size)
        flipped = bytes([content[place] ^ 1 << number % 8])
        yield f"bit {number % 8} of byte {place}", content[:place] + flipped + content[place + 1 :]


def sweep(table: str, tree: Path, path: str) -> list[Damaged]:
    """Outcomes of a collector over a tree: as it is, then with each damage to one of its files.

    Args:
        table: the collector's.
        tree: the tree, whose file is left as it was.
        path: of the file, from the tree's top.
    """
    argv = [DEBIAN_PYTHON, "-m", "tests.scanner.tables.damage", table, str(tree), path]
    done = subprocess.run(
        argv, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [Damaged(**json.loads(line)) for line in done.stdout.splitlines()]


def _outcomes(table: str, tree: str, file: Path) -> Iterator[Damaged]:
    load_collector(table)
    content = file.read_bytes()
    yield _outcome(table, tree, "")
    for name, damaged in damages(content):
        file.write_bytes(damaged)
        yield _outcome(table, tree, name)
    with file.open("wb") as stream:
        stream.write(content)
        stream.truncate(1 << 40)
    yield _outcome(table, tree, "huge")
    file.write_bytes(content)


def _outcome(table: str, tree: str, damage: str) -> Damaged:
    output, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(output)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.RLIM_INFINITY))
        with os.fdopen(to_parent, "w") as stream:
            json.dump(_run(table, tree), stream)
        os._exit(0)
    os.close(to_parent)
    with os.fdopen(output) as stream:
        told = stream.read()
    _, status, usage = os.wait4(child, 0)
    rows, error = json.loads(told) if told else (0, "")
    return Damaged(
        damage,
        rows,
        error,
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
    )


def _run(table: str, tree: str) -> tuple[int, str]:
    rows = 0
    with Root("r", tree, options=FactOptions(packages="all")) as root:
        try:
            for _ in encode_rows(load_collector(table)(root)):
                rows += 1
        except (schema.NotApplicable, schema.IncompleteError, OSError) as error:
            return rows, f"{type(error).__name__}: {error}"
        except Exception as error:  # a fault of the collector's
            return rows, f"unforeseen {type(error).__name__}: {error}"
    return rows, ""


if __name__ == "__main__":
    for outcome in _outcomes(sys.argv[1], sys.argv[2], Path(sys.argv[2], sys.argv[3])):
        print(json.dumps(asdict(outcome)))
