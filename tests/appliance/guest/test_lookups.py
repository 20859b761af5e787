"""Which missing parts lookups lead into, as the kernel and as each link says."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest

from fleetscan.appliance.guest import root as tree
from fleetscan.appliance.guest.resolving import openat2
from fleetscan.appliance.guest.root import Mount, Root

MISSING = Mount("/srv", None, False, error="no such device on this machine")
NAMES = ("etc", "lib", "srv", "usr", "file", "link", "..", ".", "")
TARGETS = ("/srv", "srv/etc", "../srv", "/usr/lib", "lib", "link", "/etc/nothing", "..")


def grown(top: Path, dice: random.Random) -> None:
    """A tree of directories, files and links, some of which lead to /srv."""
    (top / "srv").mkdir()
    folders = [top]
    for _ in range(12):
        folder = dice.choice(folders) / dice.choice(NAMES[:6])
        if folder.is_symlink() or folder.exists():
            continue
        kind = dice.randrange(4)
        if kind == 0:
            folder.symlink_to(dice.choice(TARGETS))
        elif kind == 1:
            folder.touch()
        else:
            folder.mkdir()
            folders.append(folder)


def asked(dice: random.Random) -> str:
    path = "/".join(dice.choice(NAMES) for _ in range(dice.randint(1, 5)))
    return dice.choice(("/", "")) + path


@pytest.mark.parametrize("seed", range(40))
def test_what_is_missing_is_the_same_whether_the_kernel_or_each_link_tells(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's, to be repeated
    grown(tmp_path, dice)
    with (
        Root("r", str(tmp_path), (MISSING,)) as quick,
        Root("r", str(tmp_path), (MISSING,)) as sure,
    ):
        for _ in range(100):
            path = asked(dice)
            flags = dice.choice((os.O_RDONLY, os.O_PATH, os.O_PATH | os.O_NOFOLLOW))
            with quick.lookups.watching() as found, contextlib.suppress(OSError):
                os.close(quick.open_fd(path, flags))
            with sure.lookups.watching() as expected:
                sure.lookups.note(path)
            if flags & os.O_NOFOLLOW:  # the link itself is looked up, not where it leads
                assert set(found.lacks) <= set(expected.lacks), path
            else:
                assert (found.lacks, found.unread) == (expected.lacks, expected.unread), path


def test_a_lookup_without_links_costs_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    for name in "abc":
        (tmp_path / "usr/lib/systemd" / name).touch()
    calls: list[str] = []

    def counted(dir_fd: int, path: str, flags: int, *, links: bool = True) -> int:
        calls.append(path)
        return openat2(dir_fd, path, flags, links=links)

    with Root("r", str(tmp_path), (MISSING,)) as root:
        monkeypatch.setattr(tree, "openat2", counted)
        os.close(root.open_fd("/lib/systemd/a"))
        calls.clear()
        for path in ("/lib/systemd/b", "/lib/systemd/c", "/usr/lib/systemd/a"):
            os.close(root.open_fd(path))
    assert calls == ["usr/lib/systemd/b", "usr/lib/systemd/c", "usr/lib/systemd/a"]
