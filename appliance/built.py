"""The appliance as it is kept: where it is, what is in it, and whether it is whole.

An appliance is a directory of the cache with four files: ``vmlinuz``, ``initrd``,
``root.erofs`` and ``manifest.json``, which is written last and names the others' checksums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleetscan.appliance import initrd
from fleetscan.appliance.cache import cache_directory, trusted
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust
from fleetscan.appliance.verified import open_verified

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
"""Debian release the appliance is made of, unless FLEETSCAN_SUITE names another."""

FILES = ("vmlinuz", "initrd", "root.erofs")
"""An appliance's files, its manifest aside."""

LIBRARY = "marvin32.c"
"""Which of the agent's C sources is a library by itself; the others are one program."""

_BUILD_AGAIN = "run: fleetscan appliance build --force"

EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/bash-completion/*",
    "/boot/System.map*",
)
"""Data that no inspection needs."""


@dataclass(frozen=True)
class Appliance:
    """A built appliance.

    Attributes:
        directory: where its files are.
        inputs: content address of what it was built from.
        content: content address of its files: equal on every host that holds the same bytes.
        kernel_release: what uname -r says in it.
        suite: Debian release.
        versions: Debian package to version.
        sha256: checksum of each of its files, in hexadecimal digits.
    """

    directory: Path
    inputs: str
    content: str
    kernel_release: str
    suite: str
    versions: dict[str, str] = field(hash=False)
    sha256: dict[str, str] = field(hash=False, default_factory=dict)

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The first stage's RAM disk, without the agent."""
        return self.directory / "initrd"

    @property
    def root(self) -> Path:
        """The root filesystem image."""
        return self.directory / "root.erofs"

    def opened(self, stack: contextlib.ExitStack, path: Path, *, anew: bool = False) -> int:
        """A descriptor of one of its files, whose bytes are those that were built.

        Args:
            stack: closes it.
            path: the file.
            anew: read all of it although it has not changed since that was last done.

        Raises:
            ApplianceError: the file is damaged, gone, or others could have written it.
        """
        try:
            with trusted(self.directory):
                return open_verified(stack, path, self.sha256[path.name], anew=anew)
        except (OSError, KeyError) as error:
            raise ApplianceError(
                f"the appliance's {path.name} cannot be read: {error}", hint=_BUILD_AGAIN
            ) from error


def verify(appliance: Appliance) -> None:
    """Read all of an appliance's files and compare them with their checksums.

    Raises:
        ApplianceError: one is damaged, gone, or others could have written it.
    """
    with contextlib.ExitStack() as stack:
        for path in (appliance.kernel, appliance.initrd, appliance.root):
            appliance.opened(stack, path, anew=True)


def suite() -> str:
    """The Debian release that appliances of this process are made of."""
    return os.environ.get("FLEETSCAN_SUITE", SUITE)


def packages() -> list[str]:
    """The Debian packages that the appliance is made of, besides the essential ones."""
    lines = (HERE / "packages.list").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def inputs_id() -> str:
    """Content address of everything that decides how the appliance is built: 12 hex digits."""
    digest = hashlib.sha256()
    recipe = [suite(), *packages(), *EXCLUDED]
    digest.update("\n".join(recipe).encode())
    scripts = (HERE / name for name in ("customize.sh", "init.sh", "probe.sh"))
    for path in (*scripts, *initrd.native_sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def directory() -> Path:
    """Where this version of fleetscan looks for its appliance, built or not."""
    return cache_directory() / "appliance" / f"{suite()}-{inputs_id()}"


def find() -> Appliance:
    """The appliance that is ready for use.

    Raises:
        ApplianceError: there is none yet, it is damaged, or others could have written it.
    """
    place = directory()
    try:
        with trusted(place), (place / "manifest.json").open("rb") as stream:
            trust.check_file(place / "manifest.json", stream.fileno())
            appliance = from_manifest(place, json.load(stream))
    except FileNotFoundError:
        raise ApplianceError(
            "the appliance has not been built on this host",
            hint="run: fleetscan appliance build (or import one that another host exported)",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ApplianceError(
            f"the appliance in {place} has no readable manifest: {error}", hint=_BUILD_AGAIN
        ) from error
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise ApplianceError(
            f"the appliance in {place} lacks {', '.join(missing)}", hint=_BUILD_AGAIN
        )
    return appliance


def from_manifest(place: Path, manifest: dict[str, object]) -> Appliance:
    """The appliance that a manifest describes.

    Raises:
        ValueError, KeyError, TypeError: it describes none.
    """
    known = {field.name for field in dataclasses.fields(Appliance)} - {"directory"}
    values = {name: manifest[name] for name in known}
    appliance = Appliance(directory=place, **values)  # type: ignore[arg-type]
    if appliance.content != content_of(appliance.sha256):
        raise ValueError("its content address is not that of its checksums")
    return appliance


def content_of(sums: Mapping[str, str]) -> str:
    """Content address of files with these checksums: 12 hex digits."""
    return hashlib.sha256("".join(sums[name] for name in FILES).encode()).hexdigest()[:12]


def checksums(place: Path) -> dict[str, str]:
    """Checksum of each of the files in an appliance's directory, in hexadecimal digits."""
    return {name: _sha256(place / name) for name in FILES}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
