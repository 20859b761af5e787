"""Throughput, phases, overhead and memory of fleet scans: see README.md.

Run it by fleet.sh, which installs and builds what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fleetscan.appliance.cache import cache_directory
from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.ground.schema import Origin
from fleetscan.scanner.cli import output
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.staging import MachineWriter
from fleetscan.scanner.store.views import connect
from fleetscan.scanner.tables import load_tables
from tests.bench import guests, memory
from tests.bench.figures import Spread, host, write_json
from tests.bench.guests import Guest
from tests.bench.memory import Peaks

_FLEETSCAN = Path(sys.executable).with_name("fleetscan")
_SLOTS = (1, 2)
_WATCHED_MACHINES = 12
_STORE_MACHINES = 5
_PHASES = ("preflight", "appliance", "discover", "collect")


@dataclass(frozen=True)
class Scan:
    """One run of ``fleetscan scan``; all times in seconds.

    Attributes:
        slots: machines at a time.
        machines: how many.
        wall: of the whole command, the cluster's start and the run's end included.
        window: from the first machine's start to the last one's end.
        busy: of all machines together.
        phases: mean of a machine, by phase; ``rest`` is what no phase counts.
        guests: mean of a machine, by the guest that it is a copy of.
    """

    slots: int
    machines: int
    wall: float
    window: float
    busy: float
    phases: dict[str, float]
    guests: dict[str, float]

    @property
    def per_minute(self) -> float:
        """Machines a minute while machines are scanned."""
        return self.machines / self.window * 60

    @property
    def dispatching(self) -> float:
        """Share of the slots' time in which no machine was scanned, of the window."""
        return 1 - self.busy / (self.slots * self.window)


@dataclass(frozen=True)
class Fleet:
    """What was measured on one kind of fleet.

    Attributes:
        name: the guests that its machines are copies of.
        scans: every scan.
        storing: share of a machine's time that goes into writing its rows.
        peaks: memory of a scan with the most slots.
    """

    name: str
    scans: list[Scan]
    storing: Spread
    peaks: Peaks

    def scans_of(self, slots: int) -> list[Scan]:
        """The scans with so many slots."""
        return [scan for scan in self.scans if scan.slots == slots]


