"""Which trees hold an operating system."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleetscan.appliance.guest import assembling
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.filesystems import Filesystem, Subvolume, mount_options
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.systems import Candidate, find_roots


def filesystem(
    top: Path | None, subvolumes: Sequence[Subvolume] = (), default: int = 5
) -> Filesystem:
    kind = "btrfs" if subvolumes else "ext4"
    device = BlockDevice("/dev/sda2", 1 << 30, probe={"TYPE": kind, "USAGE": "filesystem"})
    return Filesystem(
        device,
        top=None if top is None else str(top),
        subvolumes=list(subvolumes),
        default_subvolume=default,
    )


def system(top: Path, release: str = "etc/os-release") -> Path:
    """A tree that is an operating system's."""
    (top / release).parent.mkdir(parents=True, exist_ok=True)
    (top / release).write_text("ID=debian\n")
    (top / "usr").mkdir(exist_ok=True)
    return top


def roots(*filesystems: Filesystem) -> list[str]:
    return [candidate.name for candidate in find_roots(filesystems)]


@pytest.mark.parametrize(
    "release",
    ["etc/os-release", "usr/lib/os-release", "etc/redhat-release", "etc/alpine-release"],
)
def test_a_release_file_makes_a_system(tmp_path: Path, release: str) -> None:
    assert roots(filesystem(system(tmp_path, release))) == ["/dev/sda2"]


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names that no lookup gets past, as in a directory whose blocks are damaged."""
    names: set[str] = set()
    really = Root._open_exactly

    def open_exactly(root: Root, name: str, flags: int) -> int:
        if any(part in name for part in names):
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        return really(root, name, flags)

    monkeypatch.setattr(Root, "_open_exactly", open_exactly)
    return names


def test_a_damaged_tree_is_not_taken_for_one_without_a_system(
    tmp_path: Path, damaged: set[str]
) -> None:
    damaged.add("etc/")
    system(tmp_path)
    with pytest.raises(OSError, match="a checksum does not match"):
        roots(filesystem(tmp_path))


def test_a_system_that_shows_elsewhere_is_found_in_a_damaged_tree(
    tmp_path: Path, damaged: set[str]
) -> None:
    damaged.add("etc/")
    assert roots(filesystem(system(tmp_path, "usr/lib/os-release"))) == ["/dev/sda2"]


def test_a_damaged_subvolume_does_not_take_the_others_with_it(
    tmp_path: Path, damaged: set[str]
) -> None:
    subvolumes = [subvolume(256, "bad"), subvolume(257, "good")]
    system(tmp_path / "good", "usr/lib/os-release")
    system(tmp_path / "bad", "etc/os-release")
    damaged.add("etc/os-release")
    found: list[Candidate] = []
    with pytest.raises(OSError, match="a checksum does not match"):
        found.extend(find_roots([filesystem(tmp_path, subvolumes)]))
    assert [candidate.name for candidate in found] == ["/dev/sda2[/good]"]


def test_a_shell_and_a_passwd_make_one_too(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").touch()
    assert roots(filesystem(tmp_path)) == []
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("busybox")
    assert roots(filesystem(tmp_path)) == ["/dev/sda2"]


def test_registry_hives_make_a_windows(tmp_path: Path) -> None:
    config = tmp_path / "WINDOWS" / "system32" / "config"
    config.mkdir(parents=True)
    assert roots(filesystem(tmp_path)) == []
    (config / "software").touch()
    assert roots(filesystem(tmp_path)) == ["/dev/sda2"]


def test_links_are_followed_inside_the_tree_and_never_out_of_it(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "usr/lib").mkdir(parents=True)
    (inside / "etc").symlink_to(system(tmp_path / "outside") / "etc")
    assert roots(filesystem(inside)) == []
    (inside / "usr/lib/os-release").touch()
    assert roots(filesystem(inside)) == ["/dev/sda2"]


def test_a_release_file_that_is_a_dangling_link_still_tells_a_system(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")  # /usr is another disk's
    assert roots(filesystem(tmp_path)) == ["/dev/sda2"]


@pytest.mark.parametrize(
    "content", [[], ["home/user/etc/os-release"], ["os-release"], ["etc/passwd"]]
)
def test_other_trees_hold_none(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert roots(filesystem(tmp_path)) == []


def test_a_release_file_that_is_a_directory_or_fifo_is_none(tmp_path: Path) -> None:
    (tmp_path / "etc/os-release").mkdir(parents=True)
    assert roots(filesystem(tmp_path)) == []


def test_what_is_not_mounted_holds_none() -> None:
    assert roots(filesystem(None)) == []


def test_every_filesystem_is_looked_at(tmp_path: Path) -> None:
    tops = [system(tmp_path / name) for name in ("a", "b")]
    found = list(find_roots([filesystem(tops[0]), filesystem(None), filesystem(tops[1])]))
    assert [candidate.filesystem.top for candidate in found] == [str(top) for top in tops]


def test_media_hold_a_system_only_where_media_may_be(tmp_path: Path) -> None:
    (tmp_path / ".disk").mkdir()
    (tmp_path / ".disk/info").touch()
    found = filesystem(tmp_path)
    assert roots(found) == []
    found.device.probe["TYPE"] = "iso9660"
    assert roots(found) == ["/dev/sda2"]


def test_a_nixos_that_was_never_started_is_one(tmp_path: Path) -> None:
    (tmp_path / "nix/var/nix/profiles").mkdir(parents=True)
    (tmp_path / "nix/var/nix/profiles/system").symlink_to("/nix/store/x-nixos-system")
    assert roots(filesystem(tmp_path)) == ["/dev/sda2"]


# -- ostree ----------------------------------------------------------------------------------

TREES = ("a" * 64 + ".0", "b" * 64 + ".0")


def deployed(top: Path) -> None:
    """Two deployments, the second the newer."""
    for number, tree in enumerate(TREES):
        system(top / "ostree/deploy/fcos/deploy" / tree)
        origin = top / f"ostree/deploy/fcos/deploy/{tree}.origin"
        origin.touch()
        os.utime(origin, (number, number))


def boots(top: Path, tree: str) -> None:
    """The boot loader's first entry starts this tree."""
    (top / "boot/loader/entries").mkdir(parents=True)
    entries = top / "boot/loader/entries"
    (entries / "ostree-2-fcos.conf").write_text(
        "title F\noptions root=UUID=1 ostree=/ostree/boot.1/fcos/c/0 quiet\n"
    )
    (entries / "ostree-1-fcos.conf").write_text("options ostree=/ostree/boot.1/fcos/c/1\n")
    links = top / "ostree/boot.1/fcos/c"
    links.mkdir(parents=True)
    (links / "0").symlink_to(f"../../../deploy/fcos/deploy/{tree}")


