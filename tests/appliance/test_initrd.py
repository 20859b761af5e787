from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance import built, initrd
from tests.agents import agent_of

names = st.text("abcxyz-_.", min_size=1, max_size=12).filter(lambda name: name.strip("."))


@pytest.fixture
def cpio() -> str:
    program = shutil.which("cpio")
    if program is None:
        pytest.fail("cpio is needed to read what initrd.pack wrote: apt-get install cpio")
    return program


def unpack(cpio: str, archive: bytes, where: Path) -> None:
    command = [
        cpio,
        "--extract",
        "--quiet",
        "--no-absolute-filenames",
        "--preserve-modification-time",
    ]
    subprocess.run(command, input=archive, cwd=where, check=True, timeout=30)


def content(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()
    }


def test_cpio_unpacks_what_was_packed(tmp_path: Path, cpio: str) -> None:
    files = {
        "init": b"#!/bin/sh\n",
        "agent/scanner/tables/files/spec.py": b"x" * 70_001,
        "agent/empty": b"",
        "agent/scanner/one": b"1",
        "agent/\u00e9": b"abc",
    }
    unpack(cpio, initrd.pack(files, executable=frozenset({"init"})), tmp_path)
    assert content(tmp_path) == files
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in files}
    assert modes.pop("init") == 0o755
    assert set(modes.values()) == {0o644}
    assert stat.S_IMODE((tmp_path / "agent/scanner").stat().st_mode) == 0o755


def test_archives_laid_end_to_end_are_each_whole(tmp_path: Path, cpio: str) -> None:
    first, second = initrd.pack({"a": b"1"}), initrd.pack({"b/c": b"2"})
    assert len(first) % 4 == len(second) % 4 == 0
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    unpack(cpio, first, tmp_path / "1")
    unpack(cpio, second, tmp_path / "2")
    assert content(tmp_path) == {"1/a": b"1", "2/b/c": b"2"}


@given(st.dictionaries(names, st.binary(max_size=9), max_size=6))
def test_the_same_files_give_the_same_bytes_in_whatever_order(files: dict[str, bytes]) -> None:
    backwards = dict(reversed(files.items()))
    assert initrd.pack(files) == initrd.pack(backwards)


def test_directories_come_before_what_is_in_them() -> None:
    archive = initrd.pack({"a/b/c": b"", "a.txt": b""})
    places = [archive.index(name + b"\0") for name in (b"a", b"a/b", b"a/b/c")]
    assert places == sorted(places)


def test_no_time_or_owner_of_the_host_gets_in(tmp_path: Path, cpio: str) -> None:
    unpack(cpio, initrd.pack({"a": b"1"}), tmp_path)
    assert (tmp_path / "a").stat().st_mtime == 0


def test_the_agent_is_whole_and_nothing_else_ships() -> None:
    files = initrd.agent_files()
    agent = {"start.py", "fleetscan/appliance/ground/wire.py", "fleetscan/appliance/guest/root.py"}
    assert agent <= files.keys()
    assert "fleetscan/scanner/tables/files/collect.py" in files
    assert not [name for name in files if "scanner/store/" in name or "/cases/" in name]


def test_the_agent_runs_with_what_the_appliance_has_alone(tmp_path: Path) -> None:
    assert "python3-yaml" in built.packages()
    (tmp_path / "yaml").symlink_to(Path(yaml.__file__).parent)
    for name, data in initrd.agent_files().items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import fleetscan.appliance.guest.__main__ as agent\n"
        "from fleetscan.scanner.tables import load_collector, load_tables\n"
        "tables = load_tables()\n"
        "for name, table in tables.items():\n"
        "    if table.origin.value == 'guest': load_collector(name)\n"
        "assert agent.__file__.startswith(sys.path[0]), agent.__file__\n"
        "print(len(tables))\n"
    )
    # -S: no site-packages, so that nothing else can be found but the standard library.
    command = [sys.executable, "-ISB", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10


def test_the_agents_id_is_its_contents() -> None:
    before = initrd.agent_id()
    assert before == initrd.agent_id()
    assert len(before) == 12
    files = initrd.agent_files()
    with agent_of({**files, "start.py": b"another"}):
        assert initrd.agent_id() != before
