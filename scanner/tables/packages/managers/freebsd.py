"""FreeBSD's package database, an SQLite file; DragonFly's too.

Format: pkg, libpkg/pkgdb.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import LATEST
from fleetscan.scanner.tables.packages.spec import Package

DATABASE = "/var/db/pkg/local.sqlite"

_QUERY = (
    "SELECT p.name, p.version, p.origin, p.comment, p.arch, p.maintainer, p.flatsize, p.time,"
    " p.locked, (SELECT group_concat(l.name, ', ') FROM pkg_licenses pl"
    " JOIN licenses l ON l.id = pl.license_id WHERE pl.package_id = p.id) FROM packages p"
)
_VERSION = re.compile(r"(.*?)(?:_([0-9]+))?(?:,([0-9]{1,9}))?")


def is_present(root: Root) -> bool:
    """Whether the root has such a database."""
    return root.is_file(DATABASE)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    unsound = 0
    for values in sqlite.select(root, DATABASE, _QUERY, problems):
        if sqlite.text(values[0]) and sqlite.text(values[1]):
            yield from_values(values, distribution)
        else:
            unsound += 1
    if unsound:
        problems.note(f"{DATABASE}: {unsound} packages without a name or a version")


def from_values(values: tuple[object, ...], distribution: Distribution) -> Package:
    """The row for a database's row: name, version, origin and so on, as they were asked for."""
    name, version, origin, comment, arch, maintainer = map(sqlite.text, values[:6])
    upstream, revision, epoch = split_version(version)
    installed = sqlite.count(values[7])
    return Package(
        manager="pkg",
        name=name,
        version=version,
        purl=purl(
            "generic",
            name,
            version,
            "/".join(filter(None, ("pkg", distribution.id))),
            arch=arch,
            distro=distribution.qualifier,
        ),
        epoch=epoch,
        upstream_version=upstream,
        release=revision or None,
        architecture=arch or None,
        held=values[8] == 1,
        source_name=origin or None,
        source_version=version if origin else None,
        vendor=maintainer or None,
        license=sqlite.text(values[9]) or None,
        section=origin.partition("/")[0] or None,
        summary=comment or None,
        installed_size=sqlite.count(values[6]),
        installed_at=installed * MICROSECOND if installed and installed < LATEST else None,
    )


def split_version(version: str) -> tuple[str, str | None, int | None]:
    """Version, port revision and port epoch: ``1.2_3,4`` (the Porter's Handbook, 5.2)."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return version, None, None
    upstream, revision, epoch = match.groups()
    return upstream, revision, int(epoch) if epoch else None
