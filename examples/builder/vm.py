"""The builder's VM: the appliance's kernel and root with our own first process and writable disks.

The scanner's agent never gets a mode that writes; what makes images is this, and only this.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.builder import commands
from fleetscan.appliance import accelerator, initrd
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import CommandError
from fleetscan.appliance.privileges import bound_to_us

HERE = Path(__file__).resolve().parent
_REPORT_BYTES = 512 << 20  # sparse; holds the names of a million files


@dataclass(frozen=True)
class OutputDisk:
    """An empty (or overlaid) disk that a script fills.

    Attributes:
        path: the image file, made already.
        format: ``raw`` or ``qcow2``.
    """

    path: Path
    format: str


def run(
    appliance: Appliance,
    scripts: Mapping[str, bytes],
    disks: Sequence[OutputDisk],
    report: Path,
    *,
    tree: Path | None = None,
    seconds: float = 1800,
) -> None:
    """Boot, run ``image.sh``, and leave what it expects of its image in a folder.

    Args:
        appliance: whose kernel and tools are used.
        scripts: file name to content; ``image.sh`` is started.
        disks: what it fills, in order: $DISK0, $DISK1...
        report: folder for the files that the script leaves in $EXPECTED.
        tree: a tar, readable by the script as $TREE.
        seconds: the deadline.

    Raises:
        CommandError: the script failed or did not finish; carries the end of the console's text.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as name:
        work = Path(name)
        (work / "job.tar").write_bytes(_tar(scripts))
        (work / "initrd").write_bytes(_initrd(appliance))
        with (work / "report.tar").open("wb") as stream:
            stream.truncate(_REPORT_BYTES)
        command = _command(appliance, work, disks, tree)
        console = commands.run("building an image", bound_to_us(command), seconds=seconds)
        if "builder: done" not in console:
            raise CommandError("building an image", command, 1, stdout=console[-6000:])
        _unpack(work / "report.tar", report)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(archive: Path, target: Path) -> None:
    """Put a tar's files, which lie at its top, into a folder."""
    with tarfile.open(archive) as files:
        for member in files.getmembers():
            if content := files.extractfile(member):
                (target / Path(member.name).name).write_bytes(content.read())


def _initrd(appliance: Appliance) -> bytes:
    first_stage = appliance.initrd.read_bytes()
    return first_stage + initrd.pack({"agent/start.py": (HERE / "guest.py").read_bytes()})


def _command(
    appliance: Appliance, work: Path, disks: Sequence[OutputDisk], tree: Path | None
) -> list[str]:
    chosen = accelerator.choose(appliance)
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-machine", f"q35,accel={chosen}", "-m", "1024M", "-no-reboot"]
    command += ["-cpu", "host" if chosen == "kvm" else "max"]
    command += ["-kernel", str(appliance.kernel), "-initrd", str(work / "initrd")]
    command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    command += ["-serial", "stdio", "-device", "virtio-rng-pci"]
    # The first stage takes the first disk for its root.
    command += _disk("root", appliance.root, "raw", read_only=True)
    command += _disk("job", work / "job.tar", "raw", read_only=True)
    if tree is not None:
        command += _disk("tree", tree, "raw", read_only=True)
    for index, disk in enumerate(disks):
        command += _disk(f"disk{index}", disk.path, disk.format)
    return command + _disk("report", work / "report.tar", "raw")


def _disk(serial: str, path: Path, image_format: str, *, read_only: bool = False) -> list[str]:
    escaped = str(path).replace(",", ",,")
    drive = f"id={serial},if=none,format={image_format},file={escaped},cache=unsafe"
    drive += ",readonly=on,file.locking=off" if read_only else ",discard=unmap,detect-zeroes=unmap"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
