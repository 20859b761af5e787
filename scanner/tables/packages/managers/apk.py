"""apk's database: Alpine, and OpenWrt since 25.12.

Format: apk-tools, doc/apk-v2.5.scd (index fields) and its database writer: records of ``X:value``
lines, a blank line after each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages import records
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import number
from fleetscan.scanner.tables.packages.records import Record
from fleetscan.scanner.tables.packages.spec import Package

DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
"""Where it is: apk 2, and apk 3 on a merged /usr."""

_FIELD = re.compile(r"\n([PVAITLom]):(.*)")
_RELEASE = re.compile(r"(.+)-r([0-9]+)")


def is_present(root: Root) -> bool:
    """Whether the root has an apk database."""
    return _find(root) is not None


def _find(root: Root) -> str | None:
    return next(filter(root.is_file, DATABASES), None)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package.

    Args:
        root: a root for which :func:`is_present` holds; its database may be damaged.
        distribution: what the packages were made for.
        problems: gets a message when rows may be missing.
    """
    path = _find(root) or DATABASES[0]
    unsound = 0
    for text in records.texts(root, path, problems, records.RECORD):
        fields = parse(text)
        if fields.get("P") and fields.get("V"):
            yield from_fields(fields, distribution)
        else:
            unsound += 1
    if unsound:
        problems.note(f"{path}: {unsound} records without a name or a version")


def parse(text: str) -> Record:
    """The wanted fields of a record, by their letters."""
    return records.parse(text, _FIELD)


def from_fields(fields: Record, distribution: Distribution) -> Package:
    """The row for a record that has a name and a version."""
    name, version, architecture = fields["P"], fields["V"], fields.get("A", "")
    parts = _RELEASE.fullmatch(version)
    origin = fields.get("o")
    return Package(
        manager="apk",
        name=name,
        version=version,
        purl=purl(
            "apk",
            name.lower(),
            version,
            distribution.id or "alpine",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        upstream_version=parts[1] if parts else version,
        release=f"r{parts[2]}" if parts else None,
        architecture=architecture or None,
        source_name=origin or None,
        source_version=version if origin else None,
        vendor=fields.get("m") or None,
        license=fields.get("L") or None,
        summary=fields.get("T") or None,
        installed_size=number(fields.get("I")),
    )