def main() -> int:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="fleet.sh", description=(__doc__ or "").split(":")[0])
    parser.add_argument("machines", type=int, nargs="?", default=40, help="default 40")
    parser.add_argument("--guests", default="debian12", help="copies of which, comma separated")
    parser.add_argument("--large", action="store_true", help="the large guest as well, by itself")
    parser.add_argument("--rounds", type=int, default=1, help="scans with each number of slots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    print(host(), flush=True)
    fleets = [measure(options.guests.split(","), options.machines, options.rounds)]
    if options.large:
        # A tenth: a machine of it takes as long as ten.
        fleets.append(measure(["large"], max(4, options.machines // 10), options.rounds))
    template = template_bytes()
    for fleet in fleets:
        show(fleet, template)
    if options.json:
        content = {"host": host(), "template_bytes": template, "fleets": fleets}
        write_json(options.json, content)
    return 0


def measure(names: Sequence[str], count: int, rounds: int) -> Fleet:
    """Measure a fleet of copies of some guests.

    Raises:
        FleetscanError: a scan failed, or a machine of it.
    """
    chosen = [guests.find(name) for name in names]
    with tempfile.TemporaryDirectory(prefix="fleetscan-bench-") as name:
        work = Path(name)
        work.chmod(0o755)
        storing = [_storing(guest, work / "staging") for guest in chosen * _STORE_MACHINES]
        (work / "fleet").mkdir()
        guests.make_fleet(chosen, count, work / "fleet")
        scans = []
        for number in range(rounds):
            for slots in _SLOTS if number % 2 == 0 else reversed(_SLOTS):
                scans.append(scan(chosen, work, slots))
                print(f"scanned {count} machines, {slots} at a time", file=sys.stderr, flush=True)
        (work / "watched").mkdir()
        guests.make_fleet(chosen, min(count, _WATCHED_MACHINES), work / "watched")
        peaks = _watched_scan(chosen, work, max(_SLOTS))
    return Fleet(", ".join(names), scans, Spread.of(storing), peaks)


def scan(chosen: Sequence[Guest], work: Path, slots: int) -> Scan:
    """Scan the folder ``fleet`` with the real command.

    Raises:
        FleetscanError: it failed, or a machine of it.
    """
    with tempfile.TemporaryDirectory(dir=work, prefix="facts-") as facts:
        begun = time.monotonic()
        done = subprocess.run(
            _command(chosen, work / "fleet", Path(facts), slots), capture_output=True, check=False
        )
        wall = time.monotonic() - begun
        _check(done.returncode, done.stderr)
        return _read(Path(facts), slots, wall)


def _command(chosen: Sequence[Guest], folder: Path, facts: Path, slots: int) -> list[str]:
    command = [str(_FLEETSCAN), "scan", str(folder), "--facts", str(facts), "-q"]
    for directory in {disk.parent for guest in chosen for disk in guest.disks}:
        command += ["--allow-dir", str(directory)]
    return [*command, "-P", str(slots), "--output", "json"]


def _check(status: int, messages: bytes) -> None:
    if status != 0:
        text = messages.decode(errors="backslashreplace").strip()[-2000:]
        raise FleetscanError(f"fleetscan scan ended with {status}: {text}")


def _read(facts: Path, slots: int, wall: float) -> Scan:
    """A scan's figures, from its own table of machines."""
    with contextlib.closing(connect(facts, Store(facts).latest().run_id)) as connection:
        rows = connection.sql("SELECT * FROM machines").to_arrow_table().to_pylist()
    if bad := [row for row in rows if row["outcome"] != "ok"]:
        raise FleetscanError(f"{bad[0]['machine_id']} is {bad[0]['outcome']}: {bad[0]['error']}")
    begins = [row["started"].timestamp() for row in rows]
    ends = [begin + row["seconds"] for begin, row in zip(begins, rows, strict=True)]
    phases = {name: _mean([row[f"seconds_{name}"] for row in rows]) for name in _PHASES}
    phases["rest"] = _mean([row["seconds"] for row in rows]) - sum(phases.values())
    by_guest: dict[str, list[float]] = {}
    for row in rows:
        name = row["machine_id"].removesuffix(".qcow2").partition("-")[2]
        by_guest.setdefault(name, []).append(row["seconds"])
    return Scan(
        slots=slots,
        machines=len(rows),
        wall=wall,
        window=max(ends) - min(begins),
        busy=sum(row["seconds"] for row in rows),
        phases=phases,
        guests={name: _mean(seconds) for name, seconds in sorted(by_guest.items())},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class _TimedWriter:
    """A sink that hands rows on and counts the time that this takes for those of the guest.

    The rows about the scan itself are written when the machine's own time has ended: they are
    part of what lies between two machines.
    """

    def __init__(self, writer: MachineWriter) -> None:
        self._writer = writer
        self.seconds = 0.0

    def write(self, table_name: str, rows: pa.Table) -> None:
        """Take rows of one table."""
        begun = time.monotonic()
        self._writer.write(table_name, rows)
        if load_tables()[table_name].origin is Origin.GUEST:
            self.seconds += time.monotonic() - begun


def _storing(guest: Guest, staging: Path) -> float:
    """Share of a machine's time that goes into writing its rows, measured in this process."""
    with MachineWriter(staging, guest.name) as writer:
        sink = _TimedWriter(writer)
        summary = inspect_machine(guest.machine(), ScanOptions(), sink)
        writer.commit({})
    return sink.seconds / summary.seconds


def _watched_scan(chosen: Sequence[Guest], work: Path, slots: int) -> Peaks:
    """A scan apart from the timed ones, as looking at memory takes time as well."""
    with tempfile.TemporaryDirectory(dir=work, prefix="facts-") as facts:
        command = _command(chosen, work / "watched", Path(facts), slots)
        with (
            tempfile.TemporaryFile() as messages,
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages) as process,
        ):
            with memory.watched(process.pid) as peaks:
                process.wait()
            messages.seek(0)
            _check(process.returncode, messages.read())
    return peaks


def template_bytes() -> int:
    """Space that the template takes, which all clones of the host share."""
    files = (cache_directory() / "template").glob("*/memory")
    newest = max(files, key=lambda path: path.stat().st_mtime)
    return newest.stat().st_blocks * 512


def show(fleet: Fleet, template: int) -> None:
    """Print a fleet's figures."""
    output.heading(f"{fleet.name}: {fleet.scans[0].machines} machines")
    rows = []
    for slots in _SLOTS:
        scans = fleet.scans_of(slots)
        cells = [
            f"{Spread.of([scan.per_minute for scan in scans]).median:.1f}",
            f"{Spread.of([scan.window / scan.machines for scan in scans]).median:.3f}",
            f"{Spread.of([scan.wall - scan.window for scan in scans]).median:.2f}",
            f"{Spread.of([scan.dispatching for scan in scans]).median:.1%}",
            *(
                f"{Spread.of([scan.phases[name] for scan in scans]).median:.3f}"
                for name in (*_PHASES, "rest")
            ),
        ]
        rows.append([slots, *cells])
    head = ["slots", "a minute", "s a machine", "begin, end s", "idle", *_PHASES, "rest"]
    output.table(head, rows)
    one, two = (Spread.of([s.per_minute for s in fleet.scans_of(n)]).median for n in _SLOTS)
    print(f"throughput, {_SLOTS[1]} slots against {_SLOTS[0]}: {two / one:.2f}")
    _show_overhead(fleet)
    _show_memory(fleet.peaks, template)


def _show_overhead(fleet: Fleet) -> None:
    storing = fleet.storing.median
    for slots in _SLOTS:
        idle = Spread.of([scan.dispatching for scan in fleet.scans_of(slots)]).median
        share = idle + (1 - idle) * storing
        print(f"Dask, scheduling and store, {slots} slots: {share:.1%} (store {storing:.1%})")
    for scan in fleet.scans[-len(_SLOTS) :]:
        if len(scan.guests) > 1:
            each = ", ".join(f"{name} {seconds:.2f}" for name, seconds in scan.guests.items())
            print(f"seconds of a machine with {scan.slots} slots: {each}")


def _show_memory(peaks: Peaks, template: int) -> None:
    output.heading(f"peak memory, {max(_SLOTS)} slots, MiB (PSS, {peaks.samples} samples)")
    rows = [
        [role, f"{peaks.processes[role] / 2**20:.0f}", f"{peaks.shared[role] / 2**20:.0f}"]
        for role in memory.ROLES
    ]
    slot = peaks.processes["worker"] + peaks.processes["VM"]
    rows.append(["a slot: worker and VM", f"{slot / 2**20:.0f}", ""])
    rows.append(["all processes together", f"{peaks.total / 2**20:.0f}", ""])
    rows.append(["the template, once", "", f"{template / 2**20:.0f}"])
    output.table(["", "own", "of the template"], rows)


if __name__ == "__main__":
    sys.exit(main())
