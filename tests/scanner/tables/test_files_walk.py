"""The file walk, against what lstat(2) says of trees made here."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.options import FactOptions, FilesMode
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.files import capability
from fleetscan.scanner.tables.files import collect as files
from fleetscan.scanner.tables.files.spec import File


def _walk(top: Path, mode: FilesMode = "all", devices: dict[int, str] | None = None) -> list[File]:
    rows: list[Any] = []  # Any: encoded rows are possible too, but not from the walk in Python
    with Root("r", str(top), options=FactOptions(mode), devices=devices or {}) as root:
        rows.extend(files.collect(root))
    assert all(isinstance(row, File) for row in rows)
    return rows


def _row(**changes: Any) -> File:  # Any: fields of every type
    plain = {
        "path": "/usr/bin/true",
        "type": "file",
        "mode": 0o755,
        "uid": 0,
        "gid": 0,
        "owner": "root",
        "group_name": "root",
        "size": 1,
        "allocated": 512,
        "links": 1,
        "inode": 2,
        "accessed": 0,
        "modified": 0,
        "changed": 0,
        "device": None,
        "target": None,
        "selinux": None,
        "capabilities": None,
    }
    return File(**{**plain, **changes})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One entry of every type that needs no privilege, and names that parsers trip over."""
    (tmp_path / "etc").mkdir()
    me = f"{os.getuid()}:{os.getgid()}"
    (tmp_path / "etc/passwd").write_text(f"someone:x:{me}:::\nother:x:{me}:::\nbroken\n")
    (tmp_path / "etc/group").write_text(f"somegroup:x:{os.getgid()}:\n")
    (tmp_path / "sub/deeper").mkdir(parents=True)
    (tmp_path / "sub/data").write_bytes(b"x" * 5000)
    (tmp_path / "sub/data").chmod(0o4750)
    os.utime(tmp_path / "sub/data", ns=(1_234_567_890_123_456_789, -1))
    (tmp_path / "sub/deeper/again").hardlink_to(tmp_path / "sub/data")
    (tmp_path / "sub/out").symlink_to("/")
    (tmp_path / "sub/odd\nname \udce9 \u202e").touch()
    os.mkfifo(tmp_path / "fifo")
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's address is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)
    return tmp_path


def test_every_entry_has_the_metadata_that_lstat_gives(tree: Path) -> None:
    rows = {row.path: row for row in _walk(tree)}
    expected = {"/"} | {f"/{path.relative_to(tree)}" for path in tree.rglob("*")}
    assert rows.keys() == expected
    for path, row in rows.items():
        status = (tree / path.lstrip("/")).lstat()
        assert row.mode == stat.S_IMODE(status.st_mode)
        assert (row.uid, row.gid, row.links) == (status.st_uid, status.st_gid, status.st_nlink)
        assert (row.size, row.inode) == (status.st_size, status.st_ino)
        assert row.allocated == status.st_blocks * 512
        assert row.modified == status.st_mtime_ns // 1000
        assert row.changed == status.st_ctime_ns // 1000


def test_types_and_link_targets_are_told(tree: Path) -> None:
    rows = {row.path: row for row in _walk(tree)}
    assert rows["/fifo"].type == "fifo"
    assert rows["/socket"].type == "socket"
    assert rows["/sub"].type == "directory"
    assert (rows["/sub/out"].type, rows["/sub/out"].target) == ("symlink", "/")
    assert (rows["/sub/data"].type, rows["/sub/data"].target) == ("file", None)


def test_times_are_whole_microseconds_rounded_down(tree: Path) -> None:
    data = next(row for row in _walk(tree) if row.path == "/sub/data")
    assert data.accessed == 1_234_567_890_123_456
    assert data.modified == -1


def test_owners_are_named_as_the_root_names_them(tree: Path) -> None:
    assert {row.owner for row in _walk(tree)} == {"someone"}
    assert {row.group_name for row in _walk(tree)} == {"somegroup"}
    (tree / "etc/passwd").unlink()
    assert {row.owner for row in _walk(tree)} == {None}


def test_parents_come_before_their_children(tree: Path) -> None:
    paths = [row.path for row in _walk(tree)]
    assert paths[0] == "/"
    seen = {""}
    for path in paths[1:]:
        assert path.rpartition("/")[0] in seen
        seen.add(path)


def test_names_that_are_not_utf8_survive_the_way_into_a_row(tree: Path) -> None:
    lines = [line for line in encode_rows(_walk(tree)) if b"odd" in line]
    assert b'"/sub/odd\\nname \\\\xe9 \xe2\x80\xae"' in lines[0]


def test_filesystem_is_named_by_its_device_number(tree: Path) -> None:
    assert {row.device for row in _walk(tree)} == {None}
    devices = {tree.stat().st_dev: "/dev/sda2"}
    assert {row.device for row in _walk(tree, devices=devices)} == {"/dev/sda2"}


def test_directories_deeper_than_a_path_may_be_long_are_walked(tmp_path: Path) -> None:
    name, depth = "d" * 200, 40
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    try:
        longest = max((row.path for row in _walk(tmp_path)), key=len)
    finally:
        shutil.rmtree(tmp_path / name)
    assert longest == f"/{name}" * depth + "/bottom"


