"""Nix' store: paths that its database calls valid, by their names.

Format: nix, libstore's schema.sql; names as parseDrvName of nix-env(1) splits them: the version
begins at the first dash that no letter follows.
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

DATABASE = "/nix/var/nix/db/db.sqlite"

_QUERY = "SELECT path, registrationTime, narSize FROM ValidPaths ORDER BY path"
_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-(.+?)-([^A-Za-z].*)")
_NOT_PACKAGES = (".drv", ".patch", ".sh", ".nix", ".conf", ".json", ".tar.gz", ".tar.xz", ".zip")


def is_present(root: Root) -> bool:
    """Whether the root has a Nix store with a database."""
    return root.is_file(DATABASE)


def collect(root: Root, _: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a store path with a version in its name; arguments as of every reader here."""
    for path, registered, size in sqlite.select(root, DATABASE, _QUERY, problems):
        match = _PATH.fullmatch(sqlite.text(path))
        if match is None or match[0].endswith(_NOT_PACKAGES):
            continue
        name, version = match.groups()
        time = sqlite.count(registered)
        yield Package(
            manager="nix",
            name=name,
            version=version,
            purl=purl("generic", name, version, "nix"),
            upstream_version=version,
            installed_size=sqlite.count(size),
            installed_at=time * MICROSECOND if time and time < LATEST else None,
            path=match[0],
        )
