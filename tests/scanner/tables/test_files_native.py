"""The native walk gives the same rows as the walk in Python, on trees made to part them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.options import FactOptions, FilesMode
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.files import capability, collect, native

SOURCES = sorted(map(str, Path(native.__file__).parent.glob("*.c")))
AS_ROOT = os.geteuid() == 0
NOBODY = 65534
MODES: tuple[FilesMode, ...] = ("all", "notable")

Row = dict[str, Any]  # Any: JSON


@pytest.fixture(scope="module")
def program() -> Iterator[str]:
    """The compiled walk, where an ordinary user can run it too."""
    compiler = shutil.which("gcc") or shutil.which("tcc") or shutil.which("cc")
    if compiler is None:
        pytest.fail("a C compiler is needed for the native walk: apt-get install gcc, or tcc")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        command = [compiler, "-Wall", "-Werror", "-o", f"{folder}/walk", *SOURCES]
        subprocess.run(command, check=True, timeout=120)
        yield f"{folder}/walk"


class Outcome:
    """What a walk gave: its rows by path, and the error that it ended in."""

    def __init__(self, rows: Iterator[Any]) -> None:  # Any: File or bytes
        self.error = ""
        self.rows: dict[str, Row] = {}
        encoded: list[bytes] = []
        try:
            encoded.extend(encode_rows(rows))
        except OSError as error:
            self.error = str(error)
        for line in b"".join(encoded).splitlines():
            row = json.loads(line)
            assert row["path"] not in self.rows
            self.rows[row["path"]] = row


def natively(program: str, root: Root) -> Outcome:
    return Outcome(native.rows(root, labelled=collect.has_labels(root), program=program))


def in_python(root: Root, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    with monkeypatch.context() as patch:
        patch.setattr(native, "is_there", lambda: False)
        # Encoding happens while the walk goes on; a list would lose rows before an error.
        return Outcome(collect.collect(root))


def count(error: str) -> str:
    """How many entries could not be read; which of them is first depends on the order."""
    return error.partition(",")[0]


def assert_same(program: str, root: Root, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    natively(program, root)  # the first to read a directory changes when it was read last
    expected, found = in_python(root, monkeypatch), natively(program, root)
    assert found.rows.keys() == expected.rows.keys()
    for path, row in expected.rows.items():
        assert found.rows[path] == row
    assert count(found.error) == count(expected.error)
    return found


@contextlib.contextmanager
def opened(
    top: Path, mode: FilesMode = "all", devices: dict[int, str] | None = None
) -> Iterator[Root]:
    with Root("r", str(top), options=FactOptions(mode), devices=devices or {}) as root:
        yield root


ODD_NAMES = [
    b"plain",
    b"with blank and 'quotes' and \"double ones\"",
    b"back\\slash",
    b"looks escaped \\xe9",
    b"nearly escaped \\xE9 \\x5 \\x",
    b"\\",
    b"\\x5c",
    b"new\nline\ttab\rreturn",
    bytes(range(1, 32)),
    b"\x7f\x1b[2J",
    "caf\u00e9 \u202e \u4e2d \U0001f600".encode(),
    b"latin-1 caf\xe9",
    b"\xff\xfe\x80\xc0\xaf",
    b"\xed\xa0\x80 surrogate",
    b"\xf4\x90\x80\x80 beyond unicode",
    b"\xe2\x82 cut",
    b'{"path":"shadow"}',
    b"-rf",
    b"x" * 255,
    "\u4e2d".encode() * 85,
]


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """A tree with an entry of every kind that parsers trip over."""
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    me = f"{os.getuid()}:{os.getgid()}"
    (top / "etc/passwd").write_bytes(b'odd "\xe9\\:x:' + me.encode() + b":::\n")
    (top / "etc/group").write_text(f"group:x:{os.getgid()}:\n")
    (top / "odd").mkdir()
    for name in ODD_NAMES:
        (top / "odd" / os.fsdecode(name)).write_bytes(name)
        (top / "odd" / f"link to {ODD_NAMES.index(name)}").symlink_to(os.fsdecode(name))
    (top / "odd/hard").hardlink_to(top / "odd/plain")
    (top / "links").mkdir()
    (top / "links/long").symlink_to("y" * 4000)
    (top / "links/up").symlink_to("../../../..")
    (top / "links/loop").symlink_to("loop")
    os.mkfifo(top / "fifo")
    here = Path.cwd()
    os.chdir(top)  # a socket's address is at most 108 bytes long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)
    with (top / "sparse").open("wb") as stream:
        stream.truncate(1 << 41)
    return top


def test_odd_names_links_and_kinds_are_the_same(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(nasty, devices={nasty.stat().st_dev: '/dev/odd "\\name'}) as root:
        found = assert_same(program, root, monkeypatch)
    paths = {schema.unescape(path) for path in found.rows}
    assert {b"/odd/" + name for name in ODD_NAMES} <= paths
    assert {row["type"] for row in found.rows.values()} >= {"fifo", "socket", "symlink", "file"}
    assert found.rows["/"]["device"] == '/dev/odd "\\name'
    assert {row["owner"] for row in found.rows.values()} == {'odd "\\xe9\\'}
    assert found.error == ""


def test_the_notable_entries_are_the_same(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("home/someone/deep/deeper", "root/below", "boot", "etcetera", "rootless", "tmp"):
        (nasty / place).mkdir(parents=True)
    for place in ("home/file", "home/someone/file", "home/someone/deep/file", "boot/a", "tmp/open"):
        (nasty / place).touch()
    (nasty / "tmp").chmod(0o1777)
    (nasty / "tmp/open").chmod(0o666)
    (nasty / "odd/plain").chmod(0o4755)
    (nasty / "odd/hard").chmod(0o2755)
    with opened(nasty, "notable") as root:
        found = assert_same(program, root, monkeypatch)
    assert {
        "/etc/passwd",
        "/tmp/open",
        "/tmp",
        "/odd/hard",
        "/home/someone/file",
    } <= found.rows.keys()
    assert not {"/etcetera", "/fifo", "/home/someone/deep/file"} & found.rows.keys()


def test_owners_that_the_root_does_not_know_are_the_same(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("passwd", "group"):
        (nasty / "etc" / name).unlink()
    for mode in MODES:
        with opened(nasty, mode) as root:
            found = assert_same(program, root, monkeypatch)
        assert all("owner" not in row for row in found.rows.values())


TIMES = [0, 1, -1, 999, -999, 1_234_567_890_123_456_789, -(10**18), 2**33 * 10**9]


def test_times_of_all_ages_are_the_same(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, (accessed, modified) in enumerate(itertools.product(TIMES, repeat=2)):
        path = tmp_path / f"file{place}"
        path.touch()
        os.utime(path, ns=(accessed, modified))
    with opened(tmp_path) as root:
        assert_same(program, root, monkeypatch)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(time=st.integers(-(2**63), 2**63 - 1))
def test_any_time_that_the_filesystem_takes_is_the_same(
    program: str, monkeypatch: pytest.MonkeyPatch, time: int
) -> None:
    with tempfile.TemporaryDirectory() as top:
        Path(top, "file").touch()
        os.utime(Path(top, "file"), ns=(time, time))
        with opened(Path(top)) as root:
            assert_same(program, root, monkeypatch)


file_names = st.binary(min_size=1, max_size=60).filter(
    lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.sets(
        file_names
        | st.text(min_size=1, max_size=20)
        .map(os.fsencode)
        .filter(lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")),
        max_size=6,
    )
)
def test_any_name_is_the_same(
    program: str, monkeypatch: pytest.MonkeyPatch, names: set[bytes]
) -> None:
    with tempfile.TemporaryDirectory() as top:
        for name in names:
            Path(top, os.fsdecode(name)).symlink_to(os.fsdecode(name))
        with opened(Path(top)) as root:
            found = assert_same(program, root, monkeypatch)
    assert {schema.unescape(path) for path in found.rows} == {b"/"} | {
        b"/" + name for name in names
    }


def deep_tree(top: Path, name: bytes, levels: int) -> None:
    """Directories in one another, deeper than any path may be long."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open(b"last", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)


