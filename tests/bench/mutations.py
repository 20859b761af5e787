"""Example images, damaged at random and scanned: what ends badly, and what is believed wrongly."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from examples.build_fleet import default_directory
from examples.builder.images import SETS, Image
from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.fleet_tasks import scan_one
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from tests.bench.mutating import Mutation, Region, applied, contents, ends, mutation
from tests.bench.mutation_findings import Finding, Seen, compare, seen
from tests.vm.commands import checksums

SECONDS = 600.0
SEED = 8
EACH = 200
BATCH = 10  # mutations that make one run of facts; the clock is looked at between them

DEADLINE = 60.0
SLACK = 15.0  # a host that is busy with other things
WORKER_MIB = 512
VM_MIB = 1408  # the limit of its address space

_ORIGINAL = "original"


# -- The scans, in a process of their own --------------------------------------------------------


@dataclass(frozen=True)
class Scanned:
    """How a scan went, whatever it found.

    Attributes:
        seconds: how long it took.
        worker_mib: most memory of the process that scanned.
        vm_mib: most memory of any of its VMs so far.
        complaints: warnings of it that hold a traceback, or what else was raised.
    """

    seconds: float
    worker_mib: int = 0
    vm_mib: int = 0
    complaints: tuple[str, ...] = ()


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.exc_info or "Traceback" in text or "bug" in text:
            self.texts.append(text)


def _work(pipe: Connection) -> None:
    """Scan what is asked for until nobody asks any more."""
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    with contextlib.suppress(EOFError):
        while True:
            machine, run = pipe.recv()
            complaints.texts.clear()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
            begun = time.monotonic()
            try:
                options = ScanOptions.of(deadline=DEADLINE)
                scan_one(machine, run, options, inspect_machine, 1)
            except Exception as error:  # whatever it is, it is a finding
                complaints.texts.append(repr(error))
            seconds = time.monotonic() - begun
            vm = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
            pipe.send(Scanned(seconds, _peak_mib(), vm, tuple(complaints.texts)))


def _peak_mib() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) >> 10


class Scanner:
    """A process that scans one machine after the other; killed where it does not answer."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def scan(self, machine: Machine, run: Run) -> Scanned | None:
        """Scan a machine; None when there was no end to it, or its process died."""
        self._pipe.send((machine, run))
        with contextlib.suppress(EOFError, ConnectionError):
            if self._pipe.poll(DEADLINE * 3):  # the first may have to make the template
                scanned: Scanned = self._pipe.recv()
                return scanned
        self.close()
        self._start()
        return None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


# -- Images to damage ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """An image's disks in one form: as files of their formats, or as raw disks.

    Attributes:
        paths: the disks.
        regions: where each may be damaged.
    """

    paths: tuple[Path, ...]
    regions: tuple[tuple[Region, ...], ...]

    def damage(self, chance: random.Random) -> tuple[Path, Mutation]:
        """A disk and what is done to it."""
        number = chance.randrange(len(self.paths))
        return self.paths[number], mutation(chance, self.paths[number], self.regions[number])


@dataclass
class Subject:
    """An image, copied to be damaged, and what came of it.

    Attributes:
        name: the image's.
        forms: its files as they are, and as raw disks where they are not.
        whole: what a scan says of each form when nothing is damaged.
        done: mutations scanned.
        outcomes: how many ended how.
        slowest: seconds of the slowest, and its number.
        findings: by the mutation's number.
    """

    name: str
    forms: tuple[Form, ...]
    whole: list[Seen] = field(default_factory=list)
    done: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    findings: list[tuple[int, Mutation, Finding]] = field(default_factory=list)

    def form_of(self, number: int) -> int:
        """Which form a mutation is done to."""
        return number % len(self.forms)


def subject(image: Image, source: Path, work: Path) -> Subject:
    """An image's disks, copied to a working directory."""
    folder = work / image.name
    folder.mkdir()
    for disk in image.disks:
        names = [disk.file, *([disk.backing] if disk.backing else [])]
        for name in names:
            copy = folder / Path(name).name
            subprocess.run(["cp", "--sparse=always", source / name, copy], check=True)
    files = tuple(folder / Path(disk.file).name for disk in image.disks)
    if all(path.suffix == ".raw" for path in files):
        return Subject(image.name, (_raw_form(files),))
    container = Form(files, tuple(tuple(ends(path)) for path in files))
    if image.cut_from:  # what is cut off cannot be read
        return Subject(image.name, (container,))
    return Subject(image.name, (container, _raw_form(tuple(map(_as_raw, files)))))


def _raw_form(paths: tuple[Path, ...]) -> Form:
    return Form(paths, tuple((*ends(path), *contents(path)) for path in paths))


