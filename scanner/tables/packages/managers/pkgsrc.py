"""Package records of pkg_install: pkgsrc (NetBSD), OpenBSD, FreeBSD before 10.

A directory a package, named NAME-VERSION, with files whose names begin with a plus sign. Format:
pkg_add(1) of each system.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import number
from fleetscan.scanner.tables.packages.spec import Package

DIRECTORIES = ("/usr/pkg/pkgdb", "/var/db/pkg")
LIMIT = 4 << 20
"""Largest of the files read, in bytes; lists of files take about 60 bytes a file."""

_FACTS = ("+BUILD_INFO", "+COMMENT", "+DESC", "+SIZE_PKG")
_NAME = re.compile(r"(.+?)-([0-9][^-]*)(-.+)?")  # OpenBSD's flavours come last
_ARCHITECTURE = re.compile(r"(?m)^(?:MACHINE_ARCH=|@arch )(.*)")
_LICENSE = re.compile(r"(?m)^LICENSE=[ \t]*(.*)")
_REVISION = re.compile(r"(.*[^p])(?:nb|p|_)([0-9]+)")


def is_present(root: Root) -> bool:
    """Whether the root has records of this kind."""
    return any(_packages(root))


def _packages(root: Root) -> Iterator[str]:
    for directory in filter(root.is_dir, DIRECTORIES):
        for name in root.listdir(directory):
            if _NAME.fullmatch(name) and root.exists(f"{directory}/{name}/+CONTENTS"):
                yield f"{directory}/{name}"


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    for path in _packages(root):
        facts = {}
        for fact in _FACTS:
            with contextlib.suppress(FileNotFoundError):
                facts[fact] = _read(root, f"{path}/{fact}", problems)
        if "+BUILD_INFO" not in facts:  # OpenBSD's stands in the list of files
            facts["+BUILD_INFO"] = _read(root, f"{path}/+CONTENTS", problems)
        yield from_facts(path.rpartition("/")[2], facts, distribution)


def _read(root: Root, path: str, problems: Problems) -> str:
    try:
        return root.read_text(path, LIMIT)
    except FileNotFoundError:
        raise
    except OSError as error:
        problems.note(f"{path}: {reason(error)}")
        return ""


def from_facts(name: str, facts: Mapping[str, str], distribution: Distribution) -> Package:
    """The row for a package.

    Args:
        name: of its directory.
        facts: content of its files by their names.
        distribution: what the package was made for.
    """
    match = _NAME.fullmatch(name)
    short, version, flavour = match.groups() if match else (name, "", None)
    revision = _REVISION.fullmatch(version)
    built = facts.get("+BUILD_INFO", "")
    architecture, license_text = _ARCHITECTURE.search(built), _LICENSE.search(built)
    summary = facts.get("+COMMENT") or facts.get("+DESC") or ""
    return Package(
        manager="pkgsrc",
        name=short,
        version=version,
        purl=purl(
            "generic",
            short,
            version,
            "/".join(filter(None, ("pkgsrc", distribution.id))),
            arch=architecture[1] if architecture else None,
            distro=distribution.qualifier,
            flavour=flavour[1:] if flavour else None,
        ),
        upstream_version=revision[1] if revision else version,
        release=revision[2] or None if revision else None,
        architecture=architecture[1] or None if architecture else None,
        license=license_text[1] or None if license_text else None,
        summary=summary.strip().partition("\n")[0] or None,
        installed_size=number(facts.get("+SIZE_PKG", "").strip()),
    )
