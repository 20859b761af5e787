"""Files that a collector could not read, and when they are all that lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.ground.schema import (
    UNREAD_FILES,
    UNREAD_LENGTH,
    IncompleteError,
    UnreadError,
    incomplete,
)
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables import load_collector


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "folder").mkdir()
    with Root("r", str(tmp_path)) as root:
        yield Reader(root)


def unread(reader: Reader) -> tuple[str, ...] | None:
    with pytest.raises(IncompleteError, match=r".") as caught:
        reader.finish()
    return caught.value.unread if isinstance(caught.value, UnreadError) else None


def test_nothing_noted_is_no_error(reader: Reader) -> None:
    assert reader.text("/missing") is None
    reader.finish()


def test_files_of_which_only_their_own_rows_lack_are_named(reader: Reader) -> None:
    assert reader.text("/folder", "/folder", "/other") is None
    reader.note("/a: malformed", "/a")
    assert unread(reader) == ("/a", "/folder", "/other")


def test_a_file_that_may_tell_of_others_leaves_nothing_named(reader: Reader) -> None:
    reader.note("/a: malformed", "/a")
    reader.text("/folder")
    reader.note("/b: malformed", "/b")
    assert unread(reader) is None


def test_a_limit_that_was_reached_leaves_nothing_named(reader: Reader) -> None:
    reader.note("/a: malformed", "/a")
    reader.note("too many files")
    assert unread(reader) is None


def test_more_files_than_are_named_are_not_named_in_part(reader: Reader) -> None:
    for number in range(UNREAD_FILES):
        reader.note("malformed", f"/{number}")
    assert len(unread(reader) or ()) == UNREAD_FILES
    for number in range(100_000):
        reader.note("malformed", f"/{number}")
    assert unread(reader) is None


def test_paths_that_are_too_long_together_are_not_named() -> None:
    assert isinstance(incomplete("x", ["/" * UNREAD_LENGTH]), UnreadError)
    assert not isinstance(incomplete("x", ["/" * UNREAD_LENGTH, "/"]), UnreadError)
    assert not isinstance(incomplete("x", []), UnreadError)


@pytest.mark.parametrize(
    ("table", "files", "expected"),
    [
        # What a server's configuration includes counts as the file that includes it.
        (
            "config",
            {
                "etc/ssh/sshd_config": "Port 22\nInclude /srv/extra\nPort 23\n",
                "srv/extra/": "",
            },
            ("/etc/ssh/sshd_config",),
        ),
        ("config", {"etc/hosts": "x\n", "etc/pam.d/x": "x\n"}, ("/etc/hosts", "/etc/pam.d/x")),
        ("config", {"etc/pam.d": "no directory\n", "etc/hosts": "x\n"}, ("/etc/hosts",)),
        # Whose keys there are, and where, is not known without these.
        ("ssh_keys", {"etc/passwd/": "", "etc/ssh/ssh_host_x_key": "x"}, None),
        (
            "ssh_keys",
            {
                "etc/passwd": "r:x:0:0::/r:\n",
                "r/.ssh/authorized_keys": "x\n",
                "etc/ssh/sshd_config/": "",
            },
            None,
        ),
        # An alias has the settings of the unit that it leads to, and those of drop-ins.
        (
            "services",
            {
                "etc/systemd/system/a.service": "[Unit]\n",
                "etc/systemd/system/a.service.d/x.conf/": "",
                "etc/systemd/system/b.service": "-> a.service",
            },
            (
                "/etc/systemd/system/a.service.d/a.service",
                "/etc/systemd/system/a.service.d/b.service",
                "/etc/systemd/system/a.service.d/x.conf",
            ),
        ),
        (
            "packages",
            {"var/lib/dpkg/status": "no paragraph", "usr/lib/node_modules/x/package.json": "["},
            None,
        ),
        (
            "packages",
            {"var/lib/dpkg/status": "", "usr/lib/node_modules/x/package.json": "["},
            ("/usr/lib/node_modules/x/package.json",),
        ),
    ],
)
def test_collectors_name_files_only_when_nothing_else_lacks(
    table: str, files: dict[str, str], expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        elif not name.endswith("/"):
            path.write_text(text)
    with Root("r", str(tmp_path)) as root, pytest.raises(IncompleteError, match=r".") as caught:
        list(load_collector(table)(root))
    named = caught.value.unread if isinstance(caught.value, UnreadError) else None
    assert named == expected
