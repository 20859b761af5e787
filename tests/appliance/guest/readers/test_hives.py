"""Registry hives that are damaged, hostile or huge, read by the real hivex.

The parsers of plain data are tested here as well, on what no hive of the cases holds.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import hivenames, hivereader, hives, sam
from fleetscan.appliance.guest.readers.hives import HiveKey, Value
from fleetscan.appliance.guest.root import Root
from tests.scanner.tables.make_hives import make_hive
from tests.scanner.tables.run_case import DEBIAN_PYTHON, ENVIRONMENT, REPOSITORY

TEXT = "\n".join(
    f'[Software\\Product{number:03}]\n"Name"="product number {number}"\n"Data"=hex:{"61," * 40}62'
    for number in range(200)
)
LAST = f'\n[Last]\n"Data"=hex:{"61," * 9000}62'
PROGRAM = """
import dataclasses, json, sys
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.readers import hivereader, hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.ground.problems import Problems

problems = Problems()
for limit in sys.argv[3:]:
    name, _, value = limit.partition("=")
    setattr(hivereader, name, int(value))
with Root("r", sys.argv[1]) as root:
    wanted = [Want(path, 9) for path in sys.argv[2].split()]
    key = hives.read(root, "HIVE", wanted, problems)
names = sorted(key.keys["software"].keys) if key and "software" in key.keys else []
print(json.dumps([names, list(problems), key is None]))
"""

_BASE_BLOCK = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A hive of 200 keys in several bins, and of one value behind them."""
    folder = tmp_path_factory.mktemp("hive")
    (folder / "text").write_text(TEXT + LAST)
    return make_hive(folder / "text", folder / "hive").read_bytes()


def read(
    top: Path, hive: bytes | None, wanted: str = "Software", *limits: str
) -> tuple[list[str], list[str]]:
    """Names of the keys below Software, and what could not be read."""
    if hive is not None:
        (top / "HIVE").write_bytes(hive)
    command = [DEBIAN_PYTHON, "-c", PROGRAM, str(top), wanted, *limits]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names, problems, _ = json.loads(done.stdout)
    assert done.stderr == ""
    return names, problems


def with_checksum(hive: bytearray) -> bytes:
    """The hive, the checksum of its base block made right."""
    checksum = 0
    for word in struct.unpack_from("<127I", hive):
        checksum ^= word
    hive[508:512] = struct.pack("<I", checksum)
    return bytes(hive)


def test_a_whole_hive_is_read_without_complaint(tmp_path: Path, whole: bytes) -> None:
    names, problems = read(tmp_path, whole)
    assert (len(names), problems) == (200, [])


def test_a_truncated_hive_gives_what_is_left_and_a_failure(tmp_path: Path, whole: bytes) -> None:
    names, problems = read(tmp_path, whole[:-6000])
    assert (len(names), problems) == (200, ["HIVE: hivex cannot open it: Operation not supported"])


def test_of_a_hive_with_a_hole_the_keys_beside_it_are_given(tmp_path: Path, whole: bytes) -> None:
    names, problems = read(tmp_path, zeros_in_the_middle(bytearray(whole)))
    assert 100 < len(names) < 200
    assert problems


def zeros(hive: bytearray) -> bytes:
    return bytes(len(hive))


def zeros_behind_the_base_block(hive: bytearray) -> bytes:
    return bytes(hive[:_BASE_BLOCK]) + bytes(len(hive) - _BASE_BLOCK)


def zeros_in_the_middle(hive: bytearray) -> bytes:
    hive[_BASE_BLOCK * 3 : _BASE_BLOCK * 4] = bytes(_BASE_BLOCK)
    return bytes(hive)


def another_checksum(hive: bytearray) -> bytes:
    hive[508] ^= 1
    return bytes(hive)


def a_root_that_lies_outside(hive: bytearray) -> bytes:
    hive[36:40] = struct.pack("<I", 0x7FFF_FFF0)
    return with_checksum(hive)


def bins_that_lie_outside(hive: bytearray) -> bytes:
    hive[40:44] = struct.pack("<I", 0xFFFF_F000)
    return with_checksum(hive[: _BASE_BLOCK * 2])


@pytest.mark.parametrize(
    "damage",
    [
        zeros,
        zeros_behind_the_base_block,
        another_checksum,
        a_root_that_lies_outside,
        bins_that_lie_outside,
    ],
)
def test_a_damaged_hive_is_a_failure_and_ends(
    tmp_path: Path, whole: bytes, damage: Callable[[bytearray], bytes]
) -> None:
    names, problems = read(tmp_path, damage(bytearray(whole)))
    assert problems
    assert len(names) <= 200


