"""What check and report take over a machine that tells far too much: see README.md.

Run from the project's root: ``.venv/bin/python -m tests.bench.hostile_memory``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as typed_in_part

from fleetscan.rules.results import read_results
from fleetscan.scanner.cli import output
from fleetscan.scanner.store import files, layout
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from tests.bench import invented
from tests.hostile import liars

# Any: no stubs of pyarrow.parquet fit every version of it.
parquet: Any = typed_in_part


def main() -> int:
    """Write two runs, check and report both, print what that took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--users", type=int, default=1_000_000, help="short ones (default 1000000)")
    parser.add_argument("--long", type=int, default=300, help="of 1 MiB each (default 300)")
    options = parser.parse_args()
    base = liars.honest_rows()
    figures: list[tuple[str, ...]] = []
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="fleetscan-bench-") as scratch:
        for name in ("alone", "beside"):
            folder = Path(scratch) / name
            liars.write(folder, base, [])
            if name == "beside":
                _replace_users(folder, options.users, options.long)
            page = str(folder / "report.html")
            for command in (("check", "--fail-on", "none"), ("report", "--html", page)):
                figures.append((name, command[0], *_measure([*command, "--facts", str(folder)])))
            table = read_results(folder, liars.RUN)
            verdicts.append([r for r in table.to_pylist() if r["machine_id"] != liars.HONEST[0]])
    output.table(("run", "command", "status", "seconds", "largest process, MiB"), figures)
    same = verdicts[0] == verdicts[1]
    output.line(f"verdicts on the other machines are {'the same' if same else 'NOT the same'}")
    return 0 if same else 1


def _measure(arguments: Sequence[str]) -> tuple[str, ...]:
    """Exit status, time and memory of a command, the largest of its processes counted."""
    begun = time.monotonic()
    argv = [sys.executable, "-m", "fleetscan.scanner.cli", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, *map(_resident, _family(process.pid)))
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    return str(process.returncode), f"{seconds:.1f}", f"{peak >> 20}"


def _family(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [pid, *map(int, found.stdout.split())]


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _replace_users(folder: Path, short: int, long: int) -> None:
    """Give the first machine users without number, and some whose names have no end."""
    table, run = load_tables()["users"], Store(folder).run(liars.RUN)
    rows = parquet.read_table(layout.part(folder, "users", liars.RUN, 0), partitioning=None)
    model, others = rows.slice(0, 1), rows.slice(len(rows) // len(liars.HONEST))
    written = invented.write(folder, liars.RUN, table, _batches(model, others, short, long))
    users = replace(run.tables["users"], files=tuple(written))
    changed = replace(run, tables=run.tables | {"users": users})
    files.write_json(layout.run_file(folder, liars.RUN), changed.to_json())


def _batches(model: pa.Table, others: pa.Table, short: int, long: int) -> Iterator[pa.RecordBatch]:
    names = (f"user-{number}" for number in range(short))
    endless = (f"{number:x}".rjust(1 << 20, "x") for number in range(long))
    for some, size in ((names, 10_000), (endless, 20)):
        while batch := [name for name, _ in zip(some, range(size), strict=False)]:
            made = pa.concat_tables([model] * len(batch)).combine_chunks()
            index = made.schema.get_field_index("name")
            made = made.set_column(index, made.schema.field(index), pa.array(batch))
            yield from made.combine_chunks().to_batches()
    yield from others.combine_chunks().to_batches()


if __name__ == "__main__":
    sys.exit(main())
