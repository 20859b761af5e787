from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from scanner.store.views import connect
from tests.bench import invented, memory
from tests.bench.figures import Spread
from tests.bench.memory import Memory, Peaks

RUN = "20260131T000000Z-000000"


def test_own_memory_is_what_is_not_shared_memory() -> None:
    rollup = "5581e3c0-7ffd7000 ---p 00000000 00:00 0 [rollup]\nPss: 100 kB\nPss_Shmem: 30 kB\n"

    assert memory.parse(rollup) == Memory(own=70 << 10, shared=30 << 10)


def test_a_process_and_its_workers_are_told_apart() -> None:
    code = "import sys; spawn_main = 0; print('up', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = memory.look(os.getpid())
        child.communicate()

    assert seen[os.getpid()][0] == "coordinator"
    assert seen[child.pid][0] == "worker"
    assert all(found.own > 0 for _, found in seen.values())


def test_peaks_keep_the_largest_process_of_each_role_and_the_largest_sum() -> None:
    peaks = Peaks()
    peaks.add({1: ("worker", Memory(own=10)), 2: ("worker", Memory(own=30, shared=5))})
    peaks.add({1: ("worker", Memory(own=20))})

    assert peaks.processes["worker"] == 30
    assert peaks.total == 45


def test_a_spread_is_of_the_values_given() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).cells() == ["2.00", "1.00", "3.00"]


def test_invented_machines_have_the_rows_asked_for(tmp_path: Path) -> None:
    size = invented.Size(machines=3, packages=4, least_files=5, most_files=9)

    rows = invented.generate(tmp_path, RUN, size)

    assert (rows["machines"], rows["packages"]) == (3, 12)
    with contextlib.closing(connect(tmp_path, RUN)) as connection:
        sql = "SELECT count(*), count(DISTINCT machine_id) FROM files GROUP BY machine_id"
        counts = connection.sql(sql).fetchall()
    assert len(counts) == 3
    assert all(5 <= count <= 9 and machines == 1 for count, machines in counts)