def _as_raw(path: Path) -> Path:
    target = path.with_name(f"{path.stem}-disk.raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, target], check=True)
    return target


def _machine(name: str, paths: Sequence[Path]) -> Machine:
    return Machine(name, tuple(Disk(str(path)) for path in paths), "mutations")


# -- The bench -----------------------------------------------------------------------------------


class Bench:
    """Scans damaged images batch by batch.

    Args:
        work: a directory for facts.
        seed: what all damage follows from.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self._facts = work / "facts"
        self._seed = seed
        self._scanner = Scanner()
        self.worker_mib = self.vm_mib = 0

    def close(self) -> None:
        """End what runs."""
        self._scanner.close()

    def look_at_the_whole(self, one: Subject) -> None:
        """Scan an image as it is, in each form."""
        for form in one.forms:
            run = Store(self._facts).begin([_ORIGINAL], settings={})
            if self._scanner.scan(_machine(_ORIGINAL, form.paths), run) is None:
                raise FleetscanError(f"{one.name}: the whole image cannot be scanned")
            one.whole.append(self._seen(run)[_ORIGINAL])

    def batch(self, one: Subject, numbers: Sequence[int]) -> None:
        """Damage an image so often, scan it each time, and judge what came out."""
        damages = {}
        run = Store(self._facts).begin([f"{number:06}" for number in numbers], settings={})
        for number in numbers:
            damages[number] = self._scan(one, number, run)
        for machine_id, found in self._seen(run).items():
            number = int(machine_id)
            one.outcomes[found.error_kind or found.outcome] += 1
            whole = one.whole[one.form_of(number)]
            for finding in compare(whole, found, damages[number]):
                one.findings.append((number, damages[number], finding))
        one.done += len(numbers)

    def _scan(self, one: Subject, number: int, run: Run) -> Mutation:
        form = one.forms[one.form_of(number)]
        chance = random.Random(f"{self._seed}/{one.name}/{number}")  # noqa: S311 - to be repeated
        disk, damage = form.damage(chance)
        with applied(disk, damage):
            before = _stamps(form.paths)
            scanned = self._scanner.scan(_machine(f"{number:06}", form.paths), run)
            written = _stamps(form.paths) != before
        for finding in self._judge(scanned, written=written):
            one.findings.append((number, damage, finding))
        if scanned is None:
            self._give_up(run, number)
        else:
            one.slowest = max(one.slowest, (scanned.seconds, number))
        return damage

    def _judge(self, scanned: Scanned | None, *, written: bool) -> Iterator[Finding]:
        if written:
            yield Finding("written", "the image is not as it was")
        if scanned is None:
            yield Finding("hang", "it did not end, or its process died")
            return
        self.worker_mib = max(self.worker_mib, scanned.worker_mib)
        self.vm_mib = max(self.vm_mib, scanned.vm_mib)
        if scanned.seconds > DEADLINE + SLACK:
            yield Finding("hang", f"it took {scanned.seconds:.0f} s")
        if scanned.worker_mib > WORKER_MIB or scanned.vm_mib > VM_MIB:
            yield Finding("memory", f"{scanned.worker_mib} MiB, VM {scanned.vm_mib} MiB")
        for complaint in scanned.complaints:
            yield Finding("bug", complaint[-2000:])

    def _give_up(self, run: Run, number: int) -> None:
        """Give a machine without rows those of one that was not looked at."""
        machine = Machine(f"{number:06}", (), "mutations", "given up")
        scan_one(machine, run, ScanOptions(), inspect_machine, 1)

    def _seen(self, run: Run) -> dict[str, Seen]:
        run.finish()
        found = seen(self._facts, run.run_id)
        shutil.rmtree(self._facts)
        return found


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What no writing leaves as it is: nobody can set a file's ctime."""
    stats = [path.stat() for path in paths]
    return [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def run(
    images: Sequence[tuple[Image, str]], options: argparse.Namespace, work: Path
) -> list[Subject]:
    """Damage the images in turn, a batch each, until time is up or all is done."""
    end = time.monotonic() + options.seconds
    bench = Bench(work, options.seed)
    with contextlib.closing(bench):
        subjects = [subject(image, options.directory / place, work) for image, place in images]
        sums = {one.name: _sums(one) for one in subjects}
        for first in range(0, options.each, BATCH):
            for one in subjects:
                if time.monotonic() > end:
                    break
                if not one.whole:
                    bench.look_at_the_whole(one)
                numbers = options.only or range(first, min(first + BATCH, options.each))
                bench.batch(one, numbers)
            if options.only:
                break
        for one in subjects:
            if _sums(one) != sums[one.name]:
                raise FleetscanError(f"{one.name}: a disk is not as it was")
        show(subjects, bench, options.seed)
    return subjects


def _sums(one: Subject) -> list[dict[str, str]]:
    return [checksums(*form.paths) for form in one.forms]


def show(subjects: Sequence[Subject], bench: Bench, seed: int) -> None:
    """Print what came out, findings last."""
    done = sum(one.done for one in subjects)
    outcomes = sum((one.outcomes for one in subjects), Counter[str]())
    slowest = max(subjects, key=lambda one: one.slowest)
    print(f"{done} mutations of {len(subjects)} images, seed {seed}")
    print("ended: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    print(f"slowest: {slowest.slowest[0]:.1f} s ({slowest.name} {slowest.slowest[1]})")
    print(f"most memory: {bench.worker_mib} MiB, VM {bench.vm_mib} MiB")
    for one in subjects:
        for number, damage, finding in one.findings:
            word = finding.kind if finding.certain else f"to look at: {finding.kind}"
            print(f"{one.name} {number} [{damage.kind}: {damage.what}]: {word}: {finding.text}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="mutations.sh", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="names; all if none is given")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin no batch after that")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--each", type=int, default=EACH, help="mutations of each image")
    parser.add_argument("--only", type=int, action="append", help="this mutation alone")
    parser.add_argument("--directory", type=Path, default=default_directory())
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run the bench; 1 when something ended badly."""
    options = arguments(words)
    known = {image.name: (image, place) for place in ("fleet", "extra") for image in SETS[place]}
    chosen = [known[name] for name in options.images or known if name != "zero"]
    with tempfile.TemporaryDirectory(prefix="fleetscan-mutations-") as work:
        subjects = run(chosen, options, Path(work))
    return int(any(finding.certain for one in subjects for _, _, finding in one.findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
