"""xbps' package database: a property list. Void Linux.

Format: xbps, lib/pkgdb.c: a dictionary by package name.
"""

from __future__ import annotations

import datetime as dt
import plistlib
from collections.abc import Iterator, Mapping
from xml.parsers.expat import ExpatError

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.spec import Package, Status

DATABASE = "/var/db/xbps/pkgdb-0.38.plist"
LIMIT = 64 << 20
"""Largest database that is read, in bytes; a package takes about 2 KiB."""

_RECORD_END = b"\n\t</dict>\n"  # as proplib writes it
_END = b"</dict>\n</plist>\n"
_OWN = "_XBPS_"  # entries about the database itself
_STATES: Mapping[str, Status] = {
    "unpacked": "unpacked",
    "half-unpacked": "half-installed",
    "half-removed": "half-installed",
}


def is_present(root: Root) -> bool:
    """Whether the root has an xbps database."""
    return root.is_file(DATABASE)


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    try:
        content = root.read_bytes(DATABASE, LIMIT)
    except OSError as error:
        problems.note(f"{DATABASE}: {reason(error)}")
        return
    unsound = 0
    for name, record in parse(content, problems).items():
        if name.startswith(_OWN):
            continue
        if isinstance(record, dict) and isinstance(record.get("pkgver"), str):
            yield from_record(name, record, distribution)
        else:
            unsound += 1
    if unsound:
        problems.note(f"{DATABASE}: {unsound} malformed records")


def parse(content: bytes, problems: Problems) -> dict[str, object]:
    """Records by package name; of a damaged database those before the damage."""
    try:
        return _load(content)
    except (ExpatError, ValueError, LookupError, RecursionError) as error:
        problems.note(f"{DATABASE}: damaged: {error}")
    whole, end, _ = content.rpartition(_RECORD_END)
    try:
        return _load(whole + end + _END)
    except (ExpatError, ValueError, LookupError, RecursionError):
        return {}


def _load(content: bytes) -> dict[str, object]:
    found = plistlib.loads(content, fmt=plistlib.FMT_XML)
    if not isinstance(found, dict):
        raise ValueError("not a dictionary")
    return found


def from_record(name: str, record: Mapping[str, object], distribution: Distribution) -> Package:
    """The row for a record whose ``pkgver`` is text."""
    version = str(record["pkgver"]).removeprefix(f"{name}-")
    upstream, _, revision = version.rpartition("_")
    architecture = _text(record, "architecture")
    size = record.get("installed_size")
    return Package(
        manager="xbps",
        name=name,
        version=version,
        purl=purl(
            "generic",
            name,
            version,
            "xbps",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        status=_STATES.get(_text(record, "state") or "", "installed"),
        upstream_version=upstream or version,
        release=revision or None if upstream else None,
        architecture=architecture or None,
        held=record.get("hold") is True,
        vendor=_text(record, "maintainer") or None,
        license=_text(record, "license") or None,
        summary=_text(record, "short_desc") or None,
        installed_size=size if isinstance(size, int) and 0 <= size < 1 << 63 else None,
        installed_at=_time(_text(record, "install-date") or ""),
    )


def _text(record: Mapping[str, object], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None


def _time(text: str) -> int | None:
    """Microseconds for ``2024-01-02 03:04 UTC``."""
    try:
        time = dt.datetime.strptime(text, "%Y-%m-%d %H:%M %Z").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    return int(time.timestamp()) * MICROSECOND
