"""Transaction logs of hives: replayed as Windows does, and as another reader does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regipy.recovery import apply_transaction_logs

from examples.builder import hivelogs as making
from fleetscan.appliance.guest.readers import hivelogs, hives
from fleetscan.appliance.guest.readers.hivelogs import Recovery
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.registry_hives.collect import describe
from tests.scanner.tables.make_hives import make_hive
from tests.scanner.tables.run_case import DEBIAN_PYTHON, ENVIRONMENT, run_in_debian_python

BEFORE = "\n".join(f'[Software\\Product{n:03}]\n"Data"=hex:{"61," * 90}62' for n in range(300))
AFTER = BEFORE.replace("61,62", "7a,62") + "\n".join(
    f'\n[Software\\Later{n:03}]\n"Data"=hex:{"63," * 90}62' for n in range(100)
)
BASE = 512
NONE = Recovery("not_needed")


class States:
    """A hive before and after some writes, and the pages that these change in two halves."""

    def __init__(self, folder: Path) -> None:
        (folder / "before.reg").write_text(BEFORE)
        (folder / "after.reg").write_text(AFTER)
        self.before = making.dirty(make_hive(folder / "before.reg", folder / "b").read_bytes())
        self.after = make_hive(folder / "after.reg", folder / "a").read_bytes()
        pages = making.pages(self.before, self.after)
        self.first, self.second, self.third = pages[:3], pages[3:9], pages[9:]
        (self.sequence,) = struct.unpack_from("<I", self.before, 8)

    def log(self, number: int, *entries: list[making.Page]) -> bytes:
        """A log whose first entry's number is so much above the hive's own."""
        return making.log(self.after, self.sequence + number, entries)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    return States(tmp_path_factory.mktemp("states"))


def replay(folder: Path, hive: bytes, *logs: bytes) -> tuple[bytes, Recovery]:
    """The recovered hive, empty for none, and what became of the logs."""
    descriptors = []
    for name, content in zip(("HIVE", "LOG1", "LOG2"), (hive, *logs), strict=False):
        (folder / name).write_bytes(content)
        descriptors.append(os.open(folder / name, os.O_RDONLY))
    copy, recovery = hivelogs.recover(descriptors[0], descriptors[1:])
    found = b"" if copy is None else os.pread(copy, 1 << 28, 0)
    for descriptor in descriptors + ([] if copy is None else [copy]):
        os.close(descriptor)
    return found, recovery


# Of the test vectors that come with .NET's and SymCrypt's implementations.
VECTORS = [
    (0x004FB61A001BDBCC, "", 0x30ED35C100CD3C7D),
    (0x004FB61A001BDBCC, "AF", 0x48E73FC77D75DDC1),
    (0x004FB61A001BDBCC, "E70F", 0xB5F6E1FC485DBFF8),
    (0x004FB61A001BDBCC, "37F495", 0xF0B07C789B8CF7E8),
    (0x004FB61A001BDBCC, "8642DC59", 0x7008F2E87E9CF556),
    (0x004FB61A001BDBCC, "153FB79826", 0xE6C08C6DA2AFA997),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled marvin32.c."""
    source = Path(hivelogs.__file__).with_name("marvin32.c")
    target = str(tmp_path_factory.mktemp("native") / "marvin32.so")
    compiler = shutil.which("tcc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed for the native checksum: apt-get install tcc"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", target, str(source)]
    subprocess.run(command, check=True, timeout=60)
    return target


@pytest.mark.parametrize(("seed", "data", "checksum"), VECTORS)
def test_checksums_are_those_of_the_known_vectors(
    seed: int, data: str, checksum: int, library: str
) -> None:
    assert hivelogs.marvin32(bytes.fromhex(data), seed) == checksum
    assert hivelogs.hasher(library)(bytes.fromhex(data), seed) == checksum


@given(data=st.binary(max_size=70), seed=st.integers(0, 2**64 - 1))
def test_the_native_checksum_is_that_of_python(data: bytes, seed: int, library: str) -> None:
    assert hivelogs.hasher(library)(data, seed) == hivelogs.marvin32(data, seed)


def test_without_the_native_checksum_that_of_python_is_used() -> None:
    assert hivelogs.hasher("/nowhere.so") is hivelogs.marvin32


def test_entries_of_both_logs_are_replayed_in_order_and_as_another_reader_does(
    tmp_path: Path, states: States
) -> None:
    # The second entry writes what the third writes again; the other log is the earlier one.
    wrong = [(offset, bytes(len(content))) for offset, content in states.third]
    later, earlier = states.log(2, states.third), states.log(0, states.first, states.second + wrong)
    hive = states.before.ljust(len(states.after), b"\0")  # the other reader lets no hive grow
    found, recovery = replay(tmp_path, hive, later, earlier)
    assert recovery == Recovery("replayed", 3)
    assert found[BASE:] == states.after[BASE:]
    paths = [str(tmp_path / name) for name in ("HIVE", "LOG1", "LOG2", "THEIRS")]
    theirs, _ = apply_transaction_logs(*paths)  # takes the second log first
    assert found[BASE:] == Path(theirs).read_bytes()[BASE:]


def test_a_replayed_hive_is_whole(tmp_path: Path, states: States) -> None:
    log = states.log(0, states.first, states.second, states.third)
    found, _ = replay(tmp_path, states.before, log)
    assert len(states.before) < len(found) == len(states.after)
    base = hivelogs.base(found[:BASE])
    assert base is not None
    assert (base.dirty, base.primary, base.type) == (False, states.sequence + 2, 0)


def test_a_hive_that_is_not_dirty_is_left_alone(tmp_path: Path, states: States) -> None:
    found, recovery = replay(tmp_path, states.after, states.log(1, states.first))
    assert (found, recovery) == (b"", NONE)


def test_a_log_of_older_writes_is_left_alone(tmp_path: Path, states: States) -> None:
    found, recovery = replay(tmp_path, states.before, states.log(-1, states.first))
    assert (found, recovery) == (b"", Recovery("nothing_newer"))


def test_logs_that_are_missing_or_empty_are_told(tmp_path: Path, states: States) -> None:
    assert replay(tmp_path, states.before)[1] == Recovery("nothing_newer", note="it has no logs")
    assert replay(tmp_path, states.before, b"x" * 99)[1].state == "failed"


def test_an_entry_that_is_damaged_ends_the_replay(tmp_path: Path, states: States) -> None:
    log = bytearray(states.log(0, states.first, states.second))
    log[-600] ^= 1
    found, recovery = replay(tmp_path, states.before, bytes(log))
    assert recovery == Recovery("replayed", 1, f"entry {states.sequence + 1} is damaged")
    expected = bytearray(states.before)
    for offset, content in states.first:
        expected[4096 + offset : 4096 + offset + len(content)] = content
    assert found[BASE : len(expected)] == expected[BASE:]


def test_an_entry_that_is_cut_off_is_not_replayed(tmp_path: Path, states: States) -> None:
    log = states.log(0, states.first)[:-1]
    found, recovery = replay(tmp_path, states.before, log)
    assert (found, recovery.state) == (b"", "failed")


def test_a_gap_between_logs_ends_the_replay(tmp_path: Path, states: States) -> None:
    logs = states.log(0, states.first), states.log(2, states.second)
    _, recovery = replay(tmp_path, states.before, *logs)
    assert recovery == Recovery("replayed", 1, f"entry {states.sequence + 1} is missing")


def test_a_base_block_with_a_wrong_checksum_comes_from_the_latest_log(
    tmp_path: Path, states: States
) -> None:
    hive = bytearray(states.before)
    hive[508] ^= 1
    logs = states.log(8, states.first), states.log(5, states.second)
    found, recovery = replay(tmp_path, bytes(hive), *logs)
    assert recovery == Recovery("replayed", 1)
    assert found[16:BASE][20:24] == states.after[16:BASE][20:24]


def test_a_page_outside_the_hive_is_not_written(tmp_path: Path, states: States) -> None:
    log = states.log(0, [(1 << 31, b"x" * 512)])
    _, recovery = replay(tmp_path, states.before, log)
    assert recovery == Recovery("failed", note="an entry's page is outside the hive")


def test_a_log_of_the_old_format_is_replayed_as_another_reader_does(
    tmp_path: Path, states: States
) -> None:
    after = states.after[: len(states.before)]
    after = after[:40] + states.before[40:44] + after[44:]  # the other reader lets no hive grow
    found, recovery = replay(tmp_path, states.before, making.old_log(states.before, after))
    assert recovery == Recovery("replayed", 1)
    theirs, _ = apply_transaction_logs(
        str(tmp_path / "HIVE"), str(tmp_path / "LOG1"), restored_hive_path=str(tmp_path / "THEIRS")
    )
    assert found[BASE:] == Path(theirs).read_bytes()[BASE:]
    assert making.pages(found, after) == []


def test_a_log_of_the_old_format_of_another_write_is_left_alone(
    tmp_path: Path, states: States
) -> None:
    log = bytearray(making.old_log(states.before, states.after))
    log[12] ^= 1
    log[508] ^= 1
    assert replay(tmp_path, states.before, bytes(log))[1] == Recovery("nothing_newer")


@given(data=st.data())
def test_logs_of_any_content_end_and_raise_nothing(
    data: st.DataObject, states: States, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = bytearray(data.draw(st.sampled_from([_old(states), states.log(0, states.first)])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(BASE, len(log) - 4))
        log[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    hive = bytearray(states.before)
    if data.draw(st.booleans()):
        hive[508] ^= 1
    replay(tmp_path_factory.getbasetemp(), bytes(hive), bytes(log))


def _old(states: States) -> bytes:
    return making.old_log(states.before, states.after)


PRODUCTS = """
import sys
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.ground.problems import Problems
problems = Problems()
with Root("r", sys.argv[1]) as root:
    top = hives.read_system(root, "SOFTWARE", [Want("Software", 1)], problems)
print(len(top.keys["software"].keys), list(problems))
"""


def products(tree: Path) -> str:
    """How many keys collectors see below Software, and what could not be read."""
    command = [DEBIAN_PYTHON, "-c", PRODUCTS, str(tree)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_collectors_see_what_logs_hold(tmp_path: Path, states: States) -> None:
    config = tmp_path / "Windows" / "System32" / "config"
    config.mkdir(parents=True)
    (config / "SOFTWARE").write_bytes(states.before)
    (config / "SOFTWARE.LOG2").write_bytes(states.log(0, states.first, states.second, states.third))
    (row,) = map(json.loads, run_in_debian_python("registry_hives", tmp_path).rows)
    assert (row["dirty"], row["recovery"], row["replayed"]) == (True, "replayed", 3)
    assert products(tmp_path) == "400 []"


def test_logs_that_make_no_hive_of_it_leave_what_the_file_holds(
    tmp_path: Path, states: States
) -> None:
    config = tmp_path / "Windows" / "System32" / "config"
    config.mkdir(parents=True)
    (config / "SOFTWARE").write_bytes(states.before)
    (config / "SOFTWARE.LOG1").write_bytes(states.log(0, [(0, bytes(4096))]))
    assert products(tmp_path).startswith("300 ['/Windows/System32/config/SOFTWARE: hivex cannot")


def test_copies_are_dropped_when_memory_is_short(
    tmp_path: Path, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hivelogs, "COPY_LIMIT", len(states.after) + 4096)
    for name in ("A", "B"):
        (tmp_path / name).write_bytes(states.before)
        (tmp_path / f"{name}.LOG1").write_bytes(states.log(0, states.first))
    with Root("r", str(tmp_path)) as root:
        copies = hives.Recoveries(root)
        for name in ("A", "B", "A"):
            with root.open(name) as stream:
                copy, recovery = copies.find(name, stream.fileno())
            assert (copy is not None, recovery.entries) == (True, 1)
            assert sum(map(_is_copy, Path("/proc/self/fd").iterdir())) == 1
    copies.close()


def _is_copy(descriptor: Path) -> bool:
    with contextlib.suppress(OSError):
        return "memfd:hive" in str(descriptor.readlink())
    return False


@pytest.mark.parametrize(("state", "dirty"), [("not_needed", False), ("replayed", True)])
def test_a_hive_is_described_with_what_became_of_its_logs(
    state: hivelogs.State, dirty: bool
) -> None:
    head = struct.pack("<4sIIQII", b"regf", 8, 7, 116_444_736_000_000_010, 1, 5)
    row = describe("/SYSTEM", 8192, head, ("/SYSTEM.LOG1",), Recovery(state, 2, "why"))
    assert (row.dirty, row.written, row.version) == (dirty, 1, "1.5")
    assert (row.primary_sequence, row.secondary_sequence) == (8, 7)
    assert (row.recovery, row.replayed, row.recovery_note) == (state, 2, "why")
