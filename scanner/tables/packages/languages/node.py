"""Node.js packages: package.json below node_modules.

Format: docs.npmjs.com, package.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

LIMIT = 1 << 20
"""Largest package.json that is read, in bytes; ordinary ones take 2 KiB."""

_PLACES = ("/usr/lib/node_modules", "/usr/local/lib/node_modules", "/usr/share/nodejs")
_DEPTH = 16  # packages within packages; npm itself has three
_MODULES = "node_modules"


def places(root: Root) -> Iterator[str]:
    """Directories of globally installed packages, and of those that they bring along."""
    for top in filter(root.is_dir, _PLACES):
        yield from _packages(root, top, _DEPTH)


def _packages(root: Root, directory: str, depth: int) -> Iterator[str]:
    for path in root.glob(directory):
        if path.rpartition("/")[2].startswith("@"):
            if depth:
                yield from _packages(root, path, depth - 1)
        elif root.is_dir(path) and not root.is_link(path):
            yield path
            if depth and root.is_dir(f"{path}/{_MODULES}"):
                yield from _packages(root, f"{path}/{_MODULES}", depth - 1)


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """The description of a package, in a directory of the package's name."""
    if "package.json" in names and is_package(directory):
        yield f"{directory}/package.json"


def is_package(directory: str) -> bool:
    """Whether a directory stands where packages are, a scope's directory between or not."""
    parent, _, _ = directory.rpartition("/")
    if parent.rpartition("/")[2].startswith("@"):
        parent = parent.rpartition("/")[0]
    return parent.endswith(f"/{_MODULES}") or parent in _PLACES


def read(root: Root, path: str) -> Iterator[Package]:
    """The package that a package.json describes; none without a name and a version.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    described = json.loads(root.read_bytes(path, LIMIT))
    if isinstance(described, dict) and (found := from_description(described, path)):
        yield found


def from_description(described: dict[str, object], path: str) -> Package | None:
    """The row for a package.json; None without a name and a version."""
    name, version = _text(described, "name"), _text(described, "version")
    if not name or not version:
        return None
    scope, _, short = name.rpartition("/")
    return Package(
        manager="npm",
        name=name,
        version=version,
        purl=purl("npm", short, version, scope),
        upstream_version=version,
        vendor=_text(described, "author", "name") or None,
        license=_text(described, "license", "type") or None,
        summary=_text(described, "description") or None,
        path=path,
    )


def _text(described: dict[str, object], key: str, inner: str = "") -> str | None:
    """Text under a key, or under a key of the object that stands there."""
    value = described.get(key)
    if inner and isinstance(value, dict):
        value = value.get(inner)
    return value if isinstance(value, str) else None