def test_a_key_that_contains_itself_is_read_as_deep_as_was_asked(
    tmp_path: Path, whole: bytes
) -> None:
    hive = bytearray(whole)
    root = struct.unpack_from("<I", hive, 36)[0] + _BASE_BLOCK + 4
    software = hive.index(b"Software") - 76
    # The key's list of keys becomes that of the root, which holds the key.
    hive[software + 20 : software + 32] = hive[root + 20 : root + 32]
    names, problems = read(tmp_path, bytes(hive))
    assert names == ["last", "software"]
    assert problems == []


def test_a_hive_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "HIVE").open("wb") as stream:
        stream.write(b"regf")
        stream.truncate(hivereader.HIVE_LIMIT + 1)
    assert read(tmp_path, None) == ([], [f"HIVE: larger than {hivereader.HIVE_LIMIT} bytes"])


def test_a_crash_of_the_reader_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "HIVE").write_bytes(b"regf")
    monkeypatch.setattr(hivereader, "_parts", crash)
    problems = Problems()
    with Root("r", str(tmp_path)) as root:
        key = hives.read(root, "HIVE", [], problems)
    assert key == HiveKey("")
    assert list(problems) == ["HIVE: its reader ended with status -9"]


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("_KEY_LIMIT=100", "contains more keys than are read; the rest was left out"),
        ("_OUTPUT_LIMIT=12000", "contains more bytes than are read; the rest was left out"),
        ("_READING_SECONDS=-1", "not read completely within -1 seconds"),
    ],
)
def test_of_a_key_that_holds_too_much_the_rest_is_left_out_and_that_is_said(
    tmp_path: Path, whole: bytes, limit: str, told: str
) -> None:
    names, problems = read(tmp_path, whole, "Software", limit)
    assert problems == [f"HIVE: Software: {told}"] or limit.startswith("_READING")
    assert told in problems[0]
    assert len(names) < 200
    assert (not names) == limit.startswith("_READING")


def test_a_key_that_holds_too_much_leaves_room_for_those_after_it(
    tmp_path: Path, whole: bytes
) -> None:
    names, problems = read(tmp_path, whole, "Software Last Software\\Product150", "_KEY_LIMIT=100")
    assert problems == ["HIVE: Software: contains more keys than are read; the rest was left out"]
    assert "product150" in names
    assert 40 < len(names) < 60


def tell(monkeypatch: pytest.MonkeyPatch, top: Path, parts: Callable[[], object]) -> list[str]:
    """What is wrong with a hive of which the child tells a key and then something else."""

    def told(*_: object, **__: object) -> Iterator[object]:
        yield [("", ["root", 0, {}, {}])], []
        yield [("kept", ["Kept", 0, {}, {}])], []
        yield parts()

    (top / "HIVE").write_bytes(b"regf")
    monkeypatch.setattr(hivereader, "_parts", told)
    problems = Problems()
    with Root("r", str(top)) as root:
        key = hives.read(root, "HIVE", [], problems)
    assert key
    assert key.find("Kept")
    return list(problems)


@pytest.mark.timeout(60)
def test_a_reader_that_tells_more_than_it_may_is_ended_and_what_it_told_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hivereader, "_OUTPUT_LIMIT", 100_000)
    assert tell(monkeypatch, tmp_path, lambda: ([], ["x" * 1_000_000])) == [
        "HIVE: its reader printed too much and was stopped"
    ]


def test_what_was_told_before_a_crash_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tell(monkeypatch, tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL)) == [
        "HIVE: its reader ended with status -9"
    ]


def test_a_hive_that_is_not_there_is_told_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    problems = Problems()
    (tmp_path / "folder").mkdir()
    with Root("r", str(tmp_path)) as root:
        assert hives.read(root, "HIVE", [], problems) is None
        assert list(problems) == []
        assert hives.read(root, "folder", [], problems) == HiveKey("")
        assert list(problems) == ["folder: Is a directory"]


