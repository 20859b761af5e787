"""Images rewritten after preflight found them sound, their times set back: a host file is named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance import qemu_args
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, FleetscanError, PreflightError
from fleetscan.appliance.monitor import Monitor
from fleetscan.appliance.plugging import PluggedLayer, Plugger
from fleetscan.appliance.qemu_args import ROOT_SET, OpenLayer
from fleetscan.scanner import isolation
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.preflight import DiskPlan, DiskPolicy, examine, layer, qemu_img
from fleetscan.scanner.preflight.opening import open_disk
from fleetscan.scanner.sources import Machine
from fleetscan.scanner.store.staging import MemorySink

SIZE = 4 << 20
BARE = ("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nic", "none", "-display", "none")


def soon() -> Deadline:
    return Deadline(30, "the test's QEMU")


@contextlib.contextmanager
def qemu(folder: Path) -> Iterator[Monitor]:
    """A QEMU that has a root node and a place for disks as an appliance has, and never runs."""
    ours, peer = socket.socketpair()
    (folder / "root").write_bytes(bytes(512))
    root = os.open(folder / "root", os.O_RDONLY)
    (node,) = qemu_args.disk_nodes("root", [OpenLayer("raw", ROOT_SET)])
    argv = [*BARE, "-S", "-m", "16M", "-machine", qemu_args.MACHINE_TYPE]
    argv += ["-add-fd", f"fd={root},set={ROOT_SET}", "-blockdev", json.dumps(node)]
    argv += ["-device", "virtio-scsi-pci,id=scsi0"]
    argv += ["-chardev", f"socket,id=qmp,fd={peer.fileno()}", "-mon", "chardev=qmp,mode=control"]
    with subprocess.Popen(argv, pass_fds=(root, peer.fileno())) as process:
        os.close(root)
        peer.close()
        monitor = Monitor(ours, soon())
        try:
            yield monitor
        finally:
            monitor.close()
            process.kill()


def plug(plan: DiskPlan, monitor: Monitor, then: Callable[[], None] = lambda: None) -> None:
    """Give QEMU a disk, something happening at the last moment."""
    with contextlib.ExitStack() as stack:
        chain = open_disk(plan, stack)
        then()
        Plugger(monitor).plug(0, chain, soon(), plan.sector_size)


def files_open(monitor: Monitor) -> set[str]:
    found = monitor.execute("query-named-block-nodes", soon(), {"flat": True})
    return {node["file"] for node in found}


def disks_plugged(monitor: Monitor) -> list[Any]:
    found: list[Any] = monitor.execute("query-block", soon())
    return found


def made(path: Path, driver: str, *options: str) -> bytes:
    argv = ["qemu-img", "create", "-q", "-f", driver, *options, str(path), str(SIZE)]
    subprocess.run(argv, check=True)
    return path.read_bytes()


def rewrite(path: Path, content: bytes) -> None:
    """Write over a file in place, and set back its time and its length."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(content)
    os.truncate(path, before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def naming_data_file(folder: Path, name: str) -> bytes:
    """A qcow2 image whose header names an external data file, which QEMU opens."""
    placeholder = str(folder / "data").ljust(len(name), "~")
    content = made(folder / "evil", "qcow2", "-o", f"data_file={placeholder},data_file_raw=on")
    Path(placeholder).unlink()
    head, _, tail = content.partition(placeholder.encode())
    length = len(placeholder).to_bytes(4)
    assert head.endswith(length)
    padding = bytes(len(placeholder) - len(name))
    return head.removesuffix(length) + len(name).to_bytes(4) + name.encode() + padding + tail


def naming_extent(name: str) -> bytes:
    """A vmdk descriptor, which has QEMU open the file that it names."""
    lines = ["# Disk DescriptorFile", "version=1", "CID=00000001", "parentCID=ffffffff"]
    lines += ['createType="monolithicFlat"', f'RW {SIZE // 512} FLAT "{name}" 0', ""]
    return "\n".join(lines).encode().ljust(1 << 20, b"\0")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"a host's file".ljust(SIZE))
    return path


