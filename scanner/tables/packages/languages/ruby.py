"""Ruby gems: the specifications of installed ones.

Format: RubyGems, Gem::Specification#to_ruby; nothing of it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

LIMIT = 1 << 20
"""Largest specification that is read, in bytes; those that list all files take 50 KiB."""

_HOMES = ("/usr/share/gems", "/usr/local/bundle")
_VERSIONED = (
    "/var/lib/gems",
    "/usr/lib/ruby/gems",
    "/usr/lib64/ruby/gems",
    "/usr/local/lib/ruby/gems",
    "/usr/share/rubygems-integration",
)
_STUB = re.compile(r"(?m)^# stub: (\S+) (\S+) (\S+)")
_NAME = re.compile(r"(?m)^\s*\w+\.name\s*=\s*[\"']([^\"'\n]+)")
_VERSION = re.compile(r"(?m)^\s*\w+\.version\s*=\s*(?:Gem::Version\.new\s*\(?\s*)?[\"']([^\"'\n]+)")
_LICENSE = re.compile(r"(?m)^\s*\w+\.licenses?\s*=\s*\[?[\"']([^\"'\n]+)")
_SUMMARY = re.compile(r"(?m)^\s*\w+\.summary\s*=\s*[\"']([^\"\n]*?)[\"'](?:\.freeze)?\s*$")
_DEFAULT_PLATFORM = "ruby"


def places(root: Root) -> Iterator[str]:
    """Directories of specifications of the system's own interpreters."""
    homes = [*_HOMES, *(path for top in _VERSIONED for path in root.glob(top))]
    for home in homes:
        yield f"{home}/specifications"
        yield f"{home}/specifications/default"


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """Specifications of installed gems; a gem's own source has one too, elsewhere."""
    if directory.endswith(("/specifications", "/specifications/default")):
        yield from (f"{directory}/{name}" for name in names if name.endswith(".gemspec"))


def read(root: Root, path: str) -> Iterator[Package]:
    """The gem that a specification describes.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no name or no version.
    """
    yield from_specification(root.read_text(path, LIMIT), path)


def from_specification(text: str, path: str) -> Package:
    """The row for a specification.

    Raises:
        ValueError: it has no name or no version.
    """
    platform = _DEFAULT_PLATFORM
    if stub := _STUB.search(text):
        name, version, platform = stub.groups()
    else:
        named, versioned = _NAME.search(text), _VERSION.search(text)
        if not named or not versioned:
            raise ValueError("specification without a name or a version")
        name, version = named[1], versioned[1]
    if platform == _DEFAULT_PLATFORM:
        platform = ""
    license_text, summary = _LICENSE.search(text), _SUMMARY.search(text)
    return Package(
        manager="gem",
        name=name,
        version=version,
        purl=purl("gem", name, version, platform=platform),
        upstream_version=version,
        architecture=platform or None,
        license=license_text[1] or None if license_text else None,
        summary=summary[1] or None if summary else None,
        path=path,
    )