@pytest.mark.parametrize(
    ("kind", "data", "texts", "number"),
    [
        (1, "a\0".encode("utf-16-le"), ("a",), None),
        (1, "without an end".encode("utf-16-le"), ("without an end",), None),
        (1, b"a\0b", ("a",), None),
        (1, b"", (), None),
        (7, "a\0\0b\0\0".encode("utf-16-le"), ("a", "b"), None),
        (4, b"\1\0\0\0", (), 1),
        (5, b"\0\0\0\1", (), 1),
        (4, b"\1\0", (), None),
        (11, b"\xff" * 8, (), 2**64 - 1),
        (3, b"\1\0\0\0", (), None),
    ],
)
def test_values_are_decoded_by_their_type(
    kind: int, data: bytes, texts: tuple[str, ...], number: int | None
) -> None:
    value = Value("v", kind, data, len(data))
    assert (value.texts(), value.number()) == (texts, number)


@pytest.mark.parametrize(
    ("units", "microseconds"),
    [
        (116_444_736_000_000_010, 1),
        (133_485_408_000_000_000, 1_704_067_200_000_000),
        (0, None),
        (2**63 - 1, None),
        (2**64 - 1, None),
        (1, None),
        (None, None),
    ],
)
def test_windows_times_are_microseconds_since_1970(
    units: int | None, microseconds: int | None
) -> None:
    assert hives.filetime(units) == microseconds


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=120))
def test_account_values_of_any_content_give_rows_or_problems(
    first: bytes, second: bytes, third: bytes
) -> None:
    def key(name: str, **values: bytes) -> HiveKey:
        found = {n.lower(): Value(n, 3, data, len(data)) for n, data in values.items()}
        return HiveKey(name, values=found)

    account = key("Account", V=third)
    account.keys["users"] = HiveKey("Users", keys={"1": key("000001F5", F=first, V=second)})
    account.keys["aliases"] = HiveKey("Aliases", keys={"2": key("000003EB", C=first + second)})
    domains = HiveKey("Domains", keys={"account": account})
    hive = HiveKey("", keys={"sam": HiveKey("SAM", keys={"domains": domains})})
    problems = Problems()
    rows = [*sam.accounts(hive, problems), *sam.aliases(hive, problems)]
    assert len(rows) + len(problems) == 2


# -- Names of keys ---------------------------------------------------------------------------------


def renamed(hive: bytes, name: bytes, other: bytes) -> bytes:
    assert hive.count(name) == 1
    return hive.replace(name, other)


def test_a_key_that_lost_its_name_is_not_one_that_was_never_there(
    tmp_path: Path, whole: bytes
) -> None:
    names, problems = read(tmp_path, renamed(whole, b"Software", b"Sovtware"))
    assert names == []
    assert problems == ["HIVE: Software: the name of a key below it is damaged: Software"]


def test_a_key_that_was_never_there_is_no_problem(tmp_path: Path, whole: bytes) -> None:
    assert read(tmp_path, whole, "Hardware") == ([], [])
    other_key = renamed(whole, b"Software", b"Sovtware")
    assert read(tmp_path, other_key, "Hardware") == ([], [])


def test_a_listed_key_whose_name_is_damaged_is_named(tmp_path: Path, whole: bytes) -> None:
    names, problems = read(tmp_path, renamed(whole, b"Product100", b"Prod\xe4ct100"))
    assert len(names) == 200
    assert problems == ["HIVE: Software: the name of a key below it is damaged: 'Prod\\xe4ct100'"]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (hivenames.KeyEntry("x", hash=0x7E25_F69D), "CurrentVersion"),
        (hivenames.KeyEntry("x", hash=0x7E25_F69D), "currentVERSION"),
        (hivenames.KeyEntry("x", first=b"curr"), "CurrentVersion"),
        (hivenames.KeyEntry("x", first=b"ab\0\0"), "Ab"),
    ],
)
def test_names_are_known_by_hash_or_first_characters(entry: hivenames.KeyEntry, name: str) -> None:
    assert entry.fits(name)
    assert not entry.fits("Ab" if len(name) > 2 else "Abc")


@given(st.binary(max_size=200), st.integers(-100, 300))
def test_any_bytes_have_names_or_none(noise: bytes, key: int) -> None:
    lists = b"".join(
        struct.pack("<i2sH", -8, kind, 40) + noise for kind in (b"lh", b"lf", b"ri", b"li")
    )
    for place in (0, 84 + key, key):
        hive = noise.ljust(4096, b"\0") + struct.pack("<I", place & 0xFFFF_FFFF) + lists
        hivenames.damaged(hive, 4096 - 32)
        hivenames.damaged(hive, key, "Ab")
