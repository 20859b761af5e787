"""Nights of a large fleet, with recorded facts instead of VMs: see README.md.

Run ``bash tests/bench/scale.sh``. Status 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetscan.scanner.cli import output
from fleetscan.scanner.cluster import ClusterOptions
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.options import ScanOptions, to_plan
from fleetscan.scanner.reuse import EarlierFacts
from fleetscan.scanner.sources import find_machines
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.verify import verify
from fleetscan.scanner.store.views import connect
from fleetscan.scanner.tables import load_tables
from tests.bench import recorded

_MIB = 1 << 20
_SETTLED_SECONDS = 2.5  # a file that was written to just before its scan is scanned again

QUERIES = {
    "packages by name": "SELECT name, count(*) FROM packages GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
    "one package everywhere": "SELECT machine_id, version FROM packages WHERE name = 'package-77'",
    "files others may write": "SELECT machine_id, path FROM files WHERE mode & 2 <> 0",
    "one machine's files": "SELECT max(path) FROM files WHERE machine_id LIKE '%machine-00042%'",
    "coverage": "SELECT table_name, status, count(*) FROM coverage GROUP BY ALL",
}


@dataclass(frozen=True)
class Night:
    """What a night took.

    Attributes:
        run_id: its run.
        machines, scanned: all machines, and those that were not unchanged.
        seconds: time by the clock.
        cpu: seconds of processor of the coordinator, sources and all.
        peak: largest resident size of the coordinator, in bytes; of its process' whole life.
        files: Parquet files that it wrote.
    """

    run_id: str
    machines: int
    scanned: int
    seconds: float
    cpu: float
    peak: int
    files: int


def main() -> int:
    """Parse arguments, run the nights, print the figures and which goals they miss."""
    parser = argparse.ArgumentParser(prog="scale.sh", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--machines", type=int, default=10_000, help="default 10000")
    parser.add_argument("--nights", type=int, default=60, help="default 60")
    parser.add_argument("--fleet", type=int, default=2000, help="in those nights, default 2000")
    parser.add_argument("--keep", type=int, default=7, help="runs that stay, default 7")
    parser.add_argument("--packages", type=int, default=100, help="of a machine, default 100")
    parser.add_argument("--files", type=int, default=200, help="of a machine, default 200")
    parser.add_argument("--slots", type=int, default=2, help="workers, default 2")
    parser.add_argument("--child", nargs=2, metavar=("IMAGES", "FACTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ[recorded.PACKAGES] = str(options.packages)
    os.environ[recorded.FILES] = str(options.files)
    if options.child:
        images, facts = map(Path, options.child)
        print(json.dumps(asdict(night(images, facts, options.slots))))
        return 0
    with tempfile.TemporaryDirectory(prefix="fleetscan-bench-") as scratch:
        goals = [
            *large_fleet(Path(scratch), options.machines, options.slots),
            *many_nights(Path(scratch), options),
        ]
    output.heading("goals")
    output.table(("figure", "measured", "goal", ""), [goal.cells() for goal in goals])
    return int(any(goal.is_missed for goal in goals))


@dataclass(frozen=True)
class Goal:
    """A figure and the most that it may be."""

    name: str
    measured: float
    most: float

    @property
    def is_missed(self) -> bool:
        """Whether it is more."""
        return self.measured > self.most

    def cells(self) -> tuple[str, ...]:
        """The goal as a row."""
        verdict = "missed" if self.is_missed else "met"
        return self.name, f"{self.measured:.2f}", f"{self.most:g}", verdict


def large_fleet(scratch: Path, machines: int, slots: int) -> Iterator[Goal]:
    """A tenth of the machines and all of them, each in a process of its own; then nights after."""
    small, whole = scratch / "small", scratch / "whole"
    make_images(small, machines // 10)
    make_images(whole, machines)
    facts = scratch / "facts"
    nights = [
        ("a tenth, all new", in_own_process(small, scratch / "facts-small", slots)),
        ("all new", in_own_process(whole, facts, slots)),
    ]
    change(whole, range(0, machines, 100), 1)
    nights.append(("1 % changed", in_own_process(whole, facts, slots)))
    nights.append(("nothing changed", in_own_process(whole, facts, slots)))
    show_nights(nights)
    (_, tenth), (_, first), (_, second), (_, last) = nights
    assert second.scanned == len(range(0, machines, 100)), second
    assert last.scanned == 0, last
    yield Goal(
        f"coordinator, MiB more for {machines} machines than for {machines // 10}",
        (first.peak - tenth.peak) / _MIB,
        50,
    )
    yield Goal("CPU of an unchanged machine, ms", last.cpu / machines * 1000, 5)
    yield Goal("files of a night without change", last.files, 39)


def many_nights(scratch: Path, options: argparse.Namespace) -> Iterator[Goal]:
    """Nights in each of which one machine in fifty changed, and then retention."""
    images, facts = scratch / "nightly", scratch / "nightly-facts"
    make_images(images, options.fleet)
    nights = []
    for number in range(options.nights):
        changed = range(number % 50, options.fleet, 50) if number else ()
        change(images, changed, number)
        nights.append(in_own_process(images, facts, options.slots))
    chosen = sorted({0, 1, options.nights // 2, options.nights - 1})
    show_nights([(f"night {number + 1}", nights[number]) for number in chosen])
    first, last = nights[0].run_id, nights[-1].run_id
    yield from compared(facts, first, last)
    yield from retention(facts, options.keep)
    output.line(f"the newest run needs {len(Store(facts).run(last).facts_runs)} others")


def make_images(folder: Path, count: int) -> None:
    """Disks without content, of a time an hour ago."""
    folder.mkdir()
    before = int(time.time()) - 3600
    for number in range(count):
        path = folder / f"machine-{number:05d}.img"
        with path.open("wb") as stream:
            stream.truncate(_MIB)
        os.utime(path, (before, before))
    time.sleep(_SETTLED_SECONDS)


def change(folder: Path, numbers: Sequence[int], night_number: int) -> None:
    """Give some disks another time."""
    at = int(time.time()) - 3600 + night_number
    for number in numbers:
        os.utime(folder / f"machine-{number:05d}.img", (at, at))
    time.sleep(_SETTLED_SECONDS)  # and no two runs begin in the same second


def in_own_process(images: Path, facts: Path, slots: int) -> Night:
    """A night in a process of its own, whose peak and processor time are its own."""
    argv = [sys.executable, "-m", "tests.bench.scale", "--slots", str(slots)]
    argv += ["--packages", os.environ[recorded.PACKAGES], "--files", os.environ[recorded.FILES]]
    argv += ["--child", str(images), str(facts)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True)
    line = done.stdout.splitlines()[-1]
    output.message(line)  # a large fleet takes its time
    return Night(**json.loads(line))


def night(images: Path, facts: Path, slots: int) -> Night:
    """Scan the machines of a folder as ``fleetscan scan`` does, with recorded facts."""
    begun, before = time.monotonic(), set(facts.rglob("*.parquet"))
    cpu = time.process_time()
    settings = {"options": to_plan(ScanOptions())}
    machines = find_machines([str(images)])
    run = Store(facts).begin([machine.machine_id for machine in machines], settings=settings)
    options = FleetOptions(
        cluster=ClusterOptions(slots=slots),
        inspect=recorded.inspect,
        earlier=EarlierFacts(facts, settings, recorded.APPLIANCE),
    )
    summary = scan_fleet(machines, run, options)
    assert summary.outcomes["ok"] == len(machines), summary.failures[:3]
    return Night(
        run.run_id,
        len(machines),
        summary.scanned,
        time.monotonic() - begun,
        time.process_time() - cpu,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        len(set(facts.rglob("*.parquet")) - before),
    )


def show_nights(nights: Sequence[tuple[str, Night]]) -> None:
    """Print what nights took."""
    rows = [
        (
            *(name, one.machines, one.scanned, f"{one.seconds:.1f}", f"{one.cpu:.1f}"),
            *(f"{one.cpu / one.machines * 1000:.2f}", one.peak // _MIB, one.files),
        )
        for name, one in nights
    ]
    columns = ("night", "machines", "scanned", "seconds", "CPU", "ms a machine", "MiB", "files")
    output.table(columns, rows)
    output.line()


def compared(facts: Path, first: str, last: str) -> Iterator[Goal]:
    """Usual queries and ``check`` on the first run and on the last, in alternation."""
    rows, whole = [], []
    for name, sql in QUERIES.items():
        taken = [[_query(facts, run, sql) for run in (first, last)] for _ in range(7)]
        ratio = _median(pair[1] / pair[0] for pair in taken)
        milliseconds = [f"{_median(pair[place] for pair in taken) * 1000:.0f}" for place in (0, 1)]
        rows.append((name, *milliseconds, f"{ratio:.2f}"))
    for _ in range(3):
        whole.append([_check(facts, run) for run in (first, last)])
    ratio = _median(pair[1] / pair[0] for pair in whole)
    seconds = [f"{_median(pair[place] for pair in whole) * 1000:.0f}" for place in (0, 1)]
    rows.append(("check, the command", *seconds, f"{ratio:.2f}"))
    output.table(("query", "first run, ms", "last run, ms", "ratio"), rows)
    yield Goal("check on the last run, over the first", ratio, 1.5)


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


def _query(facts: Path, run_id: str, sql: str) -> float:
    begun = time.perf_counter()
    with contextlib.closing(connect(facts, run_id)) as connection:
        connection.execute(sql).fetchall()
    return time.perf_counter() - begun


def _check(facts: Path, run_id: str) -> float:
    argv = [sys.executable, "-m", "fleetscan.scanner.cli", "check", "--facts", str(facts)]
    begun = time.perf_counter()
    subprocess.run(
        [*argv, "--run", run_id, "--fail-on", "none"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # machines without a verdict make a status of their own
    )
    return time.perf_counter() - begun


def retention(facts: Path, keep: int) -> Iterator[Goal]:
    """Keep the newest runs, and compare what they show with what they showed."""
    store = Store(facts)
    kept = store.run_ids()[-keep:]
    before, size = [digests(facts, run_id) for run_id in kept], _bytes(facts)
    begun = time.monotonic()
    deleted = store.prune(keep=keep)
    seconds = time.monotonic() - begun
    differing = sum(
        digest != digests(facts, run_id) for digest, run_id in zip(before, kept, strict=True)
    )
    problems = sum(len(found.problems) for found in verify(store))
    output.line(
        f"runs --keep {keep} deleted {len(deleted)} runs in {seconds:.1f} s: "
        f"{size // _MIB} MiB became {_bytes(facts) // _MIB} MiB"
    )
    yield Goal("runs that remain", len(store.run_ids()), keep)
    yield Goal("runs that show other rows", differing, 0)
    yield Goal("problems that runs verify finds", problems, 0)


def _bytes(facts: Path) -> int:
    return sum(path.stat().st_size for path in facts.rglob("*.parquet"))


def digests(facts: Path, run_id: str) -> dict[str, str]:
    """By table, a digest of all rows that a run shows; not of which run holds them."""
    found = {}
    with contextlib.closing(connect(facts, run_id)) as connection:
        for name in load_tables():
            columns = f"* EXCLUDE (run_id{', facts_run' * (name == 'machines')})"
            sql = f"SELECT md5(t::VARCHAR) AS d FROM (SELECT {columns} FROM {name}) AS t"  # noqa: S608 - names of specs
            rows = connection.execute(f"SELECT string_agg(d, '' ORDER BY d) FROM ({sql})")  # noqa: S608 - likewise
            (text,) = rows.fetchone() or ("",)
            found[name] = hashlib.sha256(str(text).encode()).hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
