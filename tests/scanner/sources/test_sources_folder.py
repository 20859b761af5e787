from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources import Machine, SourceOptions, find_machines
from fleetscan.scanner.sources.base import LeftOut


def touch(path: Path, content: bytes = b"\0" * 512) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def qcow2(path: Path, backing: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["-u", "-b", backing, "-F", "raw"] if backing else []
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, path.name, "1M"]
    subprocess.run(argv, check=True, cwd=path.parent)
    return path


def machines(*sources: Path, options: SourceOptions = SourceOptions()) -> dict[str, Machine]:  # noqa: B008 - frozen
    found = find_machines([str(path) for path in sources], options)
    return {machine.machine_id: machine for machine in found}


def ids(*sources: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return list(machines(*sources, options=SourceOptions(include, exclude)))


def test_each_image_at_any_depth_is_a_machine_named_by_its_path(tmp_path: Path) -> None:
    image = touch(tmp_path / "web" / "a" / "one.img")
    touch(tmp_path / "two.RAW")
    found = machines(tmp_path)
    assert list(found) == ["two.RAW", "web/a/one.img"]
    machine = found["web/a/one.img"]
    assert machine.disks == (Disk(str(image), within=(str(tmp_path),)),)
    assert (machine.source, machine.place) == (str(tmp_path), str(image))


def test_files_that_are_no_images_are_named_in_the_debug_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "notes.txt")
    with caplog.at_level(logging.DEBUG, "fleetscan.scanner.sources"):
        assert ids(tmp_path) == []
    assert "notes.txt" in caplog.text


@pytest.mark.parametrize("suffix", ["vmdk", "vhd", "vhdx", "vdi", "iso", "qcow", "ova", "qed"])
def test_images_of_formats_not_yet_supported_are_machines_too(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / f"disk.{suffix}")
    assert ids(tmp_path) == [f"disk.{suffix}"]


def test_images_that_back_each_other_are_all_kept_so_that_their_error_is_seen(
    tmp_path: Path,
) -> None:
    qcow2(tmp_path / "a.qcow2", "b.qcow2")
    qcow2(tmp_path / "b.qcow2", "a.qcow2")
    qcow2(tmp_path / "self.qcow2", "./self.qcow2")
    assert ids(tmp_path) == ["a.qcow2", "b.qcow2", "self.qcow2"]


def test_a_folder_with_machine_yaml_is_one_machine_of_several_disks(tmp_path: Path) -> None:
    db = tmp_path / "db"
    touch(db / "data.img")
    touch(db / "os.qcow2")
    touch(db / "old" / "copy.img")
    (db / "machine.yaml").write_text("disks:\n  - os.qcow2\n  - {path: data.img, format: raw}\n")
    (machine,) = find_machines([str(tmp_path)])
    assert machine.machine_id == "db"
    assert machine.disks == (
        Disk(str(db / "os.qcow2"), within=(str(db),)),
        Disk(str(db / "data.img"), "raw", within=(str(db),)),
    )
    copy = LeftOut(str(db / "old" / "copy.img"), "unlisted", str(db / "machine.yaml"))
    assert machine.left_out == (copy,)


def test_a_backing_file_beside_a_listed_disk_is_told_from_what_nothing_uses(tmp_path: Path) -> None:
    touch(tmp_path / "db" / "base.img")
    qcow2(tmp_path / "db" / "os.qcow2", "base.img")
    (tmp_path / "db" / "machine.yaml").write_text("disks: [os.qcow2]\n")
    (machine,) = find_machines([str(tmp_path)])
    assert [(Path(file.path).name, file.why) for file in machine.left_out] == [("base.img", "base")]


def test_a_link_to_an_image_where_links_may_lead_is_a_machine_named_by_the_link(
    tmp_path: Path,
) -> None:
    image = touch(tmp_path / "pool" / "x.img")
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "web.img").symlink_to(image)
    options = SourceOptions(allowed_directories=(str(tmp_path / "pool"),))
    found = machines(tmp_path / "fleet", options=options)
    assert [(name, machine.error) for name, machine in found.items()] == [("web.img", None)]