@pytest.mark.parametrize(("name", "levels"), [(b"d" * 255, 40), (b"d", 2100), (b"d" * 99, 90)])
def test_paths_longer_than_any_system_call_takes_are_the_same(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, levels: int
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    deep_tree(top, name, levels)
    try:
        with opened(top) as root:
            found = assert_same(program, root, monkeypatch)
        assert len(found.rows) == levels + 2
        assert max(map(len, found.rows)) == levels * (len(name) + 1) + len("/last")
        assert found.error == ""
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True, timeout=60)


@contextlib.contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Modes keep out all but root."""
    if AS_ROOT:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if AS_ROOT:
            os.seteuid(0)


def test_what_may_not_be_read_costs_itself_alone_and_is_counted_the_same(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nasty / "links").chmod(0)
    with opened(nasty) as root, as_ordinary_user():
        found = assert_same(program, root, monkeypatch)
        assert found.error == "could not read 1 entry, the first being /links: Permission denied"
    assert "/links" in found.rows
    assert "/links/up" not in found.rows
    assert "/odd/plain" in found.rows


CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
CAP_ROOT_ID = struct.pack("<IIIIII", 0x03000000, 1 << 10, 1 << 10, 0, 0, 1000)


def set_capabilities(path: Path, value: bytes) -> None:
    path.touch()
    path.chmod(0o755)
    if AS_ROOT:
        os.setxattr(path, "security.capability", value)
    else:  # those of a user namespace may be set in it
        command = ["unshare", "--map-root-user", "setcap", "cap_net_raw=ep", str(path)]
        subprocess.run(command, check=True, timeout=20)


def test_capabilities_are_the_same(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = nasty / "odd" / os.fsdecode(b'caf\xe9 "\\xe9\n')
    set_capabilities(nasty / "ping", CAP_NET_RAW)
    set_capabilities(odd, CAP_ROOT_ID)
    for mode in MODES:
        with opened(nasty, mode) as root:
            found = assert_same(program, root, monkeypatch)
        held = [row["capabilities"] for row in found.rows.values() if "capabilities" in row]
        assert len(held) == 2
        assert found.rows["/ping"]["capabilities"].startswith("cap_net_raw=ep")
    if AS_ROOT:
        assert sorted(held) == ["cap_net_bind_service=ip [rootid=1000]", "cap_net_raw=ep"]


def test_malformed_capabilities_are_an_error_in_either(
    program: str, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_capabilities(nasty / "ping", CAP_NET_RAW)
    with opened(nasty) as root, monkeypatch.context() as patch:
        patch.setattr(capability, "decode", broken)
        found = assert_same(program, root, monkeypatch)
    assert found.error == "could not read 1 entry, the first being /ping: malformed"
    assert "capabilities" not in found.rows["/ping"]


def broken(value: bytes) -> str:
    raise ValueError("malformed")
