"""A whole scan of a folder in which somebody hostile may write, beside an honest machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

pytestmark = pytest.mark.vm

HONEST, LISTED = "honest.raw", "db"


@pytest.fixture(scope="module")
def scanned(example_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a source and its facts, once it has been scanned."""
    place = tmp_path_factory.mktemp("hostile")
    source = place / "source"
    for name in (HONEST, f"{LISTED}/os.raw", "evil/own.raw"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example_images / "fleet" / "blank.raw", source / name)
    (source / LISTED / "machine.yaml").write_text("disks: [os.raw]\n")
    attack(source, place)
    command = [sys.executable, "-m", "fleetscan.scanner.cli", "scan", str(source), "-q", "-P", "1"]
    command += ["--facts", str(place / "facts"), "--key", f"all:command:touch {place}/marked-key"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 3, done.stderr
    return place


def attack(source: Path, place: Path) -> None:
    """Everything that a ``machine.yaml``, a link, a FIFO or a name could try."""
    keys = f"keys: ['all:command:touch {place}/owned']\n"
    files = {
        "command": f"disks: [a.raw]\n{keys}",
        "id": f"id: {HONEST}\ndisks: [a.raw]\n",
        "neighbour": f"disks: [../{HONEST}]\n",
        "device": "disks: [/dev/sda]\n",
        "deep": "[" * 10_000,
    }
    for name, text in files.items():
        (source / "evil" / name).mkdir()
        shutil.copy(source / "evil" / "own.raw", source / "evil" / name / "a.raw")
        (source / "evil" / name / "machine.yaml").write_text(text)
    (source / "evil" / "fifo").mkdir()
    os.mkfifo(source / "evil" / "fifo" / "machine.yaml")
    os.mkfifo(source / "evil" / "pipe.img")
    (source / "evil" / "shadow.img").symlink_to("/etc/shadow")
    (source / "evil" / "own.qcow2").write_bytes(b"QFI\xfb")


def rows(place: Path, sql: str) -> list[tuple[str, ...]]:
    table = sql.split("FROM ")[1].split()[0]
    parts = f"read_parquet('{place}/facts/{table}/*/*.parquet')"
    return duckdb.execute(sql.replace(f"FROM {table}", f"FROM {parts}")).fetchall()


def test_no_command_that_the_folder_names_is_run(scanned: Path) -> None:
    assert (scanned / "marked-key").exists(), "the user's own command ran"
    assert not (scanned / "owned").exists()


def test_each_attacker_is_a_failed_machine_of_its_own(scanned: Path) -> None:
    found = {row[0]: row[1] for row in rows(scanned, "SELECT machine_id, error FROM machines")}
    attackers = {name for name in found if name.startswith("evil/")}
    assert attackers == {
        f"evil/{name}"
        for name in (
            *("command", "deep", "device", "fifo", "id", "neighbour"),
            *("own.qcow2", "own.raw", "pipe.img", "shadow.img"),
        )
    }
    assert found.keys() - attackers == {HONEST, LISTED}
    for name in (HONEST, LISTED, "evil/own.raw"):
        assert found[name].startswith("no operating system found"), "it was read to its end"


def test_each_disk_is_read_under_its_own_machine_alone(scanned: Path) -> None:
    found = rows(scanned, "SELECT machine_id, path FROM disks WHERE error IS NULL ORDER BY path")
    source = scanned / "source"
    assert found == [
        (LISTED, f"{source}/db/os.raw"),
        ("evil/own.raw", f"{source}/evil/own.raw"),
        (HONEST, f"{source}/{HONEST}"),
    ]


def test_what_attackers_leave_out_is_their_own_and_recorded(scanned: Path) -> None:
    found = rows(scanned, "SELECT machine_id, path, why::VARCHAR FROM left_out ORDER BY path")
    assert found == [
        (f"evil/{name}", f"{scanned}/source/evil/{name}/a.raw", "unlisted")
        for name in ("command", "deep", "device", "id", "neighbour")
    ]


def test_no_text_of_a_key_is_in_the_facts(scanned: Path) -> None:
    for path in (scanned / "facts").rglob("*"):
        if path.is_file():
            assert b"marked-key" not in path.read_bytes()
    told = rows(scanned, "SELECT error FROM machines")
    assert not any("marked-key" in (error or "") for (error,) in told)
