"""Disks made to mislead the scanner about what to open."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, QemuImgLimits, examine


def overlay(path: Path, backing: str, backing_format: str = "raw") -> Path:
    """A qcow2 image whose header names any backing file at all, written without opening it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placeholder = "~" * len(os.fsencode(backing))
    options = ["-u", "-b", placeholder, "-F", backing_format]
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M"]
    subprocess.run(argv, check=True)
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), os.fsencode(backing), 1))
    return path


def refusal(path: Path, policy: DiskPolicy | None = None, stated: str | None = None) -> str:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(path), stated), policy or DiskPolicy())
    return str(caught.value)


@pytest.mark.parametrize(
    "backing",
    [
        "/etc/shadow",
        "../../../../../../../../etc/shadow",
        "/proc/self/environ",
        "/dev/null",
        "/dev/fd/0",
        "sub/../../outside.img",
        ".",
        "..",
        "/",
    ],
)
def test_backing_files_out_of_bounds_are_refused(tmp_path: Path, backing: str) -> None:
    (tmp_path / "outside.img").write_bytes(bytes(512))
    (tmp_path / "vm" / "sub").mkdir(parents=True)
    message = refusal(overlay(tmp_path / "vm" / "a.qcow2", backing))
    assert "outside the allowed directories" in message or "neither a regular file" in message


@pytest.mark.parametrize(
    "backing",
    [
        'json:{"driver":"file","filename":"/etc/shadow"}',
        'json:{"driver":"qcow2","file":{"driver":"nbd","host":"192.0.2.1"}}',
        "nbd:192.0.2.1:10809",
        "nbd+unix:///?socket=/run/x",
        "http://192.0.2.1/a.img",
        "https://192.0.2.1/a.img",
        "ssh://root@192.0.2.1/a.img",
        "file:base.img",
        "fat:rw:.",
        "blkdebug::base.img",
        "host_device:/dev/sda",
    ],
)
def test_protocols_are_refused_before_anything_is_opened(tmp_path: Path, backing: str) -> None:
    (tmp_path / "base.img").write_bytes(bytes(512))
    assert "not a plain path and is never opened" in refusal(overlay(tmp_path / "a.qcow2", backing))


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.img").write_bytes(bytes(512))
    assert "backing file name with a NUL" in refusal(
        overlay(tmp_path / "a.qcow2", "base.img\0/../x")
    )


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.img").write_bytes(bytes(512))
    path = overlay(tmp_path / "vm" / "a.qcow2", "base.img")
    (tmp_path / "vm" / "base.img").symlink_to(tmp_path / "secret.img")
    assert "outside the allowed directories" in refusal(path)
    policy = DiskPolicy(allowed_directories=(str(tmp_path),))
    assert len(examine(Disk(str(path)), policy).layers) == 2


def test_a_linked_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "base.img").write_bytes(bytes(512))
    path = overlay(tmp_path / "vm" / "a.qcow2", "link/base.img")
    (tmp_path / "vm" / "link").symlink_to(tmp_path / "other")
    assert "outside the allowed directories" in refusal(path)


def test_a_directory_whose_name_only_begins_alike_is_not_allowed(tmp_path: Path) -> None:
    (tmp_path / "vm-secret").mkdir()
    (tmp_path / "vm-secret" / "base.img").write_bytes(bytes(512))
    path = overlay(tmp_path / "vm" / "a.qcow2", "../vm-secret/base.img")
    assert "outside the allowed directories" in refusal(path)


def test_whether_a_file_out_of_bounds_exists_is_not_told(tmp_path: Path) -> None:
    present = refusal(overlay(tmp_path / "a.qcow2", "/etc/hostname"))
    absent = refusal(overlay(tmp_path / "a.qcow2", "/etc/nothing!"))
    assert present.replace("hostname", "nothing!") == absent


@pytest.mark.parametrize("length", [1, 2, 5])
def test_circles_of_backing_files_are_refused(tmp_path: Path, length: int) -> None:
    for index in range(length):
        overlay(tmp_path / f"{index}.qcow2", f"{(index + 1) % length}.qcow2", "qcow2")
    assert "circle" in refusal(tmp_path / "0.qcow2")


