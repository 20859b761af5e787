from __future__ import annotations

import hashlib
import os
import pickle
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.confinement import layers
from fleetscan.appliance.confinement.confined_process import LayersInUse
from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import (
    DiskPolicy,
    QemuImgLimits,
    examine,
    open_layer,
    referred_files,
)
from fleetscan.scanner.preflight.qemu_img import info_command, readers, run_limited

POLICY = DiskPolicy()


def qemu_img(*argv: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)


def raw(path: Path, size: int = 3 << 20) -> Path:
    path.write_bytes(random.Random(1).randbytes(size))  # noqa: S311 - content that does not shrink
    return path


def full_qcow2(path: Path, *options: str) -> Path:
    qemu_img("convert", "-O", "qcow2", *options, raw(path.with_suffix(".tmp")), path)
    return path


def thin_qcow2(path: Path, *options: str | Path, size: str = "10G") -> Path:
    qemu_img("create", "-f", "qcow2", *options, path, size)
    return path


def overlay(path: Path, backing: str, backing_format: str = "qcow2") -> Path:
    return thin_qcow2(path, "-u", "-b", backing, "-F", backing_format, size="3M")


def refusal(path: Path, stated: str | None = None, policy: DiskPolicy = POLICY) -> PreflightError:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(path), stated), policy)
    return caught.value


