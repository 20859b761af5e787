"""Disk images that Windows made, from the tests of Debian's source packages.

Nothing here writes dynamic disks or BitLocker's metadata; the tools that read them are tested on
images of genuine systems, which their source packages hold.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from examples.builder import commands
from fleetscan.appliance.ground.errors import CommandError

_SECONDS = 600
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class _Source:
    """A source package, and the archive of images in it."""

    package: str
    archive: str
    folder: str


_SOURCES = (
    _Source("cryptsetup", "*/tests/bitlk-images.tar.xz", "bitlk-images"),
    _Source("libldm", "*/test/data/ldm-data.tar.xz", "ldm"),
)


def images(target: Path) -> None:
    """A tar of images: ``bitlk-images`` of BitLocker volumes, ``ldm`` of dynamic disks.

    Args:
        target: the tar file to write.

    Raises:
        CommandError: they cannot be downloaded; says what is needed.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as name:
        work = Path(name)
        (work / "images/ldm").mkdir(parents=True)
        options = _apt_options(work)
        _run(["apt-get", "-qq", *options, "update"], work)
        for source in _SOURCES:
            _run(["apt-get", "-qq", *options, "source", "--tar-only", source.package], work)
            (whole,) = work.glob(f"{source.package}_*.orig.tar.*")
            _run(["tar", "-xf", str(whole), "--wildcards", source.archive], work)
            (archive,) = work.glob(source.archive)
            inner = work / "images" if source.folder == "bitlk-images" else work / "images/ldm"
            _run(["tar", "-xSf", str(archive), "--no-same-owner", "-C", str(inner)], work)
        _run(["tar", "-cSf", str(target), "-C", str(work / "images"), "."], work)


def _apt_options(work: Path) -> list[str]:
    """Options by which apt looks for sources, the host's own lists left as they are."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    mirror, suite = _origin()
    line = f"deb-src [signed-by={_KEYRING}] {mirror} {suite} main\n"
    (work / "sources.list").write_text(line)
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",  # who else could not write there
        "Acquire::Retries": 5,
        "Acquire::Languages": "none",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _origin() -> tuple[str, str]:
    """Mirror and suite of the Debian that this host has, or of FLEETSCAN_DEBIAN_MIRROR."""
    if mirror := os.environ.get("FLEETSCAN_DEBIAN_MIRROR"):
        return mirror, "stable"
    wanted = "$(REPO_URI) $(CODENAME) $(LABEL) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    for line in _run(command, Path("/")).splitlines():
        words = line.split()
        if words[2:] == ["Debian", "main"] and words[1].isalpha():
            return words[0], words[1]
    raise CommandError(
        "looking for a Debian mirror",
        command,
        0,
        hint="name one that has source packages in FLEETSCAN_DEBIAN_MIRROR",
    )


def _run(command: list[str], work: Path) -> str:
    try:
        return commands.run(
            "getting disk images out of source packages",
            command,
            seconds=_SECONDS,
            directory=work,
        )
    except CommandError as error:
        error.hint = error.hint or (
            "a Debian mirror with source packages must be reachable; "
            "FLEETSCAN_DEBIAN_MIRROR names another one"
        )
        raise
