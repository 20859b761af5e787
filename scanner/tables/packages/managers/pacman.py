"""pacman's local database: a directory a package with a ``desc`` file.

Format: libalpm, lib/libalpm/be_local.c: ``%FIELD%`` lines, each followed by its values, a line a
value, and a blank line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import LATEST, number
from fleetscan.scanner.tables.packages.spec import Package

LOCAL = "/var/lib/pacman/local"
LIMIT = 1 << 20
"""Largest ``desc`` file that is read, in bytes; packages with long lists take 10 KiB."""

_NOT_A_PACKAGE = "ALPM_DB_VERSION"
_FIELD = re.compile(r"%([A-Z0-9]+)%\n((?:[^%\n].*\n)*)")
_VERSION = re.compile(r"(?:([0-9]{1,9}):)?(.*?)(?:-([^-]*))?")


def is_present(root: Root) -> bool:
    """Whether the root has a pacman database."""
    return root.is_dir(LOCAL)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package.

    Args:
        root: a root for which :func:`is_present` holds; its database may be damaged.
        distribution: what the packages were made for.
        problems: gets a message when rows may be missing.
    """
    unsound = []
    for name in root.listdir(LOCAL):
        if name == _NOT_A_PACKAGE:
            continue
        try:
            text = root.read_text(f"{LOCAL}/{name}/desc", LIMIT)
        except OSError as error:
            unsound.append(f"{name}/desc: {reason(error)}")
            continue
        fields = parse_desc(text)
        if not (fields.get("NAME") and fields.get("VERSION")):
            unsound.append(f"{name}/desc: without a name or a version")
            continue
        if not text.endswith("\n"):
            unsound.append(f"{name}/desc: ends in the middle of a line")
        yield from_fields(fields, distribution)
    if unsound:
        problems.note(f"{LOCAL}: {len(unsound)} damaged packages, the first: {unsound[0]}")


def parse_desc(text: str) -> dict[str, str]:
    """Fields by name; several values are joined by commas."""
    return {
        name: ", ".join(values.splitlines()) for name, values in _FIELD.findall(f"{text.strip()}\n")
    }


def from_fields(fields: dict[str, str], distribution: Distribution) -> Package:
    """The row for a package that has a name and a version."""
    name, version, architecture = fields["NAME"], fields["VERSION"], fields.get("ARCH", "")
    epoch, upstream, release = split_version(version)
    installed = number(fields.get("INSTALLDATE"), LATEST)
    base = fields.get("BASE")
    return Package(
        manager="pacman",
        name=name,
        version=version,
        purl=purl(
            "alpm",
            name.lower(),
            version,
            distribution.id or "arch",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        epoch=epoch,
        upstream_version=upstream,
        release=release or None,
        architecture=architecture or None,
        source_name=base or None,
        source_version=version if base else None,
        vendor=fields.get("PACKAGER") or None,
        license=fields.get("LICENSE") or None,
        section=fields.get("GROUPS") or None,
        summary=fields.get("DESC") or None,
        installed_size=number(fields.get("SIZE")),
        installed_at=None if installed is None else installed * MICROSECOND,
    )


def split_version(version: str) -> tuple[int | None, str, str | None]:
    """Epoch, upstream version and release: ``[epoch:]pkgver-pkgrel`` of PKGBUILD(5)."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None, version, None
    epoch, upstream, release = match.groups()
    return int(epoch) if epoch else None, upstream, release