def test_unreadable_directory_is_told_after_the_rows_of_all_others(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Root.open_fd

    def fail(self: Root, path: str, flags: int = os.O_RDONLY) -> int:
        if path in ("/sub", "/etc"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(self, path, flags)

    monkeypatch.setattr(Root, "open_fd", fail)
    paths: list[str] = []
    with Root("r", str(tree)) as root:
        rows = files.collect(root)
        with pytest.raises(OSError, match=r"2 entries, the first being /(sub|etc): Input/output"):
            paths.extend(row.path for row in rows if isinstance(row, File))
    assert sorted(paths) == ["/", "/etc", "/fifo", "/socket", "/sub"]


def test_large_directory_is_not_held_in_memory(tmp_path: Path) -> None:
    for number in range(4000):
        (tmp_path / f"a-rather-long-name-for-a-file-{number:060}").touch()
    with Root("r", str(tmp_path)) as root:
        tracemalloc.start()
        count = sum(1 for _ in files.collect(root))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 4001
    assert peak < 200_000  # bytes; the names alone are 360,000


def test_attributes_become_labels_and_capabilities(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = bytes.fromhex("0100000200200000000000000000000000000000")

    def getxattr(path: int | str, name: str, *, follow_symlinks: bool = True) -> bytes:
        if name == "security.selinux":
            return b"system_u:object_r:etc_t:s0\0"
        if str(path).endswith("/data") and not follow_symlinks:
            return raw
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    monkeypatch.setattr(os, "getxattr", getxattr)
    rows = {row.path: row for row in _walk(tree)}
    assert {row.selinux for row in rows.values()} == {"system_u:object_r:etc_t:s0"}
    assert rows["/sub/data"].capabilities == "cap_net_raw=ep"
    assert rows["/etc/passwd"].capabilities is None


def test_files_that_are_not_asked_for_are_not_applicable(tree: Path) -> None:
    with pytest.raises(NotApplicable, match=r"^not asked for \(--files none\)$"):
        _walk(tree, "none")


def test_notable_entries_are_the_only_ones_when_asked_for(tree: Path) -> None:
    everything = _walk(tree)
    paths = {row.path for row in _walk(tree, "notable")}
    assert paths == {row.path for row in everything if files.notable(row)}
    assert 0 < len(paths) < len(everything)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": 0o4755},
        {"mode": 0o2755},
        {"type": "directory", "mode": 0o1777},
        {"mode": 0o666},
        {"capabilities": "cap_net_raw=ep"},
        {"type": "character"},
        {"type": "block"},
        {"owner": None},
        {"group_name": None},
        {"path": "/etc"},
        {"path": "/etc/ssh/sshd_config"},
        {"path": "/root/.ssh/authorized_keys"},
        {"path": "/boot/grub/grub.cfg"},
        {"path": "/home/alice"},
        {"path": "/home/alice/.bashrc"},
    ],
    ids=str,
)
def test_entry_that_rules_ask_about_is_notable(changes: dict[str, Any]) -> None:
    assert files.notable(_row(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "symlink", "mode": 0o777},
        {"path": "/etcetera/x"},
        {"path": "/home/alice/src/x"},
        {"path": "/usr/etc/x"},
    ],
    ids=str,
)
def test_other_entries_are_not_notable(changes: dict[str, Any]) -> None:
    assert not files.notable(_row(**changes))


# Values written by setcap(8) and texts printed by getcap(8) of libcap 2.66.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0100000200200000000000000000000000000000", "cap_net_raw=ep"),
        ("0000000200200000000000000000000000000000", "cap_net_raw=p"),
        ("0100000200300000003000000000000000000000", "cap_net_admin,cap_net_raw=eip"),
        ("0100000220000000202000000000000000000000", "cap_kill=eip cap_net_raw+ei"),
        ("01000002ffffffff00000000ff01000000000000", "=ep"),
        ("01000002dfffffff00000000ff01000000000000", "=ep cap_kill-ep"),
        ("0000000200000000ffffffff80000000ff010000", "=i cap_bpf+p"),
        ("0000000221000000200000000000000000000000", "cap_kill=ip cap_chown+p"),
        ("01000002dfffffffdfffffffff010000ff010000", "=eip cap_kill-eip"),
        ("0000000200000000000000000000000000000000", "="),
        ("010000010020000000000000", "cap_net_raw=ep"),
        ("0100000300200000000000000000000000000000e8030000", "cap_net_raw=ep [rootid=1000]"),
        ("010000030020000000000000000000000000000000000000", "cap_net_raw=ep"),
        ("0100000200000000000000000002000000000000", "41=ep"),
    ],
)
def test_capabilities_read_as_getcap_prints_them(value: str, text: str) -> None:
    assert capability.decode(bytes.fromhex(value)) == text


@given(st.binary(max_size=30) | st.binary(min_size=20, max_size=20).map(lambda b: b"\0\0\0\2" + b))
def test_any_attribute_is_capabilities_or_malformed(value: bytes) -> None:
    try:
        assert capability.decode(value)
    except ValueError as error:
        assert str(error) == "malformed file capabilities"  # noqa: PT017 - both ends are right
