"""fleetscan and libguestfs on the same machines, in alternation: see README.md.

Run it by peers.sh, which installs and builds what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.scanner.cli import output
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.store.staging import MemorySink
from fleetscan.scanner.tables.packages.spec import LANGUAGES
from tests.bench import guests
from tests.bench.figures import Spread, chosen_accelerator, host, write_json
from tests.bench.guests import Guest

_ONCE = Path(__file__).with_name("guestfs_once.py")
_SYSTEM_PYTHON = "/usr/bin/python3"
_FLEETSCAN = Path(sys.executable).with_name("fleetscan")

COMMAND = "fleetscan inspect, the command"
WORKER = "fleetscan in a warm worker"
PEER = "libguestfs, one handle"

# Names that the binding cannot pass on, and the top directory, which find0 leaves out.
_ENTRIES_MISSED = 5


@dataclass
class Sample:
    """One run of one contender.

    Attributes:
        seconds: by the clock, all of it.
        steps: seconds of its parts.
        found: how much it found.
    """

    seconds: float
    steps: dict[str, float] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)


@dataclass
class Comparison:
    """All runs on one guest, by contender; the n-th of each make the n-th pair."""

    guest: str
    samples: dict[str, list[Sample]]
    virt_inspector: float | None = None

    def spread(self, contender: str) -> Spread:
        """Seconds of a contender."""
        return Spread.of([sample.seconds for sample in self.samples[contender]])

    def ratio(self, contender: str) -> Spread:
        """How many times as long as this contender libguestfs took, pair by pair."""
        pairs = zip(self.samples[PEER], self.samples[contender], strict=True)
        return Spread.of([peer.seconds / own.seconds for peer, own in pairs])

    def steps(self, contender: str) -> dict[str, Spread]:
        """Seconds of a contender's steps."""
        names = self.samples[contender][0].steps
        return {
            name: Spread.of([sample.steps[name] for sample in self.samples[contender]])
            for name in names
        }


def main() -> int:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="peers.sh", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--pairs", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--guests", default="debian12,large", help="which, comma separated")
    parser.add_argument("--virt-inspector", action="store_true", help="time it as well, once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    # Software emulation for both, where it is for us.
    os.environ["LIBGUESTFS_BACKEND"] = "direct"
    if chosen_accelerator() == "tcg":
        os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    print(host())
    comparisons = []
    for name in options.guests.split(","):
        comparison = compare(guests.find(name), options.pairs)
        if options.virt_inspector:
            comparison.virt_inspector = virt_inspector(guests.find(name)).seconds
        show(comparison)
        comparisons.append(comparison)
    if options.json:
        write_json(options.json, {"host": host(), "comparisons": comparisons})
    return 0


def compare(guest: Guest, pairs: int) -> Comparison:
    """Run all contenders on a guest, each pair in the reverse order of the one before.

    A first run of each, which nobody counts, builds the template, libguestfs' appliance and the
    page cache.

    Raises:
        FleetscanError: one failed, or they did not see the same machine.
    """
    contenders: dict[str, Callable[[Guest], Sample]] = {
        COMMAND: command,
        WORKER: worker,
        PEER: libguestfs,
    }
    for run in contenders.values():
        run(guest)
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(pairs):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in order:
            samples[name].append(contenders[name](guest))
        print(f"{guest.name}: pair {number + 1} of {pairs}", file=sys.stderr, flush=True)
    comparison = Comparison(guest.name, samples)
    _check_same(comparison)
    return comparison


def command(guest: Guest) -> Sample:
    """The command as a person runs it, all rows printed as JSON."""
    disks = [argument for disk in guest.disks for argument in ("-a", str(disk))]
    return _timed([str(_FLEETSCAN), "inspect", *disks, "--format", guest.format, "--output=json"])


def worker(guest: Guest) -> Sample:
    """The inspection proper inside this warm process, as in a fleet's worker.

    Raises:
        FleetscanError: the guest was not read as a whole.
    """
    sink = MemorySink()
    begun = time.monotonic()
    summary = inspect_machine(guest.machine(), ScanOptions(), sink)
    seconds = time.monotonic() - begun
    if summary.outcome != "ok":
        raise FleetscanError(f"{guest.name} is {summary.outcome}: {summary.error}")
    (row,) = sink.table("machines").to_pylist()
    coverage = sink.table("coverage").to_pylist()
    steps = {name: row[f"seconds_{name}"] for name in _PHASES}
    for line in sorted(coverage, key=lambda line: -line["seconds"]):
        name = f"  {line['table_name']}"
        steps[name] = steps.get(name, 0.0) + line["seconds"]
    found = {name: len(sink.table(name)) for name in ("files", "filesystems")}
    managers = sink.table("packages").column("manager").to_pylist()
    found["packages"] = sum(manager not in LANGUAGES for manager in managers)  # which they lack
    return Sample(seconds, steps, found)


_PHASES = ("preflight", "appliance", "discover", "collect")


def libguestfs(guest: Guest) -> Sample:
    """libguestfs' side, in a process of its own.

    Raises:
        FleetscanError: it failed.
    """
    done, seconds = _run([_SYSTEM_PYTHON, str(_ONCE), guest.format, *map(str, guest.disks)])
    answer: dict[str, Any] = json.loads(done)
    return Sample(seconds, answer["steps"], answer["found"])


def virt_inspector(guest: Guest) -> Sample:
    """virt-inspector alone, which sees neither files nor usage."""
    disks = [argument for disk in guest.disks for argument in ("-a", str(disk))]
    return _timed(["virt-inspector", f"--format={guest.format}", *disks])


def _timed(argv: list[str]) -> Sample:
    return Sample(_run(argv)[1])


def _run(argv: list[str]) -> tuple[bytes, float]:
    begun = time.monotonic()
    done = subprocess.run(argv, capture_output=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        text = done.stderr.decode(errors="backslashreplace").strip()[-2000:]
        raise FleetscanError(f"{argv[0]} ended with {done.returncode}: {text}")
    return done.stdout, seconds


def _check_same(comparison: Comparison) -> None:
    ours, theirs = (comparison.samples[name][0].found for name in (WORKER, PEER))
    pairs = [("files", "entries", _ENTRIES_MISSED), ("packages", "applications", _ENTRIES_MISSED)]
    for own, other, allowed in pairs:
        if not 0 <= ours[own] - theirs[other] <= allowed:
            raise FleetscanError(
                f"{comparison.guest}: fleetscan found {ours[own]} {own}, "
                f"libguestfs {theirs[other]} {other}"
            )


def show(comparison: Comparison) -> None:
    """Print a comparison."""
    found = comparison.samples[WORKER][0].found
    output.heading(f"{comparison.guest}: {found['files']} files, {found['packages']} packages")
    rows = []
    for name in (COMMAND, WORKER, PEER):
        ratio = comparison.ratio(name)
        rows.append([name, *comparison.spread(name).cells(), *ratio.cells(1)])
    if comparison.virt_inspector is not None:
        rows.append(["virt-inspector alone, once", f"{comparison.virt_inspector:.2f}", *[""] * 5])
    output.table(["seconds", "median", "least", "most", "times", "least", "most"], rows)
    for name in (WORKER, PEER):
        output.heading(f"steps of: {name}")
        steps = comparison.steps(name).items()
        rows = [[step, *spread.cells(3)] for step, spread in steps]
        output.table(["seconds", "median", "least", "most"], rows, indent="  ")


if __name__ == "__main__":
    sys.exit(main())
