"""The files that a mount table is made of, and whatever may stand in their place."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fleetscan.appliance.ground.mounts import FstabEntry
from fleetscan.appliance.guest import mount_table
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.fstab import parse, resolve
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.volumes.arrays import mdadm_conf
from fleetscan.appliance.guest.volumes.arrays.mdadm_conf import Array

# -- Files that are none -----------------------------------------------------------------------


def make_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # whatever the folder's name's length
    os.close(folder)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


NODES: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (os.mkfifo, "not a regular file"),
    "socket": (make_socket, "a device or socket, not a file"),
    "directory": (os.mkdir, "Is a directory"),
    "loop": (make_loop, "Too many levels of symbolic links"),
    "dangling": (make_dangling, "a symbolic link that leads nowhere"),
    "huge": (make_huge, "larger than 1048576 bytes"),
}
NAMES = ("fstab", "crypttab", "mdadm.conf", "mdadm/mdadm.conf")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc/mdadm").mkdir(parents=True)
    (tmp_path / "etc/fstab").write_text("/dev/sda2 / ext4 defaults 0 1\n")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", NODES)
def test_what_stands_in_a_files_place_costs_that_file(tree: Path, kind: str, name: str) -> None:
    make, why = NODES[kind]
    (tree / "etc" / name).unlink(missing_ok=True)
    make(tree / "etc" / name)
    with Root("r", str(tree)) as root:
        table = mount_table.read(root)
    assert list(table.problems) == [f"/etc/{name}: {why}"]
    assert bool(table.entries) is (name != "fstab")
    # Only what hides lines that the system itself reads leaves open what is mounted.
    assert bool(table.unknown) is ((name, kind) == ("fstab", "huge"))


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENOKEY])
def test_a_damaged_fstab_leaves_open_what_is_mounted(
    tree: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: Root, path: str, limit: int = 0) -> str:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(Root, "try_text", damaged)
    with Root("r", str(tree)) as root:
        table = mount_table.read(root)
    assert table.unknown.startswith("what is mounted is not known: /etc/fstab: ")
    assert "Errno" not in table.unknown


def test_entries_beyond_reason_are_left_out_and_said_to_be(tree: Path) -> None:
    (tree / "etc/fstab").write_text("tmpfs /tmp tmpfs\n" * 20_000)
    with Root("r", str(tree)) as root:
        table = mount_table.read(root)
    assert len(table.entries) == mount_table.MOST_ENTRIES
    assert table.unknown == "/etc/fstab: only its first 1000 entries were heeded"


def test_a_windows_has_no_fstab_whatever_lies_in_its_etc(tree: Path) -> None:
    (tree / "Windows/System32/config").mkdir(parents=True)
    (tree / "Windows/System32/config/SYSTEM").touch()
    with Root("r", str(tree)) as root:
        assert root.windows
        assert mount_table.read(root) == mount_table.MountTable()


# -- Kinds of entries --------------------------------------------------------------------------


def entry(line: str) -> FstabEntry:
    (found,) = parse(line)
    return found


@pytest.mark.parametrize(
    ("line", "kind", "remote"),
    [
        ("UUID=1 /srv ext4 defaults", "device", False),
        ("/dev/sdb1 /srv ext4", "device", False),
        ("/dev/sdb1 /srv ext4 _netdev", "device", True),
        ("/dev/cdrom /media iso9660 ro", "device", True),
        ("/dev/sr0 /media auto ro", "device", True),
        ("/dev/fd0 /media auto ro", "device", True),
        ("UUID=1 none swap sw", "swap", False),
        ("tmpfs /tmp tmpfs size=1G", "memory", False),
        ("proc /proc proc", "memory", False),
        ("none /x strange", "memory", False),
        ("strange /x strange", "memory", False),
        ("/srv/home /home none bind", "bind", False),
        ("/srv/home /home none rw,rbind,nofail", "bind", False),
        ("nas:/export /home nfs", "network", True),
        ("nas:/export /home nfs4 nofail", "network", True),
        ("//nas/share /mnt cifs credentials=/etc/x", "network", True),
        ("me@host:/x /mnt fuse.sshfs", "network", True),
        ("share /mnt 9p trans=virtio", "network", True),
        ("/images/x.img /mnt ext4 loop", "other", False),
        ("tank/home /home zfs", "other", False),
    ],
)
def test_an_entry_is_of_the_kind_that_says_what_it_takes(
    line: str, kind: str, remote: bool
) -> None:
    assert (entry(line).kind, entry(line).is_remote) == (kind, remote)


# -- Names of arrays ---------------------------------------------------------------------------

UUID = "6f1ae2b1:0c3d4e5f:8a9b0c1d:2e3f4a5b"
BLKID_UUID = "6f1ae2b1-0c3d-4e5f-8a9b-0c1d2e3f4a5b"


@pytest.mark.parametrize(
    ("line", "name", "array"),
    [
        (f"ARRAY /dev/md/data metadata=1.2 UUID={UUID}", "data", Array(UUID.replace(":", ""))),
        (f"ARRAY /dev/md0 UUID={UUID.upper()}", "0", Array(UUID.replace(":", ""))),
        (f"array md/7 uuid={UUID}", "7", Array(UUID.replace(":", ""))),
        ("arr root name=web:root", "root", Array(name="web:root")),
        ('ARRAY /dev/md_x "name=web:x"', "x", Array(name="web:x")),
        (f"ARRAY /dev/md/d1\n  level=raid1\n\tUUID={UUID}", "1", Array(UUID.replace(":", ""))),
    ],
)
def test_an_array_line_gives_a_name(line: str, name: str, array: Array) -> None:
    assert list(mdadm_conf.parse(f"# comment\nMAILADDR root\n{line}\nDEVICE partitions\n")) == [
        (name, array)
    ]


@pytest.mark.parametrize(
    "line",
    [
        f"ARRAY <ignore> UUID={UUID}",
        f"ARRAY UUID={UUID}",
        "ARRAY /dev/md0",
        "ARRAY /dev/md0 devices=/dev/sda1,/dev/sdb1",
        f"# ARRAY /dev/md0 UUID={UUID}",
        f"AR /dev/md0 UUID={UUID}",
        "ARRAY",
        "",
    ],
)
def test_other_lines_give_none(line: str) -> None:
    assert list(mdadm_conf.parse(line)) == []


def devices() -> Sequence[BlockDevice]:
    member = {"TYPE": "linux_raid_member", "UUID": BLKID_UUID, "LABEL": "web:old"}
    posing = {"TYPE": "ext4", "UUID": BLKID_UUID}
    return [
        BlockDevice("/dev/sda1", 1, disk=0, partition=1, probe=member),
        BlockDevice("/dev/sdb1", 1, disk=1, partition=1, probe=posing),
        BlockDevice("/dev/vg/x", 1, members=("/dev/sdb1",)),
        BlockDevice("/dev/md/old", 1, members=("/dev/sda1",)),
        BlockDevice("/dev/md/other", 1, members=("/dev/sdc1",)),
    ]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("/dev/md/new", "/dev/md/old"),
        ("/dev/md_new", "/dev/md/old"),
        ("/dev/md3", "/dev/md/old"),
        ("/dev/md/other", "/dev/md/old"),  # the configuration comes before the metadata
        ("/dev/md/old", "/dev/md/old"),
        ("/dev/md/gone", None),
        ("/dev/md/4", None),
        (f"/dev/disk/by-id/md-uuid-{UUID}", "/dev/md/old"),
        ("/dev/disk/by-id/md-name-web:old", "/dev/md/old"),
        ("/dev/disk/by-id/md-name-db:old", None),
    ],
)
def test_an_array_is_found_by_the_name_that_the_system_gives_it(
    source: str, found: str | None
) -> None:
    text = f"""
        ARRAY /dev/md/new UUID={UUID}
        ARRAY /dev/md/3 name=web:old
        ARRAY /dev/md/other UUID={UUID}
        ARRAY /dev/md/gone UUID={UUID[::-1]}
    """
    lines = "\n".join(line.strip() for line in text.split("\n"))
    device = resolve(source, devices(), {}, dict(mdadm_conf.parse(lines)))
    assert (device.path if device else None) == found


def test_arrays_are_named_by_whichever_file_there_is(tree: Path) -> None:
    for name in ("mdadm.conf", "mdadm/mdadm.conf.d/a.conf"):
        (tree / "etc" / name).parent.mkdir(exist_ok=True)
        (tree / "etc" / name).write_text(f"ARRAY /dev/md/{name[-6]} UUID={UUID}\n")
    with Root("r", str(tree)) as root:
        table = mount_table.read(root)
    assert list(table.problems) == []
    assert table.arrays.keys() == {"m", "a"}
    assert table.resolve("/dev/md/a", devices()) is not None
