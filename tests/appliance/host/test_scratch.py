"""What killed processes left in TMPDIR goes; what others use, or own, stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.host.scratch import Scratch, scratch_directory
from tests.conftest import PROJECT

HOLDS = """
import sys
from fleetscan.appliance.host.scratch import Scratch
print(Scratch("workers").path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a directory that has something in it."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        (path / "key.pem").write_text("secret")
        yield process, path
        process.kill()


def test_a_directory_is_ours_alone_and_goes_with_its_block(temporary: Path) -> None:
    before = os.umask(0)
    with scratch_directory("workers") as path:
        os.umask(before)
        assert path.parent == temporary
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "file").touch()
    assert list(temporary.iterdir()) == []


def test_closing_twice_closes_nothing_else(temporary: Path) -> None:
    scratch = Scratch("workers")
    scratch.close()
    taken = os.open(temporary, os.O_RDONLY)  # may get the number that was the lock's
    scratch.close()
    os.close(taken)


def test_what_a_killed_process_left_goes_and_what_a_running_one_has_stays(
    temporary: Path, holder: tuple[subprocess.Popen[str], Path]
) -> None:
    process, path = holder
    with scratch_directory("workers"):
        assert (path / "key.pem").exists()
    process.kill()
    process.wait()
    assert path.exists()
    with scratch_directory("sql"):
        assert path.exists()  # another kind's
    with scratch_directory("workers") as own:
        assert list(temporary.iterdir()) == [own]


def test_a_process_that_waits_for_its_end_is_not_taken_for_dead(
    temporary: Path, holder: tuple[subprocess.Popen[str], Path]
) -> None:
    process, path = holder
    os.kill(process.pid, 19)  # SIGSTOP
    with scratch_directory("workers"):
        assert (path / "key.pem").exists()


@pytest.mark.parametrize("kind", ["link", "file", "fifo", "another name", "another's"])
def test_what_was_planted_under_such_a_name_is_left_alone(
    temporary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    victim = tmp_path_factory.mktemp("victim")
    (victim / "precious").touch()
    planted = temporary / f"fleetscan-workers-{'a' * 16}"
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "file":
        planted.touch()
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        planted = temporary / "fleetscan-workers-x" if kind == "another name" else planted
        planted.mkdir()
        (planted / "precious").touch()
    if kind == "another's":
        owner = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: owner)
    with scratch_directory("workers"):
        pass
    assert planted.is_symlink() or planted.exists()
    assert (victim / "precious").exists()
    assert not planted.is_dir() or (planted / "precious").exists()


def test_a_link_inside_what_was_left_is_not_followed(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    victim = tmp_path_factory.mktemp("victim")
    (victim / "precious").touch()
    left = temporary / f"fleetscan-workers-{'a' * 16}"
    left.mkdir()
    (left / "link").symlink_to(victim)
    with scratch_directory("workers"):
        assert not left.exists()
    assert (victim / "precious").exists()


def test_one_that_is_just_being_made_stays_and_an_old_one_goes(temporary: Path) -> None:
    young, old = temporary / ".fleetscan-young", temporary / ".fleetscan-old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    with scratch_directory("workers"):
        assert young.exists()
        assert not old.exists()


def test_a_directory_is_locked_before_it_has_its_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[list[str]] = []
    lock = fcntl.flock

    def seen(descriptor: int, operation: int) -> None:
        names.append([path.name[:11] for path in temporary.iterdir()])
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", seen)
    Scratch("workers").close()
    assert names == [[".fleetscan-"]]
