"""Slackware's package records: a file a package, named NAME-VERSION-ARCHITECTURE-BUILD.

Format: pkgtools, installpkg(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.spec import Package

DIRECTORIES = ("/var/lib/pkgtools/packages", "/var/log/packages")
"""Where records are: since 15.0, and before; the older is a link to the newer where both are."""

_HEAD = 16 << 10  # bytes of a record before its list of files
_SIZE = re.compile(r"(?m)^UNCOMPRESSED PACKAGE SIZE: *([0-9]{1,9}(?:\.[0-9]{1,9})?)([KMG]?)")
_SUMMARY = re.compile(r"(?m)^PACKAGE DESCRIPTION:.*\n[^:\n]+: [^(\n]*\((.*)\)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def is_present(root: Root) -> bool:
    """Whether the root has Slackware's records."""
    return _find(root) is not None


def _find(root: Root) -> str | None:
    return next(filter(root.is_dir, DIRECTORIES), None)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    directory = _find(root) or DIRECTORIES[0]
    unsound = []
    for name in root.listdir(directory):
        parts = name.rsplit("-", 3)
        if len(parts) != 4 or not all(parts):
            unsound.append(f"{name}: not a package's name")
            continue
        try:
            modified = root.stat(f"{directory}/{name}").st_mtime_ns
            with root.open(f"{directory}/{name}") as stream:
                head = stream.read(_HEAD).decode("utf-8", "surrogateescape")
        except OSError as error:
            unsound.append(f"{name}: {reason(error)}")
            head, modified = "", None
        at = None if modified is None else schema.microseconds(modified)
        yield from_record(parts, head, distribution, at)
    if unsound:
        problems.note(f"{directory}: {len(unsound)} damaged records, the first: {unsound[0]}")


def from_record(
    parts: list[str], head: str, distribution: Distribution, installed_at: int | None
) -> Package:
    """The row for a record.

    Args:
        parts: name, version, architecture and build, as its file is named.
        head: what the file says before its list of files.
        distribution: what the package was made for.
        installed_at: when the file was written, microseconds.
    """
    name, version, architecture, build = parts
    whole = f"{version}-{build}"
    size, summary = _SIZE.search(head), _SUMMARY.search(head)
    return Package(
        manager="slackware",
        name=name,
        version=whole,
        purl=purl(
            "generic",
            name,
            whole,
            "slackware",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        upstream_version=version,
        release=build or None,
        architecture=architecture or None,
        summary=summary[1] or None if summary else None,
        installed_size=int(float(size[1]) * _UNITS[size[2]]) if size else None,
        installed_at=installed_at,
    )
