"""Twenty small machines that mean no harm, each a little different from the others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.disk_images import gpt_disk
from tests.vm.machines import image_of

FOLDER = "honest"
COUNT = 20
_MEBIBYTES = 12


def fleet(source: Path) -> list[str]:
    """Write the machines below a source's folder; returns their ids.

    Raw disks under each suffix that does not state a format, images with tables, overlays with a
    base beside them, and one machine of two disks.
    """
    folder = source / FOLDER
    folder.mkdir(parents=True)
    return sorted(f"{FOLDER}/{_machine(folder, number)}" for number in range(COUNT))


def _machine(folder: Path, number: int) -> str:
    tree = tree_of(folder.parent.parent / "trees" / f"honest{number:02}", number)
    plain = folder.parent.parent / f"plain{number:02}"
    image_of(tree, plain, _MEBIBYTES)
    make = _SHAPES[number % len(_SHAPES)]
    name = make(plain, folder, f"web{number:02}")
    plain.unlink(missing_ok=True)
    return name


def tree_of(top: Path, number: int) -> Path:
    """A tree with a small Debian in it."""
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
        "etc/hostname": f"web{number:02}\n",
        "etc/machine-id": f"{number:032x}\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
        f"user{number}:x:{1000 + number}:1000::/home/user{number}:/bin/bash\n",
        "etc/group": f"root:x:0:\nsudo:x:27:user{number}\n",
        "etc/shadow": f"root:*:19000:0:99999:7:::\nuser{number}:$6$a$b:19000:0:99999:7:::\n",
        "etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n",
        "etc/ssh/sshd_config": f"PermitRootLogin {'no' if number % 3 else 'yes'}\n",
        "etc/crontab": f"{number} 3 * * * root /usr/local/bin/nightly\n",
        "var/lib/dpkg/status": "".join(_package(name, number) for name in _PACKAGES),
        "usr/lib/systemd/system/web.service": "[Unit]\nDescription=Web\n",
        f"home/user{number}/.ssh/authorized_keys": "",
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    (top / "etc/shadow").chmod(0o640)
    return top


_PACKAGES = ("base-files", "bash", "openssh-server", "telnetd", "zlib1g")


def _package(name: str, number: int) -> str:
    return (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Maintainer: Somebody <somebody@example.org>\nVersion: 1.{number}-1\n"
        f"Description: {name}\n\n"
    )


_Shape = Callable[[Path, Path, str], str]


def _raw(suffix: str) -> _Shape:
    def make(plain: Path, folder: Path, name: str) -> str:
        plain.rename(folder / f"{name}{suffix}")
        return f"{name}{suffix}"

    return make


def _partitioned(plain: Path, folder: Path, name: str) -> str:
    return gpt_disk(folder / f"{name}.raw", plain, 512).name


def _qcow2(plain: Path, folder: Path, name: str) -> str:
    _qemu_img("convert", "-O", "qcow2", str(plain), str(folder / f"{name}.qcow2"))
    return f"{name}.qcow2"


def _overlay(plain: Path, folder: Path, name: str) -> str:
    """An overlay in a folder of its own with its base, which is no machine of its own."""
    own = folder / name
    own.mkdir()
    plain.rename(own / "base.raw")
    _qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", f"{own}/disk.qcow2")
    return f"{name}/disk.qcow2"


def _two_disks(plain: Path, folder: Path, name: str) -> str:
    own = folder / name
    own.mkdir()
    plain.rename(own / "disk0.raw")
    with (own / "disk1.raw").open("wb") as stream:
        stream.truncate(1 << 20)
    (own / "machine.yaml").write_text("disks: [disk0.raw, disk1.raw]\n")
    return name


_SHAPES: tuple[_Shape, ...] = (
    _raw(".img"),
    _raw(".raw"),
    _raw(".dd"),
    _raw(".iso"),
    _partitioned,
    _qcow2,
    _overlay,
    _two_disks,
)


def _qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", words[0], "-q", *words[1:]], check=True, timeout=60, env=os.environ)