def test_a_circle_through_hard_links_is_refused(tmp_path: Path) -> None:
    overlay(tmp_path / "a.qcow2", "b.qcow2", "qcow2")
    os.link(tmp_path / "a.qcow2", tmp_path / "b.qcow2")
    assert "circle" in refusal(tmp_path / "a.qcow2")


def test_a_chain_of_fifty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "50.qcow2").write_bytes(overlay(tmp_path / "0.qcow2", "1.qcow2").read_bytes())
    template = overlay(tmp_path / "t.qcow2", "00.qcow2", "qcow2").read_bytes()
    for index in range(50):
        name = f"{index + 1:02}.qcow2".encode()
        (tmp_path / f"{index:02}.qcow2").write_bytes(template.replace(b"00.qcow2", name))
    assert "more than 16 layers" in refusal(tmp_path / "00.qcow2")


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "character device"])
def test_what_is_no_disk_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.img"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "character device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    begun = time.monotonic()
    assert "neither a regular file nor a block device" in refusal(path)
    assert "neither a regular file nor a block device" in refusal(path, stated="raw")
    if kind != "character device":
        assert "neither a regular file" in refusal(overlay(tmp_path / "o.qcow2", "a.img"))
    assert time.monotonic() - begun < 5


def test_a_qcow2_header_in_a_raw_disk_changes_nothing_where_raw_is_stated(tmp_path: Path) -> None:
    # CVE-2010-3851: a guest writes the header into its own raw disk.
    path = overlay(tmp_path / "a.img", "/etc/shadow")
    (layer,) = examine(Disk(str(path), "raw"), DiskPolicy()).layers
    assert layer.format == "raw"


def test_a_qcow2_header_in_a_raw_backing_file_changes_nothing(tmp_path: Path) -> None:
    overlay(tmp_path / "base.img", "/etc/shadow")
    layers = examine(
        Disk(str(overlay(tmp_path / "a.qcow2", "base.img", "raw"))), DiskPolicy()
    ).layers
    assert [layer.format for layer in layers] == ["qcow2", "raw"]


def test_a_backing_format_that_qemu_would_probe_further_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.img").write_bytes(bytes(512))
    assert "format qed is not supported" in refusal(
        overlay(tmp_path / "a.qcow2", "base.img", "qed")
    )


@pytest.mark.parametrize("name", ["-help.img", "json:{}.img", "nbd:x.img", "a,b=c.img", "a\nb.img"])
def test_names_of_images_are_taken_for_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.img").write_bytes(bytes(512))
    overlay(tmp_path / "a.qcow2", "base.img").rename(tmp_path / name)
    assert len(examine(Disk(name, "qcow2"), DiskPolicy()).layers) == 2


def test_a_disk_of_many_files_with_huge_tables_is_given_up_in_time(tmp_path: Path) -> None:
    header = struct.Struct("<4sIIQQQQIQQQB4sH")  # VMware's "Virtual Disk Format 5.0"
    tables, entries = 1 << 20, 512
    sectors = tables * entries
    head = header.pack(b"KDMV", 1, 3, sectors, 1, 0, 0, entries, 0, 1, 1, 0, b"\n \r\n", 0)
    with (tmp_path / "e.vmdk").open("wb") as stream:
        stream.write(head.ljust(512) + struct.pack("<I", 1 << 20) * tables)
        stream.truncate(1 << 30)
    lines = ["# Disk DescriptorFile", "version=1", *[f'RW {sectors} SPARSE "e.vmdk"'] * 200]
    (tmp_path / "a.vmdk").write_text("\n".join(lines))
    begun = time.monotonic()
    policy = DiskPolicy(limits=QemuImgLimits(disk_seconds=1))
    assert "take too long to check" in refusal(tmp_path / "a.vmdk", policy)
    assert time.monotonic() - begun < 20


def test_a_file_name_in_an_error_cannot_break_its_line(tmp_path: Path) -> None:
    message = refusal(overlay(tmp_path / "a.qcow2", "/etc/\n\x1b[2Jx"))
    assert message.isprintable()