class TestAnImageRewrittenAtTheLastMoment:
    def refused(self, path: Path, evil: bytes, folder: Path, rewritten: Path | None = None) -> str:
        """What is said of a disk that is rewritten between its opening and QEMU's."""
        plan = examine(Disk(str(path)), DiskPolicy())
        with qemu(folder) as monitor:
            with pytest.raises(ApplianceError) as caught:
                plug(plan, monitor, lambda: rewrite(rewritten or path, evil))
            assert disks_plugged(monitor) == []
        return str(caught.value)

    def test_gives_no_disk_where_it_names_a_data_file(self, tmp_path: Path, secret: Path) -> None:
        evil = naming_data_file(tmp_path, str(secret))
        made(tmp_path / "a.qcow2", "qcow2")
        assert f"had QEMU open {str(secret)!r}" in self.refused(
            tmp_path / "a.qcow2", evil, tmp_path
        )

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (f"/dev/fdset/{ROOT_SET}", "had QEMU open '/dev/fdset/1'"),
            ("/dev/fdset/10", "had QEMU open '/dev/fdset/10'"),
            (f'json:{{"driver":"null-co","size":{SIZE}}}', "No such file|had QEMU open 'null-co'"),
            ('json:{"driver":"raw","file":"root"}', "No such file|had QEMU open 'raw'"),
        ],
    )
    def test_gives_no_disk_where_it_names_what_qemu_has(
        self, tmp_path: Path, name: str, message: str
    ) -> None:
        made(tmp_path / "a.qcow2", "qcow2")
        said = self.refused(tmp_path / "a.qcow2", naming_data_file(tmp_path, name), tmp_path)
        assert re.search(message, said)

    def test_gives_no_disk_where_a_backing_file_names_it(
        self, tmp_path: Path, secret: Path
    ) -> None:
        evil, base = naming_data_file(tmp_path, str(secret)), tmp_path / "base.qcow2"
        made(base, "qcow2")
        made(tmp_path / "top.qcow2", "qcow2", "-b", base.name, "-F", "qcow2")
        assert str(secret) in self.refused(tmp_path / "top.qcow2", evil, tmp_path, base)

    def test_gives_no_disk_where_it_becomes_a_descriptor(
        self, tmp_path: Path, secret: Path
    ) -> None:
        made(tmp_path / "a.vmdk", "vmdk")
        with (tmp_path / "a.vmdk").open("r+b") as stream:
            stream.truncate(1 << 20)
        evil = naming_extent(str(secret))
        assert str(secret) in self.refused(tmp_path / "a.vmdk", evil, tmp_path)

    @pytest.mark.vm
    def test_is_a_machine_that_failed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The appliance's own root, as a confined QEMU can open no path of the host's.
        evil = naming_data_file(tmp_path, f"/dev/fdset/{ROOT_SET}")
        path = tmp_path / "a.qcow2"
        made(path, "qcow2")

        def opened(*arguments: Any, **options: Any) -> list[PluggedLayer]:
            chain = open_disk(*arguments, **options)
            rewrite(path, evil)
            return chain

        monkeypatch.setattr(isolation, "open_disk", opened)
        sink = MemorySink()
        machine = Machine("m", (Disk(str(path)),), "test")
        assert inspect_machine(machine, ScanOptions(), sink).outcome == "failed"
        (row,) = sink.table("machines").to_pylist()
        assert (row["error_kind"], row["stage"]) == ("ForeignFileError", "appliance")


def test_an_image_rewritten_before_it_is_opened_is_refused(tmp_path: Path, secret: Path) -> None:
    evil, path = naming_data_file(tmp_path, str(secret)), tmp_path / "a.qcow2"
    made(path, "qcow2")
    plan = examine(Disk(str(path)), DiskPolicy())
    rewrite(path, evil)
    with contextlib.ExitStack() as stack, pytest.raises(PreflightError, match="changed while"):
        open_disk(plan, stack)


@pytest.mark.parametrize("driver", ["qcow2", "vmdk"])
def test_an_image_rewritten_before_qemu_img_reads_it_is_refused(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    evil = naming_data_file(tmp_path, str(secret))
    if driver == "vmdk":
        evil = naming_extent(str(secret))
    path = tmp_path / f"a.{driver}"
    made(path, driver)
    os.truncate(path, 1 << 20)
    ask = qemu_img.image_info

    def rewritten(*arguments: Any) -> dict[str, Any]:
        rewrite(path, evil)
        return ask(*arguments)

    monkeypatch.setattr(layer, "image_info", rewritten)
    with pytest.raises(PreflightError, match=r"external data file is|extent is|refuses it"):
        examine(Disk(str(path)), DiskPolicy())


def test_however_an_image_is_rewritten_meanwhile_qemu_has_our_files_alone(
    tmp_path: Path, secret: Path
) -> None:
    path = tmp_path / "a.qcow2"
    evil = naming_data_file(tmp_path, str(secret))
    sound = made(path, "qcow2")
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            for content in (evil, sound):
                rewrite(path, content)
                time.sleep(0.004)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        for _ in range(15):
            with qemu(tmp_path) as monitor, contextlib.suppress(FleetscanError):
                plug(examine(Disk(str(path)), DiskPolicy(live=True)), monitor)
                assert str(secret) not in files_open(monitor)
    finally:
        over.set()
        attacker.join()


def test_a_disk_that_nobody_rewrites_is_plugged(tmp_path: Path) -> None:
    made(tmp_path / "a.qcow2", "qcow2")
    with qemu(tmp_path) as monitor:
        plug(examine(Disk(str(tmp_path / "a.qcow2")), DiskPolicy()), monitor)
        assert len(disks_plugged(monitor)) == 1
