"""Files of ext2, ext3 and ext4 as every kind of them is made, those that the kernel is left with.

The walk reads directories and inodes of these filesystems from their block devices. What it must
give is what the trees hold that the filesystems were made of.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.files import collect, native
from tests.vm.commands import Inspected, inspect

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

Row = dict[str, Any]  # Any: JSON

KINDS: dict[str, Sequence[str]] = {
    "ext2": ("-t", "ext2", "-b", "1024", "-I", "128"),
    "ext2-old": ("-t", "ext2", "-r", "0", "-I", "128"),
    "ext2-untyped": ("-t", "ext2", "-O", "^filetype,^dir_index"),
    "ext3": ("-t", "ext3", "-b", "2048", "-I", "256"),
    "ext4": (
        "-t",
        "ext4",
    ),
    "ext4-1k": ("-t", "ext4", "-b", "1024", "-g", "2048"),
    "ext4-big-inodes": ("-t", "ext4", "-I", "1024"),
    "ext4-blocks": ("-t", "ext4", "-O", "^extents,^64bit"),
    "ext4-no-checksums": ("-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit"),
    "ext4-inline": ("-t", "ext4", "-O", "inline_data"),
    "ext4-bigalloc": ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
    "ext4-meta-groups": ("-t", "ext4", "-O", "meta_bg,^resize_inode"),
    "ext4-wide": ("-t", "ext4", "-O", "large_dir,ea_inode,casefold,metadata_csum_seed"),
}
NARROW = ("ext2", "ext2-old")
"""Those with the smallest inodes, which hold times of whole seconds, up to 2038."""

SECONDS, NANOSECONDS = 1_000_000_000, 123_456_000

NAMES = [b"plain", b"caf\xe9", b"new\nline", b'"quoted\\"', "\u4e2d\U0001f600".encode(), b"x" * 255]
LINKS = [1, 58, 59, 60, 61, 155, 200, 1000]
"""Lengths of targets, around those that fit into inodes of different sizes."""
MANY = 2500
CAPABILITY = bytes.fromhex("0000000200200000000000000000000000000000")
LABEL = b"system_u:object_r:etc_t:s0\0"
"""What debugfs is to set; the walk leaves out the NUL."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each filesystem is made of."""
    top = tmp_path_factory.mktemp("ext") / "tree"
    (top / "many").mkdir(parents=True)
    for number in range(MANY):
        (top / "many" / f"file {number} with a name to fill blocks with").touch()
    for number, name in enumerate(NAMES):
        (top / os.fsdecode(name)).mkdir()
        (top / os.fsdecode(name) / os.fsdecode(name)).write_bytes(b"x" * number)
        (top / os.fsdecode(name) / os.fsdecode(name)).chmod(0o4751)
    for length in LINKS:
        (top / f"link{length}").symlink_to("t" * length)
    deep = top
    for number in range(30):
        deep = deep / f"level {number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("bottom")
    (top / "hard").hardlink_to(top / "plain/plain")
    (top / "sparse").open("wb").truncate(5 << 30)
    (top / "program").write_text("#!\n")
    (top / "program").chmod(0o755)
    os.mkfifo(top / "fifo")
    for number, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, (1_234_567_890 + number,) * 2, follow_symlinks=False)
    return top


