"""opkg's status file: OpenWrt before 25.12, Yocto images, Entware.

Format: dpkg's records, with opkg's own Installed-Time.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.managers import dpkg
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import LATEST, number
from fleetscan.scanner.tables.packages.records import Record
from fleetscan.scanner.tables.packages.spec import Package

DATABASES = ("/usr/lib/opkg/status", "/var/lib/opkg/status", "/opt/lib/opkg/status")
"""Where it is: OpenWrt, Yocto, Entware."""

_INSTALLED = ("installed", "unpacked", "half-installed")
_OTHER = ("not-installed", "config-files", "half-configured", "post-inst-failed", "removal-failed")


def is_present(root: Root) -> bool:
    """Whether the root has an opkg database."""
    return any(map(root.is_file, DATABASES))


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    for path in filter(root.is_file, DATABASES):
        unsound = 0
        for record in dpkg.read(root, path, problems):
            words = record.get("Status", "").split()
            named = record.get("Package") and record.get("Version")
            if len(words) == 3 and named and words[2] in _INSTALLED:
                yield from_record(record, distribution)
            elif len(words) != 3 or not named or words[2] not in _OTHER:
                unsound += 1
        if unsound:
            problems.note(f"{path}: {unsound} malformed records")


def from_record(record: Record, distribution: Distribution) -> Package:
    """The row for a record with a name, a version and a status of three words."""
    wanted, flags, state = record["Status"].split()
    epoch, upstream, release = dpkg.split_version(record["Version"])
    installed = number(record.get("Installed-Time"), LATEST)
    namespace = "/".join(filter(None, ("opkg", distribution.id)))
    return Package(
        manager="opkg",
        name=record["Package"],
        version=record["Version"],
        purl=purl(
            "generic",
            record["Package"],
            record["Version"],
            namespace,
            arch=record.get("Architecture"),
            distro=distribution.qualifier,
        ),
        status="installed" if state == "installed" else dpkg.STATES[state],
        epoch=epoch,
        upstream_version=upstream,
        release=release or None,
        architecture=record.get("Architecture") or None,
        held=wanted == "hold" or "hold" in flags.split(","),
        vendor=record.get("Maintainer") or None,
        section=record.get("Section") or None,
        summary=record.get("Description") or None,
        installed_at=None if installed is None else installed * MICROSECOND,
    )
