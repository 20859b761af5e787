"""A scan, a check and a report under a umask that protects nothing: what others may do with it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.vm.machines import image_of, other_cache, small_system


@dataclass
class Seen:
    """What was there at any moment below some directories, and could be used by others.

    Of directories below ``temporary`` their own modes are seen, and not what is in them: nobody can
    use what libraries make, such as Dask's locks, in a directory that is ours alone.
    """

    tops: list[Path]
    temporary: Path
    wide: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def look(self) -> None:
        for path in self.temporary.iterdir():
            self.note(path)
        for top in self.tops:
            for folder, _, names in os.walk(top):
                for path in (Path(folder), *(Path(folder, name) for name in names)):
                    self.note(path)

    def note(self, path: Path) -> None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        self.names.add(path.name)
        if status.st_mode & 0o077 and not stat.S_ISLNK(status.st_mode):
            self.wide[str(path)] = stat.filemode(status.st_mode)


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    """Looks all the time while the test runs."""
    with other_cache() as cache:
        (tmp_path / "tmp").mkdir(mode=0o700)
        found = Seen([tmp_path / "facts", cache / "template"], tmp_path / "tmp")
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                found.look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        yield found
        ended.set()
        watcher.join()


def test_nothing_that_a_scan_makes_can_be_used_by_others(tmp_path: Path, seen: Seen) -> None:
    images = tmp_path / "images"
    images.mkdir()
    image_of(small_system(tmp_path / "guest"), images / "guest.raw")
    (images / "blank.raw").write_bytes(bytes(1 << 20))
    facts = str(tmp_path / "facts")
    page = tmp_path / "report.html"
    codes = [
        fleetscan(tmp_path, *command)
        for command in (
            ("scan", str(images), "--facts", facts, "-P", "1", "--quiet"),
            ("check", "--facts", facts, "--fail-on", "none"),
            ("report", "--facts", facts, "--html", str(page)),
        )
    ]
    seen.look()
    assert codes == [3, 3, 0]  # one disk is blank: no rule has a verdict on it
    assert seen.wide == {}
    assert {
        "plan.json",
        "part-00000.parquet",
        "pack-linux-baseline.parquet",
        "memory",
    } <= seen.names
    assert any(name.startswith("fleetscan-workers-") for name in seen.names)
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert list((tmp_path / "tmp").iterdir()) == []


def fleetscan(folder: Path, *arguments: str) -> int:
    """Exit code of a command that is run with umask 0."""
    done = subprocess.run(
        [sys.executable, "-m", "fleetscan.scanner.cli", *arguments],
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        capture_output=True,
        text=True,
        check=False,
        umask=0,
    )
    assert done.returncode in (0, 3), done.stderr
    return done.returncode