@pytest.mark.parametrize("name", ["a.img", "z.img"])
def test_a_link_to_an_image_of_the_same_folder_is_the_same_machine(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).symlink_to(touch(tmp_path / "m.img"))
    (machine,) = find_machines([str(tmp_path)])
    assert machine.machine_id == "m.img"
    alias = LeftOut(str(tmp_path / name), "alias", str(tmp_path / "m.img"))
    assert machine.left_out == (alias,)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "fleet" / "a.img")
    (tmp_path / "fleet" / "loop").symlink_to(tmp_path)
    assert ids(tmp_path / "fleet") == ["a.img"]


def test_a_parallels_bundle_is_a_machine_that_failed(tmp_path: Path) -> None:
    touch(tmp_path / "web.hdd" / "DiskDescriptor.xml")
    touch(tmp_path / "web.hdd" / "root.hdd")
    touch(tmp_path / "web.hdd" / "other.img")
    found = machines(tmp_path)
    assert list(found) == ["web.hdd", "web.hdd/other.img"]
    assert "Parallels bundle" in str(found["web.hdd"].error)
    assert [file.why for file in found["web.hdd"].left_out] == ["bundle"]


def test_a_dangling_link_is_a_machine_so_that_its_error_is_seen(tmp_path: Path) -> None:
    (tmp_path / "gone.img").symlink_to(tmp_path / "nowhere")
    assert ids(tmp_path) == ["gone.img"]


def test_a_folder_that_cannot_be_listed_is_a_failed_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "closed" / "a.img")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (machine,) = find_machines([str(tmp_path)])
    assert machine.machine_id == "closed"
    assert machine.error == "folder cannot be read: Permission denied"


def test_names_that_are_not_utf8_become_ids_that_can_be_stored(tmp_path: Path) -> None:
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.img")))
    assert ids(tmp_path) == ["caf\\xe9.img"]


def test_a_single_image_is_a_machine_named_by_its_file(tmp_path: Path) -> None:
    image = touch(tmp_path / "web.whatever")
    (machine,) = find_machines([str(image)])
    assert (machine.machine_id, machine.disks) == ("web.whatever", (Disk(str(image)),))


def test_a_source_that_does_not_exist_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find_machines([str(tmp_path / "nothing")])


def test_equal_ids_of_two_images_that_the_user_names_are_refused_with_a_hint(
    tmp_path: Path,
) -> None:
    images = touch(tmp_path / "a" / "web.img"), touch(tmp_path / "b" / "web.img")
    with pytest.raises(UsageError, match=r"'web\.img', in both") as caught:
        ids(*images)
    assert "inventory" in caught.value.hint


def test_a_source_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "web.img")
    with pytest.raises(UsageError, match="twice"):
        ids(tmp_path / "a", tmp_path / "b" / ".." / "a")


def test_include_and_exclude_select_by_id(tmp_path: Path) -> None:
    for name in ("web/1.img", "web/2.img", "db/1.img"):
        touch(tmp_path / name)
    assert ids(tmp_path, include=("web/*",)) == ["web/1.img", "web/2.img"]
    assert ids(tmp_path, include=("web/*",), exclude=("*2*",)) == ["web/1.img"]


def test_a_machine_that_is_left_out_does_not_clash(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "web.img")
    touch(tmp_path / "b" / "web.img")
    assert ids(tmp_path / "a", tmp_path / "b", exclude=("web*",)) == []


def test_disks_in_containers_are_machines_and_other_archives_are_none(tmp_path: Path) -> None:
    for name in ("web.qcow2.xz", "case.E01", "case.E02", "mac.dmg", "logs.tar.gz", "notes.zip"):
        touch(tmp_path / name)
    assert ids(tmp_path) == ["case.E01", "mac.dmg", "web.qcow2.xz"]


def test_an_apple_sparse_bundle_is_a_machine_that_failed_and_hides_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "mac.sparsebundle" / "bands" / "0")
    touch(tmp_path / "mac.sparsebundle" / "web.img")
    found = machines(tmp_path)
    assert list(found) == ["mac.sparsebundle", "mac.sparsebundle/web.img"]
    assert "Apple sparse bundle" in str(found["mac.sparsebundle"].error)