def test_of_deployments_the_one_is_a_root_that_is_started(tmp_path: Path) -> None:
    deployed(tmp_path)
    boots(tmp_path, TREES[0])
    assert roots(filesystem(tmp_path)) == [f"/dev/sda2[/ostree/deploy/fcos/deploy/{TREES[0]}]"]


def test_without_a_boot_loader_the_newest_deployment_is_a_root(tmp_path: Path) -> None:
    deployed(tmp_path)
    assert roots(filesystem(tmp_path)) == [f"/dev/sda2[/ostree/deploy/fcos/deploy/{TREES[1]}]"]


def test_a_subvolume_may_hold_deployments(tmp_path: Path) -> None:
    deployed(tmp_path / "root")
    found = filesystem(tmp_path, [subvolume(256, "root")])
    assert roots(found) == [f"/dev/sda2[/root/ostree/deploy/fcos/deploy/{TREES[1]}]"]


def test_deployments_of_a_link_that_leads_out_are_none(tmp_path: Path) -> None:
    deployed(tmp_path / "outside")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/ostree").symlink_to(tmp_path / "outside/ostree")
    assert roots(filesystem(tmp_path / "inside")) == []


# -- btrfs -----------------------------------------------------------------------------------


def subvolume(number: int, path: str, parent: str = "") -> Subvolume:
    return Subvolume(number, path, f"uuid-{number}", parent)


