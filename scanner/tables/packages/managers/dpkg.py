"""dpkg's database: deb822 records in /var/lib/dpkg, as dpkg-query(1) lists them.

Parsers take text; :func:`collect` opens the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages import records
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.records import Record
from fleetscan.scanner.tables.packages.spec import Package, Status

STATUS = "/var/lib/dpkg/status"
STATUS_D = "/var/lib/dpkg/status.d"  # distroless images: a file a package
UPDATES = "/var/lib/dpkg/updates"  # what an interrupted dpkg has not yet merged into the status
INFO = "/var/lib/dpkg/info"
_FIELD = re.compile(
    r"\n(Package|Version|Architecture|Status|Source|Maintainer|Section|Installed-Size"
    r"|Description|Installed-Time):[ \t]*(.*)"
)
_SIZE = re.compile(r"[0-9]{1,15}")
_SOURCE = re.compile(r"([^ (]+)(?: *\((.*)\))?")
STATES: Mapping[str, Status] = {
    "installed": "installed",
    "config-files": "config-files",
    "half-installed": "half-installed",
    "unpacked": "unpacked",
    "half-configured": "half-configured",
    "triggers-awaited": "triggers-awaited",
    "triggers-pending": "triggers-pending",
}
"""States of a package that has, or had, files here."""

_NOT_INSTALLED = "not-installed"
_UNIT = 1024  # Installed-Size counts KiB (deb-substvars(5))


def is_present(root: Root) -> bool:
    """Whether the root has a dpkg database."""
    return root.exists(STATUS) or root.is_dir(STATUS_D)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package that dpkg-query lists: all but those on record as not installed.

    Args:
        root: the root; its database may be damaged.
        distribution: what the packages were made for.
        problems: gets a message for each file that is.
    """
    times = _install_times(root, problems)
    rows = 0
    for record in _records(root, problems):
        if package := from_record(record, times, distribution):
            rows += 1
            yield package
    if times and not rows and not problems:
        problems.note(f"{STATUS}: lists no package, but {INFO} has files of {len(times)}")


def _records(root: Root, problems: Problems) -> Iterator[Record]:
    merged: dict[tuple[str, str], Record] = {}
    updates = [f"{UPDATES}/{name}" for name in root.listdir(UPDATES) if name.isdigit()]
    for path in (STATUS, *updates):
        for record in _sound(root, path, problems, default=None):
            merged[record["Package"], record.get("Architecture", "")] = record
    yield from merged.values()
    for path in root.glob(STATUS_D):
        if not path.endswith(".md5sums"):
            yield from _sound(root, path, problems, default="install ok installed")


def _sound(root: Root, path: str, problems: Problems, default: str | None) -> Iterator[Record]:
    unsound = []
    end = records.LINE if default is None else b""  # status.d's are written by other tools
    for number, record in enumerate(read(root, path, problems, end), start=1):
        if default is not None:
            record.setdefault("Status", default)
        if is_sound(record):
            yield record
        else:
            unsound.append(number)
    if unsound:
        count = f"{len(unsound)} malformed record{'s' if len(unsound) > 1 else ''}"
        problems.note(f"{path}: {count}, the first being number {unsound[0]}")


def read(root: Root, path: str, problems: Problems, end: bytes = records.LINE) -> Iterator[Record]:
    """The wanted fields of each record of a status file; empty ones for malformed records."""
    return map(parse, records.texts(root, path, problems, end))


def parse(text: str) -> Record:
    """The wanted fields of a deb822 record."""
    return records.parse(text, _FIELD)


def is_sound(record: Record) -> bool:
    """Whether a record names a package and a known state, and a version if it has files."""
    words = record.get("Status", "").split()
    if len(words) != 3 or not record.get("Package"):
        return False
    # A package whose first unpacking failed has no version yet.
    versionless = words[2] in (_NOT_INSTALLED, "half-installed")
    return versionless or (words[2] in STATES and bool(record.get("Version")))


def from_record(
    record: Record, install_times: Mapping[str, int], distribution: Distribution
) -> Package | None:
    """The row for a sound record; None for a package on record as not installed.

    Args:
        record: the fields.
        install_times: microseconds by the name that the package's files have in ``info``.
        distribution: what the package was made for.
    """
    wanted, _, state = record["Status"].split()
    if state == _NOT_INSTALLED:
        return None
    name, version = record["Package"], record.get("Version", "")
    architecture = record.get("Architecture") or None
    epoch, upstream, revision = split_version(version)
    source = _SOURCE.fullmatch(record.get("Source", ""))
    size = record.get("Installed-Size", "")
    installed_at = install_times.get(f"{name}:{architecture}", install_times.get(name))
    return Package(
        manager="dpkg",
        name=name,
        version=version,
        epoch=epoch,
        upstream_version=upstream,
        release=revision,
        architecture=architecture,
        status=STATES[state],
        held=wanted == "hold",
        purl=purl(
            "deb",
            name.lower(),
            version,
            distribution.id or "debian",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        source_name=source[1] if source else name,
        source_version=(source[2] if source else None) or version or None,
        vendor=record.get("Maintainer") or None,
        section=record.get("Section") or None,
        summary=record.get("Description") or None,
        installed_size=int(size) * _UNIT if _SIZE.fullmatch(size) else None,
        installed_at=installed_at,
    )


def split_version(version: str) -> tuple[int | None, str, str | None]:
    """Epoch, upstream version and Debian revision (deb-version(7))."""
    epoch, colon, rest = version.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit() and len(epoch) < 10):
        epoch, rest = "", version
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch) if epoch else None, upstream if dash else rest, revision if dash else None


def _install_times(root: Root, problems: Problems) -> dict[str, int]:
    # dpkg rewrites a package's list of files whenever it unpacks it.
    times: dict[str, int] = {}
    try:
        fd = root.open_fd(INFO, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return times
    except OSError as error:
        problems.note(f"{INFO}: {reason(error)}")
        return times
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name.endswith(".list"):
                    modified = entry.stat(follow_symlinks=False).st_mtime_ns
                    times[entry.name[: -len(".list")]] = schema.microseconds(modified)
    except OSError as error:
        problems.note(f"{INFO}: {reason(error)}")
    finally:
        os.close(fd)
    return times
