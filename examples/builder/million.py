"""An image of very many empty files, made on the host: in an emulated VM it would take minutes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from examples.builder import commands

_FILES_PER_DIRECTORY = 100  # mke2fs searches a directory from its start for every file it adds
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
_SECONDS = 900


def write(target: Path, tree: Path, size: str, files: int) -> None:
    """Write a raw ext4 image with the rpm tree and so many files in /srv, without needing root.

    Args:
        target: the image.
        tree: the rpm tree.
        size: of the image, as mke2fs takes it.
        files: how many, a multiple of 100.

    Raises:
        CommandError: tar or mke2fs failed.
    """
    memory = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-", dir=memory) as name:
        command = ["tar", "-C", name, "--strip-components=2", "--no-same-owner", "-xf", str(tree)]
        commands.run("unpacking a tree", [*command, "./now"], seconds=_SECONDS)
        (Path(name) / "etc/shadow").chmod(0o600)  # or only root could copy it
        (Path(name) / "etc/fstab").write_text("LABEL=million / ext4 defaults 0 1\n")
        _make_files(Path(name) / "srv", files)
        command = ["mke2fs", "-q", "-t", "ext4", "-L", "million", "-O", "^has_journal"]
        command += ["-N", str(files + files // 10), "-E", "root_owner=0:0", "-d", name]
        commands.run("writing an image", [*command, str(target), size], seconds=_SECONDS)


def _make_files(top: Path, files: int) -> None:
    top.mkdir()
    for number in range(files // _FILES_PER_DIRECTORY):
        folder = top / str(number)
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        for index in range(_FILES_PER_DIRECTORY):
            os.mknod(f"file-{index}", 0o100644, dir_fd=descriptor)
        os.close(descriptor)