def test_a_subvolume_that_holds_a_system_is_a_root(tmp_path: Path) -> None:
    system(tmp_path / "@rootfs")
    (tmp_path / "@home").mkdir()
    found = filesystem(tmp_path, [subvolume(256, "@rootfs"), subvolume(257, "@home")])
    assert roots(found) == ["/dev/sda2[/@rootfs]"]


def test_snapshots_of_a_system_are_no_systems_of_their_own(tmp_path: Path) -> None:
    for name in ("@", ".snapshots/1", ".snapshots/2"):
        system(tmp_path / name)
    snapshots = [subvolume(300 + n, f".snapshots/{n}", "uuid-256") for n in (1, 2)]
    assert roots(filesystem(tmp_path, [subvolume(256, "@"), *snapshots])) == ["/dev/sda2[/@]"]


def test_a_snapshot_that_is_started_from_is_one(tmp_path: Path) -> None:
    for name in ("@", ".snapshots/1", ".snapshots/2"):
        system(tmp_path / name)
    snapshots = [subvolume(300 + n, f".snapshots/{n}", "uuid-256") for n in (1, 2)]
    found = filesystem(tmp_path, [subvolume(256, "@"), *snapshots], default=302)
    assert roots(found) == ["/dev/sda2[/@]", "/dev/sda2[/.snapshots/2]"]


def test_where_only_snapshots_are_left_the_last_of_them_counts(tmp_path: Path) -> None:
    for name in ("1", "2"):
        system(tmp_path / name)
    found = filesystem(tmp_path, [subvolume(n, str(n), "uuid-9") for n in (1, 2)])
    assert roots(found) == ["/dev/sda2[/2]"]


def test_a_system_at_the_top_and_its_snapshots_are_one_root(tmp_path: Path) -> None:
    system(tmp_path)
    (tmp_path / ".snapshots").mkdir()
    system(tmp_path / ".snapshots/1")
    found = filesystem(tmp_path, [subvolume(256, ".snapshots/1", "uuid-of-the-top")])
    assert roots(found) == ["/dev/sda2"]


def test_a_subvolume_that_has_gone_is_passed_over(tmp_path: Path) -> None:
    assert roots(filesystem(tmp_path, [subvolume(256, "missing")])) == []


# -- Mount options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "companions", "number", "options"),
    [
        ("ext4", [], None, ""),
        ("xfs", [], None, "nouuid"),
        ("btrfs", [], None, "subvolid=5"),
        ("btrfs", [], 256, "subvolid=256"),
        ("btrfs", ["/dev/sda1", "/dev/sdb1"], 5, "subvolid=5,device=/dev/sda1,device=/dev/sdb1"),
    ],
)
def test_mount_options_are_those_of_the_type(
    kind: str, companions: list[str], number: int | None, options: str
) -> None:
    assert mount_options({"TYPE": kind}, companions, number) == options


@pytest.mark.parametrize(("version", "wanted"), [("1", "44bsd"), ("2", "ufs2"), ("", "44bsd")])
def test_the_variant_of_ufs_is_told_to_its_driver(version: str, wanted: str) -> None:
    assert mount_options({"TYPE": "ufs", "VERSION": version}) == f"ufstype={wanted}"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (["subvol=@home"], "@home"),
        (["subvol=/@home"], "@home"),
        (["subvolid=257"], "@home"),
        (["defaults"], "@"),  # the one that is the default
        (["subvol=/"], None),
        (["subvolid=5"], None),
    ],
)
def test_a_mount_is_of_the_subvolume_that_the_kernel_would_take(
    options: list[str], path: str | None, tmp_path: Path
) -> None:
    volumes = [subvolume(256, "@"), subvolume(257, "@home")]
    wanted = assembling._wanted_subvolume(filesystem(tmp_path, volumes, default=256), options)
    assert (wanted.path if wanted else None) == path
