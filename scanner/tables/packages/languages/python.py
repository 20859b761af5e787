"""Python distributions: their metadata directories and files.

Format: packaging.python.org, "Core metadata specifications" and "Recording installed projects".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

_BASES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
_FOLDERS = ("site-packages", "dist-packages")
_HEAD = 64 << 10  # bytes; fields come before the description
_FIELD = re.compile(
    r"(?m)^(Name|Version|Summary|License|License-Expression|Author|Author-email):[ \t]*(.*)$"
)


def places(root: Root) -> Iterator[str]:
    """Directories of the system's own interpreters."""
    for base in _BASES:
        if not root.is_link(base):
            for name in root.listdir(base):
                if name.startswith("python"):
                    yield from (f"{base}/{name}/{folder}" for folder in _FOLDERS)


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """Metadata of wheels, of older installers, and of eggs."""
    for name in names:
        if name.endswith(".dist-info"):
            yield f"{directory}/{name}/METADATA"
        elif name.endswith(".egg-info"):
            yield f"{directory}/{name}"
        elif name == "EGG-INFO":
            yield f"{directory}/{name}/PKG-INFO"


def read(root: Root, path: str) -> Iterator[Package]:
    """The package that a metadata file describes.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no name or no version.
    """
    if path.endswith(".egg-info") and root.is_dir(path):
        path += "/PKG-INFO"
    with root.open(path) as stream:
        text = stream.read(_HEAD).decode("utf-8", "surrogateescape")
    yield from_metadata(text, path)


def from_metadata(text: str, path: str) -> Package:
    """The row for a metadata file.

    Raises:
        ValueError: it has no name or no version.
    """
    head = text.replace("\r\n", "\n").partition("\n\n")[0]
    fields = {name: value.strip() for name, value in _FIELD.findall(head)}
    name, version = fields.get("Name"), fields.get("Version")
    if not name or not version:
        raise ValueError("metadata without a name or a version")
    return Package(
        manager="python",
        name=name,
        version=version,
        purl=purl("pypi", name.lower().replace("_", "-"), version),
        upstream_version=version,
        vendor=_known(fields.get("Author") or fields.get("Author-email")) or None,
        license=_known(fields.get("License-Expression") or fields.get("License")) or None,
        summary=_known(fields.get("Summary")) or None,
        path=path,
    )


def _known(value: str | None) -> str | None:
    return None if value == "UNKNOWN" else value  # what setuptools wrote for nothing