def test_a_raw_file_is_one_layer_with_its_size_rounded_up_to_sectors(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.img", 1000)
    plan = examine(Disk(str(path)), POLICY)
    (layer,) = plan.layers
    status = path.stat()
    assert (layer.path, layer.format, layer.size) == (str(path), "raw", 1000)
    assert (layer.inode, layer.device) == (status.st_ino, status.st_dev)
    assert layer.mtime_ns == status.st_mtime_ns
    assert (plan.virtual_size, plan.cluster_size) == (1024, None)
    assert plan.allocated == status.st_blocks * 512
    assert not plan.in_use


def test_a_thin_qcow2_larger_than_its_file_is_complete(tmp_path: Path) -> None:
    plan = examine(Disk(str(thin_qcow2(tmp_path / "a.qcow2"))), POLICY)
    assert (plan.layers[0].format, plan.virtual_size, plan.cluster_size) == (
        "qcow2",
        10 << 30,
        65536,
    )


@pytest.mark.parametrize(
    "options",
    [
        ("-c",),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on"),
        ("-o", "refcount_bits=1"),
        ("-o", "refcount_bits=64"),
        ("-o", "lazy_refcounts=on"),
        ("-c", "-o", "compression_type=zstd"),
        ("-o", "preallocation=metadata"),
        ("-o", "preallocation=falloc"),
    ],
    ids=" ".join,
)
class TestAnyKindOfQcow2:
    def test_is_complete_as_made(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        plan = examine(Disk(str(full_qcow2(tmp_path / "a.qcow2", *options))), POLICY)
        assert plan.virtual_size == 3 << 20

    def test_is_truncated_without_its_last_third(
        self, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        path = full_qcow2(tmp_path / "a.qcow2", *options)
        os.truncate(path, path.stat().st_size * 2 // 3)
        assert "truncated" in str(refusal(path))


@pytest.mark.parametrize("kept", [1, 50, 71, 72, 103, 600, 70_000, 200_000])
def test_a_qcow2_cut_anywhere_in_its_tables_is_truncated(tmp_path: Path, kept: int) -> None:
    path = full_qcow2(tmp_path / "a.qcow2")
    os.truncate(path, kept)
    assert "truncated" in str(refusal(path, "qcow2"))


def test_clusters_leaked_beyond_the_end_are_not_missed(tmp_path: Path) -> None:
    path = full_qcow2(tmp_path / "a.qcow2")
    block = 2 * 65536  # the first refcount block: after header and refcount table
    with path.open("r+b") as stream:
        stream.seek(block + 2 * 20_000)
        stream.write(b"\0\1")
    assert examine(Disk(str(path)), POLICY).virtual_size == 3 << 20


def test_stale_refcounts_are_not_relied_on(tmp_path: Path) -> None:
    path = full_qcow2(tmp_path / "a.qcow2")
    with path.open("r+b") as stream:
        stream.seek(79)
        stream.write(b"\1")  # dirty bit
        stream.seek(2 * 65536)
        stream.write(bytes(65536))
    assert examine(Disk(str(path)), POLICY).virtual_size == 3 << 20
    os.truncate(path, path.stat().st_size * 2 // 3)
    assert "truncated: data" in str(refusal(path))


def test_a_huge_full_image_takes_no_longer_than_a_small_one(tmp_path: Path) -> None:
    path = thin_qcow2(tmp_path / "a.qcow2", "-o", "preallocation=metadata", size="100G")
    begun = time.monotonic()
    examine(Disk(str(path)), POLICY)
    assert time.monotonic() - begun < 5  # 0.05 s here; reading each L2 table takes longer
    os.truncate(path, 70 << 30)
    assert "truncated" in str(refusal(path))


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    for stated in (None, "raw", "qcow2"):
        assert str(refusal(tmp_path / "a.img", stated)) == f"{str(tmp_path / 'a.img')!r}: empty"


def test_a_chain_is_listed_top_first_with_formats_from_the_headers(tmp_path: Path) -> None:
    raw(tmp_path / "base.img")
    overlay(tmp_path / "mid.qcow2", "base.img", "raw")
    top = overlay(tmp_path / "top.qcow2", "mid.qcow2")
    plan = examine(Disk(str(top)), POLICY)
    assert [(Path(layer.path).name, layer.format) for layer in plan.layers] == [
        ("top.qcow2", "qcow2"),
        ("mid.qcow2", "qcow2"),
        ("base.img", "raw"),
    ]


@pytest.mark.parametrize("content", ["raw", "qcow2"])
def test_a_backing_file_of_unstated_format_is_probed(tmp_path: Path, content: str) -> None:
    base = tmp_path / "base"
    raw(base) if content == "raw" else thin_qcow2(base)
    path = overlay(tmp_path / "top.qcow2", "base")
    path.write_bytes(path.read_bytes().replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))
    assert examine(Disk(str(path)), POLICY).layers[1].format == content


def test_backing_names_start_from_the_overlays_directory(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    (tmp_path / "bases").mkdir()
    raw(tmp_path / "bases" / "base.img")
    overlay(tmp_path / "bases" / "mid.qcow2", "base.img", "raw")
    top = overlay(tmp_path / "vm" / "top.qcow2", "../bases/mid.qcow2")
    policy = DiskPolicy(allowed_directories=(str(tmp_path),))
    assert len(examine(Disk(str(top)), policy).layers) == 3


def test_a_linked_image_may_have_its_backing_file_beside_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    raw(tmp_path / "pool" / "base.img")
    overlay(tmp_path / "pool" / "top.qcow2", str(tmp_path / "pool" / "base.img"), "raw")
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "web.qcow2").symlink_to(tmp_path / "pool" / "top.qcow2")
    plan = examine(Disk(str(tmp_path / "fleet" / "web.qcow2")), POLICY)
    assert plan.layers[0].path == str(tmp_path / "pool" / "top.qcow2")


def test_depth_is_counted_in_layers(tmp_path: Path) -> None:
    raw(tmp_path / "0.img")
    overlay(tmp_path / "1.qcow2", "0.img", "raw")
    top = overlay(tmp_path / "2.qcow2", "1.qcow2")
    assert len(examine(Disk(str(top)), DiskPolicy(max_depth=3)).layers) == 3
    assert "more than 2 layers" in str(refusal(top, policy=DiskPolicy(max_depth=2)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.img", b"KDMV", "truncated"),
        ("a.img", b"COWD", "not supported"),
        ("a.img", b"# Disk DescriptorFile\n", "a descriptor without extents"),
        ("a.vmdk", b"# Disk DescriptorFile\n", "a descriptor without extents"),
        ("a.img", b"conectix", "malformed vhd"),
        ("a.img", bytes(1024) + b"conectix" + bytes(504), "malformed vhd"),
        ("a.img", b"vhdxfile", "truncated"),
        ("a.img", bytes(64) + b"\x7f\x10\xda\xbe", "truncated"),
        ("a.img", b"WithoutFreeSpace", "truncated"),
        ("a.img", b"QED\0", "format qed is not supported"),
        ("a.VMDK", bytes(512), "named .vmdk but has no vmdk header"),
        ("a.ova", bytes(512), "named .ova but has no ova header"),
        ("a.raw", b"KDMV", "named .raw but begins with a vmdk header"),
        ("a.vhd", b"vhdxfile", "named .vhd but begins with a vhdx header"),
        ("a.qcow2", bytes(512), "named .qcow2 but has no qcow2 header"),
        ("a.raw", b"QFI\xfb" + bytes(508), "named .raw but begins with a qcow2 header"),
        ("a.img", b"QFI\xfb\0\0\0\1" + bytes(504), "qcow version 1 is not supported"),
        ("a.img", b"QFI\xfb\0\0\0\3" + bytes(504), "malformed qcow2"),
    ],
)
def test_what_is_neither_raw_nor_a_sound_image_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in str(refusal(tmp_path / name))


def test_iso_images_are_raw_disks(tmp_path: Path) -> None:
    (tmp_path / "a.iso").write_bytes(bytes(32769) + b"CD001" + bytes(2048))
    assert examine(Disk(str(tmp_path / "a.iso")), POLICY).layers[0].format == "raw"


def test_a_stated_format_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.vmdk").write_bytes(b"KDMV" + bytes(508))
    assert examine(Disk(str(tmp_path / "a.vmdk"), "raw"), POLICY).layers[0].format == "raw"
    assert "no qcow2 header" in str(refusal(raw(tmp_path / "a.img"), "qcow2"))
    assert "no header and no descriptor" in str(refusal(tmp_path / "a.img", "vmdk"))
    assert "format qed is not supported" in str(refusal(tmp_path / "a.vmdk", "qed"))


@pytest.mark.parametrize(("method", "name"), [(1, "AES, which"), (7, "method 7)")])
def test_encryption_is_refused_in_clear_words(tmp_path: Path, method: int, name: str) -> None:
    path = thin_qcow2(tmp_path / "a.qcow2")
    with path.open("r+b") as stream:
        stream.seek(35)
        stream.write(bytes([method]))
    assert f"encrypted ({name}" in str(refusal(path))


def test_an_external_data_file_is_refused_in_clear_words(tmp_path: Path) -> None:
    data = tmp_path / "data.bin"
    path = thin_qcow2(tmp_path / "a.qcow2", "-o", f"data_file={data}", size="1M")
    assert "external file" in str(refusal(path))


def test_unknown_features_are_refused(tmp_path: Path) -> None:
    path = thin_qcow2(tmp_path / "a.qcow2")
    with path.open("r+b") as stream:
        stream.seek(72)
        stream.write(b"\x80")
    assert "unknown qcow2 features" in str(refusal(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot be opened: No such file" in str(refusal(tmp_path / "none.img"))


def test_a_plan_survives_pickling(tmp_path: Path) -> None:
    plan = examine(Disk(str(full_qcow2(tmp_path / "a.qcow2"))), POLICY)
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own bytes


def test_examining_changes_no_byte_and_no_time(tmp_path: Path) -> None:
    path = full_qcow2(tmp_path / "a.qcow2")
    before = (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
    examine(Disk(str(path)), POLICY)
    assert (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) == before


def test_identity_follows_each_layers_content_and_nothing_else(tmp_path: Path) -> None:
    base = raw(tmp_path / "base.img")
    top = overlay(tmp_path / "top.qcow2", "base.img", "raw")
    first = examine(Disk(str(top)), POLICY).identity
    assert first is not None
    assert examine(Disk(str(top), "qcow2"), POLICY).identity == first
    base.write_bytes(base.read_bytes())
    assert examine(Disk(str(top)), POLICY).identity != first


class TestOpenLayer:
    def test_gives_a_descriptor_to_read_alone(self, tmp_path: Path) -> None:
        path = raw(tmp_path / "a.img")
        fd = open_layer(examine(Disk(str(path)), POLICY).layers[0])
        assert os.pread(fd, 16, 0) == path.read_bytes()[:16]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)
        assert not os.get_inheritable(fd)
        os.close(fd)

    @pytest.mark.parametrize(
        "change", ["touched", "rewritten", "grown", "replaced", "linked", "gone"]
    )
    def test_refuses_what_is_not_the_same_file(self, tmp_path: Path, change: str) -> None:
        path = raw(tmp_path / "a.img")
        (layer,) = examine(Disk(str(path)), POLICY).layers
        other = tmp_path / "other.img"
        if change == "touched":
            os.utime(path, ns=(0, layer.mtime_ns + 1))
        elif change == "rewritten":
            path.write_bytes(bytes(layer.size))
            os.utime(path, ns=(0, layer.mtime_ns))
        elif change == "grown":
            os.truncate(path, layer.size + 1)
            os.utime(path, ns=(0, layer.mtime_ns))
        elif change == "replaced":
            other.write_bytes(path.read_bytes())
            os.utime(other, ns=(0, layer.mtime_ns))
            other.rename(path)
        else:
            path.rename(other)
            if change == "linked":
                path.symlink_to(other)
        with pytest.raises(PreflightError):
            open_layer(layer)

    def test_of_a_live_disk_asks_only_for_the_same_file(self, tmp_path: Path) -> None:
        path = raw(tmp_path / "a.img")
        (layer,) = examine(Disk(str(path)), POLICY).layers
        os.truncate(path, layer.size + 512)
        os.close(open_layer(layer, live=True))
        with pytest.raises(PreflightError, match="changed while being scanned"):
            open_layer(layer)


class TestInUse:
    @pytest.fixture
    def guest(self, tmp_path: Path) -> Iterator[Path]:
        """An image that a QEMU process has open for writing."""
        raw(tmp_path / "base.img")
        path = overlay(tmp_path / "top.qcow2", "base.img", "raw")
        with subprocess.Popen(
            ["qemu-io", "-f", "qcow2", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"write 0 512\n")
            process.stdin.flush()
            assert process.stdout.readline()
            yield path
            process.stdin.close()
            process.stdout.read()

    def test_is_refused_with_a_hint(self, guest: Path) -> None:
        error = refusal(guest)
        assert "in use by a running guest" in str(error)
        assert "--live" in error.hint

    def test_is_read_with_live_and_said_so(self, guest: Path) -> None:
        plan = examine(Disk(str(guest)), DiskPolicy(live=True))
        assert plan.in_use
        assert plan.identity is None

    def test_does_not_extend_to_a_backing_file_that_is_only_read(self, guest: Path) -> None:
        plan = examine(Disk(str(guest.parent / "base.img")), POLICY)
        assert not plan.in_use


def test_a_read_only_scan_by_another_qemu_is_no_use(tmp_path: Path) -> None:
    path = full_qcow2(tmp_path / "a.qcow2")
    argv = ["qemu-io", "-r", "-f", "qcow2", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"read 0 512\n")
        process.stdin.flush()
        assert process.stdout.readline()
        assert not examine(Disk(str(path)), POLICY).in_use
        process.stdin.close()
        process.stdout.read()


class TestVmwareLocks:
    def test_say_that_a_disk_is_in_use(self, tmp_path: Path) -> None:
        path = raw(tmp_path / "a.img")
        (tmp_path / "a.img.lck").mkdir()
        assert not examine(Disk(str(path)), POLICY).in_use
        (tmp_path / "a.img.lck" / "M12345.lck").touch()
        assert "in use" in str(refusal(path))
        assert examine(Disk(str(path)), DiskPolicy(live=True)).in_use


class TestBlockDevices:
    @pytest.fixture(params=[512, 4096])
    def device(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
        """A loop device, where this host lets us make one."""
        sector = ["--sector-size", str(request.param)]
        argv = ["losetup", "--find", "--show", *sector, str(raw(tmp_path / "disk.img"))]
        try:
            made = subprocess.run(argv, capture_output=True, text=True, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            pytest.skip("no loop device can be made here")
        device = Path(made.stdout.strip())
        yield device
        subprocess.run(["losetup", "--detach", str(device)], check=True)

    def test_are_raw_disks_whose_content_cannot_be_told_apart(self, device: Path) -> None:
        plan = examine(Disk(str(device)), POLICY)
        assert (plan.layers[0].format, plan.virtual_size) == ("raw", 3 << 20)
        assert plan.identity is None
        os.close(open_layer(plan.layers[0]))

    def test_have_the_sectors_that_this_host_sees(self, device: Path) -> None:
        size = int(Path(f"/sys/block/{device.name}/queue/logical_block_size").read_text())
        assert examine(Disk(str(device)), POLICY).sector_size == size

    def test_held_by_somebody_are_in_use(self, device: Path) -> None:
        holder = os.open(device, os.O_RDONLY | os.O_EXCL)  # as a mount or volume group does
        assert "in use" in str(refusal(device))
        os.close(holder)

    def test_are_no_backing_files(self, device: Path, tmp_path: Path) -> None:
        top = overlay(tmp_path / "top.qcow2", str(device), "raw")
        policy = DiskPolicy(allowed_directories=("/dev",))
        assert "is a backing file but not a regular file" in str(refusal(top, policy=policy))


class TestQemuImg:
    def test_never_sees_a_file_name(self, tmp_path: Path) -> None:
        thin_qcow2(tmp_path / "a.qcow2")
        command = info_command(7, "qcow2")
        assert command[-1] == "/proc/self/fd/7"
        assert not any("a.qcow2" in argument for argument in command)

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o600, 0o400])
    def test_reads_files_whatever_their_mode(self, tmp_path: Path, mode: int) -> None:
        path = full_qcow2(tmp_path / "a.qcow2")
        path.chmod(mode)
        assert examine(Disk(str(path)), POLICY).virtual_size == 3 << 20

    def test_runs_as_the_files_owner_only_where_nobody_else_can_read_it(
        self, tmp_path: Path
    ) -> None:
        path = thin_qcow2(tmp_path / "a.qcow2")
        owner, group = path.stat().st_uid, path.stat().st_gid
        for mode, expected in ((0o644, (None, None)), (0o640, (None, group))):
            path.chmod(mode)
            assert readers(path.stat()) == expected
        path.chmod(0o600)
        assert readers(path.stat()) == (owner, group)

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("sleep 60", "took more than 0.5 seconds"),
            ("exec >&- 2>&-; sleep 60", "took more than 0.5 seconds"),
            ("sleep 60 & exit", "took more than 0.5 seconds"),
            ("yes", "printed more than 1000 bytes"),
            ("echo no >&2; exit 3", "refuses it: no"),
            ("kill -9 $$", "killed by signal 9"),
        ],
    )
    def test_is_ended_at_its_limits(
        self, script: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A shell in its place starts programs, which confinement allows to none.
        bare = LayersInUse(
            namespaces=None, exact_root=False, user="same", seccomp=False, landlock=0
        )
        monkeypatch.setattr(layers, "current", lambda: bare)
        limits = QemuImgLimits(wall_seconds=0.5, output_bytes=1000)
        begun = time.monotonic()
        with pytest.raises(PreflightError, match=message):
            run_limited(["sh", "-c", script], limits, 0)
        assert time.monotonic() - begun < 10

    def test_writes_no_file(self, tmp_path: Path) -> None:
        path = thin_qcow2(tmp_path / "a.qcow2")
        before = path.read_bytes()
        path.chmod(0o666)
        refusal = r"Permission denied|not permitted|No such"
        with path.open("r+b") as stream:
            for place in (path, f"/proc/self/fd/{stream.fileno()}", "/tmp/x", "/proc/self/comm"):
                with pytest.raises(PreflightError, match=refusal):
                    run_limited(["sh", "-c", f"echo x > {place}"], QemuImgLimits(), stream.fileno())
        assert path.read_bytes() == before

    def test_sees_no_file_but_its_own(self, tmp_path: Path) -> None:
        path = thin_qcow2(tmp_path / "a.qcow2")
        with path.open("rb") as stream:
            seen = run_limited(
                ["sh", "-c", "echo /* /etc/* /usr/*"], QemuImgLimits(), stream.fileno()
            )
        assert b"/home" not in seen
        assert b"passwd" not in seen
        assert b"/usr/share" not in seen


def test_files_that_an_image_names_are_read_from_sound_headers_alone(tmp_path: Path) -> None:
    raw(tmp_path / "base.img")
    top = overlay(tmp_path / "top.qcow2", "base.img", "raw")
    assert referred_files(Disk(str(top))) == (str(tmp_path / "base.img"),)
    assert referred_files(Disk(str(top), "raw")) == ()
    assert referred_files(Disk(str(tmp_path / "base.img"))) == ()
    assert referred_files(Disk(str(tmp_path / "none.img"))) == ()
    os.truncate(top, 100_000)
    assert referred_files(Disk(str(top))) == ()
