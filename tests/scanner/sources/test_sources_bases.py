"""Which images leave others out of the fleet: those that may, and nobody else."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from fleetscan.scanner import preflight
from fleetscan.scanner.sources import Machine, SourceOptions, find_machines
from tests.disk_images import Content, differencing_vdi


def raw(path: Path, size: int = 1 << 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def overlay(path: Path, backing: str, backing_format: str = "raw") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["-u", "-b", backing, "-F", backing_format]
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, path.name, "1M"]
    subprocess.run(argv, check=True, cwd=path.parent)
    return path


def descriptor(path: Path, *extents: str, sectors: int = 2048, parent: str = "") -> Path:
    """A vmdk that says of which files its disk is made."""
    ids = "CID=1\nparentCID=2" if parent else "CID=1\nparentCID=ffffffff"
    lines = ["# Disk DescriptorFile", "version=1", ids, 'createType="monolithicFlat"']
    lines += [f'parentFileNameHint="{parent}"'] if parent else []
    lines += [f'RW {sectors} FLAT "{extent}" 0' for extent in extents]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def machines(folder: Path, **options: object) -> dict[str, Machine]:
    found = find_machines([str(folder)], SourceOptions(**options))  # type: ignore[arg-type] # by name
    return {machine.machine_id: machine for machine in found}


def left_out(machine: Machine) -> list[tuple[str, str]]:
    return [(Path(file.path).name, file.why) for file in machine.left_out]


def test_the_base_of_an_image_beside_it_is_recorded_with_whom_it_belongs_to(tmp_path: Path) -> None:
    golden = raw(tmp_path / "golden.img")
    tops = [overlay(tmp_path / f"web{number}.qcow2", "golden.img") for number in range(3)]
    found = machines(tmp_path)
    assert list(found) == [top.name for top in tops]
    for top in tops:
        (file,) = found[top.name].left_out
        assert (file.path, file.why, file.named_by) == (str(golden), "base", str(top))


def test_golden_images_are_scanned_on_request(tmp_path: Path) -> None:
    raw(tmp_path / "golden.img")
    overlay(tmp_path / "web.qcow2", "golden.img")
    raw(tmp_path / "old-flat.vmdk")
    descriptor(tmp_path / "old.vmdk", "old-flat.vmdk")
    found = machines(tmp_path, bases="scan")
    assert list(found) == ["golden.img", "old.vmdk", "web.qcow2"]
    assert left_out(found["old.vmdk"]) == [("old-flat.vmdk", "extent")]
    assert found["web.qcow2"].left_out == ()


def test_golden_images_of_a_machine_of_several_disks_are_scanned_on_request_as_well(
    tmp_path: Path,
) -> None:
    raw(tmp_path / "db" / "golden.img")
    raw(tmp_path / "db" / "old.img")
    raw(tmp_path / "db" / "data-flat.vmdk")
    overlay(tmp_path / "db" / "os.qcow2", "golden.img")
    descriptor(tmp_path / "db" / "data.vmdk", "data-flat.vmdk")
    (tmp_path / "db" / "machine.yaml").write_text("disks: [os.qcow2, data.vmdk]\n")
    others = [("data-flat.vmdk", "extent"), ("old.img", "unlisted")]
    found = machines(tmp_path)
    assert list(found) == ["db"]
    assert sorted(left_out(found["db"])) == [others[0], ("golden.img", "base"), others[1]]
    found = machines(tmp_path, bases="scan")
    assert list(found) == ["db", "db/golden.img"]
    assert sorted(left_out(found["db"])) == others


def test_a_chain_is_left_out_by_its_top_alone(tmp_path: Path) -> None:
    raw(tmp_path / "a.img")
    overlay(tmp_path / "b.qcow2", "a.img")
    overlay(tmp_path / "c.qcow2", "b.qcow2", "qcow2")
    found = machines(tmp_path)
    assert list(found) == ["c.qcow2"]
    assert left_out(found["c.qcow2"]) == [("b.qcow2", "base"), ("a.img", "base")]


def test_extents_beside_their_descriptor_are_left_out(tmp_path: Path) -> None:
    raw(tmp_path / "web-flat.vmdk")
    descriptor(tmp_path / "web.vmdk", "web-flat.vmdk")
    found = machines(tmp_path)
    assert list(found) == ["web.vmdk"]
    assert left_out(found["web.vmdk"]) == [("web-flat.vmdk", "extent")]


def test_what_is_referred_to_from_elsewhere_is_scanned_as_well(tmp_path: Path) -> None:
    raw(tmp_path / "bases" / "golden.img")
    overlay(tmp_path / "vm" / "web.qcow2", "../bases/golden.img")
    overlay(tmp_path / "top.qcow2", "bases/golden.img")
    found = machines(tmp_path, allowed_directories=(str(tmp_path),))
    assert list(found) == ["bases/golden.img", "top.qcow2", "vm/web.qcow2"]


def test_a_folder_that_is_a_link_to_another_is_another_folder(tmp_path: Path) -> None:
    raw(tmp_path / "bases" / "golden.img")
    overlay(tmp_path / "vm" / "web.qcow2", "here/golden.img")
    (tmp_path / "vm" / "here").symlink_to(tmp_path / "bases")
    found = machines(tmp_path, allowed_directories=(str(tmp_path),))
    assert list(found) == ["bases/golden.img", "vm/web.qcow2"]


@pytest.mark.parametrize("suffix", ["raw", "img", "dd", "iso", "qcow", "hdd"])
def test_a_header_that_a_guest_may_have_written_hides_nothing(tmp_path: Path, suffix: str) -> None:
    raw(tmp_path / "victim.img")
    overlay(tmp_path / "o.qcow2", "victim.img").rename(tmp_path / f"evil.{suffix}")
    assert list(machines(tmp_path)) == [f"evil.{suffix}", "victim.img"]


def test_a_flat_extent_whose_guest_wrote_an_image_into_it_hides_nothing(tmp_path: Path) -> None:
    raw(tmp_path / "victim.vmdk")
    command = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "compat6", "x.vmdk", "1M"]
    subprocess.run(command, check=True, cwd=tmp_path)
    forged = (tmp_path / "x.vmdk").read_bytes()
    (tmp_path / "x.vmdk").unlink()
    forged = forged.replace(
        b"parentCID=ffffffff", b'parentCID=00000001\nparentFileNameHint="victim.vmdk"'
    )
    (tmp_path / "evil-flat.vmdk").write_bytes(forged.ljust(1 << 20, b"\0"))
    assert list(machines(tmp_path)) == ["evil-flat.vmdk", "victim.vmdk"]
    descriptor(tmp_path / "evil.vmdk", "evil-flat.vmdk")
    assert list(machines(tmp_path)) == ["evil.vmdk", "victim.vmdk"]


def test_a_descriptor_does_not_hide_raw_images_of_others(tmp_path: Path) -> None:
    for name in ("victim.raw", "victim.img", "victim.qcow2"):
        raw(tmp_path / name)
    descriptor(tmp_path / "evil.vmdk", "victim.raw", "victim.img", "victim.qcow2")
    found = machines(tmp_path)
    assert list(found) == ["evil.vmdk", "victim.img", "victim.qcow2", "victim.raw"]


def test_an_image_that_preflight_refuses_hides_nothing(tmp_path: Path) -> None:
    raw(tmp_path / "victim.img")
    broken(overlay(tmp_path / "broken.qcow2", "victim.img"))
    raw(tmp_path / "victim2.vmdk")
    descriptor(tmp_path / "short.vmdk", "victim2.vmdk", sectors=1 << 30)
    raw(tmp_path / "victim3.vmdk")
    descriptor(tmp_path / "missing.vmdk", "victim3.vmdk", "gone.vmdk")
    raw(tmp_path / "victim4.img")
    overlay(tmp_path / "middle.qcow2", "victim4.img")
    overlay(tmp_path / "outside.qcow2", "/etc/passwd")
    found = machines(tmp_path)
    assert {name for name in found if name.startswith("victim")} == {
        "victim.img",
        "victim2.vmdk",
        "victim3.vmdk",
    }


def broken(path: Path) -> Path:
    """The qcow2 image with a first table that points past the end of its file."""
    data = path.read_bytes()
    (table,) = struct.unpack_from(">Q", data, 40)  # l1_table_offset
    path.write_bytes(data[:table] + struct.pack(">Q", 1 << 63 | 1 << 40) + data[table + 8 :])
    return path


def test_a_chain_whose_top_is_refused_is_scanned_down_to_its_base(tmp_path: Path) -> None:
    raw(tmp_path / "a.img")
    overlay(tmp_path / "b.qcow2", "a.img")
    broken(overlay(tmp_path / "c.qcow2", "b.qcow2", "qcow2"))
    assert list(machines(tmp_path)) == ["a.img", "b.qcow2", "c.qcow2"]


def test_a_base_in_use_by_a_refused_image_is_left_out_by_a_sound_one(tmp_path: Path) -> None:
    raw(tmp_path / "golden.img")
    overlay(tmp_path / "web.qcow2", "golden.img")
    broken(overlay(tmp_path / "cut.qcow2", "golden.img"))
    found = machines(tmp_path)
    assert list(found) == ["cut.qcow2", "web.qcow2"]


def test_images_that_back_each_other_are_all_scanned(tmp_path: Path) -> None:
    overlay(tmp_path / "a.qcow2", "b.qcow2", "qcow2")
    overlay(tmp_path / "b.qcow2", "a.qcow2", "qcow2")
    overlay(tmp_path / "self.qcow2", "./self.qcow2", "qcow2")
    assert list(machines(tmp_path)) == ["a.qcow2", "b.qcow2", "self.qcow2"]


def test_a_descriptor_and_an_extent_that_name_each_other_hide_nothing(tmp_path: Path) -> None:
    descriptor(tmp_path / "a.vmdk", "b.vmdk")
    descriptor(tmp_path / "b.vmdk", "a.vmdk")
    assert list(machines(tmp_path)) == ["a.vmdk", "b.vmdk"]


def test_an_image_that_is_not_scanned_itself_hides_nothing(tmp_path: Path) -> None:
    raw(tmp_path / "golden.img")
    overlay(tmp_path / "web.qcow2", "golden.img")
    assert list(machines(tmp_path, exclude=("web*",))) == ["golden.img"]
    assert list(machines(tmp_path, include=("golden*",))) == ["golden.img"]


def test_what_an_inventory_names_is_scanned_whatever_is_based_on_it(tmp_path: Path) -> None:
    golden = raw(tmp_path / "fleet" / "golden.img")
    overlay(tmp_path / "fleet" / "web.qcow2", "golden.img")
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text(f"- {{id: golden, disks: [{golden}]}}\n")
    found = find_machines([str(tmp_path / "fleet"), str(inventory)])
    assert [machine.machine_id for machine in found] == ["web.qcow2", "golden"]


def test_other_names_of_a_base_are_recorded_with_it(tmp_path: Path) -> None:
    raw(tmp_path / "golden.img")
    (tmp_path / "latest.img").symlink_to("golden.img")
    overlay(tmp_path / "web.qcow2", "latest.img")
    found = machines(tmp_path)
    assert list(found) == ["web.qcow2"]
    assert left_out(found["web.qcow2"]) == [("golden.img", "base"), ("latest.img", "alias")]


def test_many_images_over_one_base_take_one_preflight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw(tmp_path / "golden.img")
    first = overlay(tmp_path / "0.qcow2", "golden.img").read_bytes()
    for number in range(1, 50):
        (tmp_path / f"{number}.qcow2").write_bytes(first)
    examined = []

    def examine(*arguments: object) -> object:
        examined.append(arguments)
        return true_examine(*arguments)  # type: ignore[arg-type] # as it was called

    true_examine = preflight.examine
    monkeypatch.setattr("fleetscan.scanner.sources.bases.examine", examine)
    assert len(machines(tmp_path)) == 50
    assert len(examined) == 1


def test_images_that_know_their_parents_by_identity_alone_are_each_opened_twice_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "vdi", tmp_path / "p.vdi", "1M"], check=True)
    child = differencing_vdi(tmp_path / "0.vdi", Content(bytes(1 << 20), b""), tmp_path / "p.vdi")
    for number in range(1, 20):
        (tmp_path / f"{number}.vdi").write_bytes(child.read_bytes())
    (tmp_path / "p.vdi").unlink()
    opened = []
    true_open = os.open

    def open_counted(path: str, flags: int) -> int:
        opened.extend([] if flags & os.O_PATH else [path])
        return true_open(path, flags)

    monkeypatch.setattr(os, "open", open_counted)
    assert len(machines(tmp_path)) == 20
    assert len([path for path in opened if path.endswith(".vdi")]) <= 40