def make(path: Path, tree: Path, options: Sequence[str], commands: str = "") -> None:
    """A filesystem with a tree in it, then changed by debugfs(8)."""
    path.open("wb").truncate(48 << 20)
    size = ("-N", "4096")
    subprocess.run(
        ["mke2fs", "-q", "-F", *options, *size, "-L", path.stem[:16], "-d", str(tree), str(path)],
        check=True,
        timeout=120,
    )
    # With hash trees for large directories, as a kernel would have made them.
    checked = subprocess.run(["e2fsck", "-fyD", str(path)], capture_output=True, timeout=120)
    assert checked.returncode <= 1, checked.stdout
    if commands:
        subprocess.run(
            ["debugfs", "-w", "-f", "-", str(path)],
            input=commands.encode(),
            check=True,
            capture_output=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def inspected(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    """One machine that mounts a filesystem of each kind, all with the same tree."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "value").write_bytes(CAPABILITY)
    (folder / "label").write_bytes(LABEL)
    extra = (
        f"ea_set -f {folder}/value /program security.capability\n"
        f"ea_set -f {folder}/label /program security.selinux\n"
        "sif /program uid 70001\nsif /program gid 1000000\n"
        f"sif /program mtime @{SECONDS}\nsif /program mtime_extra {NANOSECONDS << 2 | 1}\n"
        f"sif /program atime @{-SECONDS & 0xFFFFFFFF}\nsif /program atime_extra 0\n"
    )
    root = folder / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "bin").mkdir()
    (root / "bin/sh").touch()
    lines = []
    for kind, options in KINDS.items():
        make(folder / f"{kind}.raw", tree, options, extra)
        (root / kind).mkdir()
        lines.append(f"LABEL={kind[:16]} /{kind} auto defaults 0 2\n")
    (root / "etc/fstab").write_text("".join(lines))
    label = f"ea_set -f {folder}/label / security.selinux\n"
    make(folder / "root.raw", root, ("-t", "ext4"), label)
    return inspect(folder / "root.raw", *(folder / f"{kind}.raw" for kind in KINDS))


@pytest.fixture(scope="module")
def expected(tree: Path) -> dict[str, Row]:
    """The walk in Python over the tree itself."""
    rows = {}
    with Root("r", str(tree)) as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_there", lambda: False)
        for line in encode_rows(collect.collect(root)):
            row = json.loads(line)
            rows[row["path"]] = row
    del rows["/"]
    return rows


def shown(seconds: int, nanoseconds: int = 0) -> str:
    """A time as it is printed."""
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
    moment += datetime.timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_those_of_the_tree(
    inspected: Inspected, expected: dict[str, Row], kind: str
) -> None:
    found = {
        row["path"].removeprefix(f"/{kind}"): row
        for row in inspected.rows("files")
        if row["path"].startswith(f"/{kind}/")
    }
    assert found.keys() - expected.keys() <= {"/lost+found"}
    assert expected.keys() <= found.keys()
    same = ["type", "mode", "size", "links", "target"]
    for path, row in expected.items():
        names = [*same, "uid", "gid"] if path != "/program" else same
        if row["type"] == "directory":
            names.remove("size")
            names.remove("links")
        assert {n: found[path].get(n) for n in names} == {n: row.get(n) for n in names}, path
        if path != "/program":
            assert found[path]["modified"] == shown(row["modified"] // 1_000_000)
    assert (found["/program"]["uid"], found["/program"]["gid"]) == (70001, 1_000_000)
    if kind != "ext2-old":  # of a revision that has no attributes
        assert found["/program"]["capabilities"] == "cap_net_raw=p"
        assert found["/program"]["selinux"] == "system_u:object_r:etc_t:s0"
    if kind != "ext4-inline":  # which mke2fs marks as holding its bytes in the inode
        assert found["/sparse"]["allocated"] < 1 << 20
    assert found["/program"]["accessed"] == shown(-SECONDS)
    if kind not in NARROW:
        later = SECONDS + (1 << 32)  # the second of the epochs that the field has bits for
        assert found["/program"]["modified"] == shown(later, NANOSECONDS)


def test_what_is_damaged_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("etc", "bin", "looped", "zeroed", "whole"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    (tree / "etc/os-release").write_text("ID=debian\n")
    (tree / "bin/sh").touch()
    (tree / "gone").touch()
    (tree / "typeless").touch()
    damage = (
        "link /looped /looped/again\n"
        "zap_block -f /zeroed -p 0xff 0\n"
        "clri /gone\n"
        "sif /typeless mode 0\n"
    )
    make(tmp_path / "root.raw", tree, ("-t", "ext4", "-O", "^metadata_csum"), damage)
    found = inspect(tmp_path / "root.raw")
    paths = {row["path"] for row in found.rows("files")}
    assert {"/whole/file", "/looped/file", "/zeroed", "/etc/file"} <= paths
    assert not {"/zeroed/file", "/gone", "/typeless"} & paths
    (coverage,) = [row for row in found.rows("coverage") if row["table_name"] == "files"]
    assert coverage["status"] == "failed"
    assert coverage["rows"] == len(found.rows("files")) == len(paths)
    assert "could not read 4 entries" in coverage["error"]
    assert found.machine["outcome"] == "partial"
    assert found.before == found.after
