"""The rules of linux-baseline over the facts of many machines that nobody had: see README.md.

Run from the project's root: ``.venv/bin/python -m tests.bench.rule_speed``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetscan.rules.evaluate import evaluate_run
from fleetscan.rules.judging_process import JudgingProcess
from fleetscan.rules.load import load_packs
from fleetscan.scanner.cli import output
from fleetscan.scanner.store import layout
from tests.bench.figures import host, write_json
from tests.bench.invented import Size, generate

_HUNDRED = 100


@dataclass(frozen=True)
class Outcome:
    """What evaluating took.

    Attributes:
        rules: how many.
        results: rows that came out.
        seconds: of all of it, the connection included.
        peak_bytes: largest resident sizes of the two processes that did it, added up.
        states: results by state.
    """

    rules: int
    results: int
    seconds: float
    peak_bytes: int
    states: dict[str, int]


def main() -> int:
    """Parse arguments, generate, evaluate, print."""
    parser = argparse.ArgumentParser(
        prog="rule_speed.py", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--machines", type=int, default=10_000, help="default 10000")
    parser.add_argument("--packages", type=int, default=500, help="of each (default 500)")
    parser.add_argument("--files", type=int, nargs=2, default=(500, 5000), metavar=("MIN", "MAX"))
    parser.add_argument("--facts", type=Path, help="keep the facts there, and use what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    size = Size(options.machines, options.packages, *options.files)
    with contextlib.ExitStack() as stack:
        facts = options.facts or Path(stack.enter_context(_scratch()))
        begun = time.monotonic()
        run_id = layout.new_run_id(dt.datetime.now(dt.UTC))
        visible = layout.visible_runs(facts)
        rows = {} if visible else generate(facts, run_id, size)
        generated = time.monotonic() - begun
        outcome = _in_own_process(evaluated, facts, visible[-1] if visible else run_id)
    show(size, rows, generated, outcome)
    if options.json:
        write_json(
            options.json,
            {"host": host(), "size": size, "rows": rows, "seconds": generated, "outcome": outcome},
        )
    return 0


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fleetscan-bench-")


def evaluated(facts: Path, run_id: str) -> Outcome:
    """Evaluate the pack as ``fleetscan check`` does."""
    packs = load_packs(["linux-baseline"])
    begun = time.monotonic()
    with JudgingProcess() as process:
        results = evaluate_run(process, facts, run_id, packs)
    seconds = time.monotonic() - begun
    states = Counter(results.table.column("state").to_pylist())
    return Outcome(
        rules=sum(len(pack.rules) for pack in packs),
        results=len(results.table),
        seconds=seconds,
        peak_bytes=sum(
            resource.getrusage(who).ru_maxrss << 10
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ),
        states={str(state): count for state, count in states.items()},
    )


def _in_own_process(work: Callable[[Path, str], Outcome], facts: Path, run_id: str) -> Outcome:
    """Peak memory is a process' whole life's: generating must not count."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (facts, run_id))


def show(size: Size, rows: Mapping[str, int], generated: float, outcome: Outcome) -> None:
    """Print the figures."""
    print(host())
    print(f"{size.machines} machines, written in {generated:.0f} s")
    output.table(["table", "rows"], [(name, count) for name, count in rows.items() if count])
    output.heading("linux-baseline")
    figures = [
        ("rules", f"{outcome.rules}"),
        ("results", f"{outcome.results}"),
        ("seconds", f"{outcome.seconds:.2f}"),
        ("seconds for 100 rules", f"{outcome.seconds / outcome.rules * _HUNDRED:.2f}"),
        ("peak memory, MiB", f"{outcome.peak_bytes / 2**20:.0f}"),
    ]
    output.table(["figure", "value"], figures)
    output.table(["state", "results"], sorted(outcome.states.items()))


if __name__ == "__main__":
    sys.exit(main())
