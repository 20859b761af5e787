"""Portage's database of installed packages: /var/db/pkg/CATEGORY/PACKAGE-VERSION/, a file a fact.

Format: the Package Manager Specification and portage's vartree.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.recorded import number
from fleetscan.scanner.tables.packages.spec import Package

DATABASE = "/var/db/pkg"
LIMIT = 1 << 16
"""Largest of the files read, in bytes; they hold a line each."""

_FACTS = ("CHOST", "DESCRIPTION", "LICENSE", "SIZE", "repository")
_CATEGORY = re.compile(r"virtual|[A-Za-z0-9_][A-Za-z0-9+_.]*-[A-Za-z0-9+_.-]+")
# Package Manager Specification, 3.1.2 and 3.2.
_NAME = re.compile(
    r"(.+?)-([0-9]+(?:\.[0-9]+)*[a-z]?(?:_(?:alpha|beta|pre|rc|p)[0-9]*)*)(-r[0-9]+)?"
)


def is_present(root: Root) -> bool:
    """Whether the root has a database of portage's."""
    return any(_packages(root)) if root.is_dir(DATABASE) else False


def _packages(root: Root) -> Iterator[tuple[str, str]]:
    """Category and directory of each package; unfinished merges have names of another form."""
    for category in root.listdir(DATABASE):
        if _CATEGORY.fullmatch(category) and not root.exists(f"{DATABASE}/{category}/+CONTENTS"):
            for name in root.listdir(f"{DATABASE}/{category}"):
                if not name.startswith("-MERGING-"):
                    yield category, name


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package; arguments as of every reader here."""
    unsound = []
    for category, name in _packages(root):
        facts = {}
        directory = f"{DATABASE}/{category}/{name}"
        if not root.is_dir(directory):
            continue
        if not root.is_file(f"{directory}/PF") or not _NAME.fullmatch(name):
            unsound.append(f"{category}/{name}")
            continue
        for fact in _FACTS:
            with contextlib.suppress(OSError):
                facts[fact] = root.read_text(f"{directory}/{fact}", LIMIT).strip()
        yield from_facts(category, name, facts, distribution)
    if unsound:
        problems.note(f"{DATABASE}: {len(unsound)} damaged packages, the first: {unsound[0]}")


def from_facts(
    category: str, directory: str, facts: Mapping[str, str], distribution: Distribution
) -> Package:
    """The row for a package whose directory is named as the specification says."""
    match = _NAME.fullmatch(directory)
    short, upstream, revision = match.groups() if match else (directory, "", None)
    version = f"{upstream}{revision or ''}"
    architecture = facts.get("CHOST", "").partition("-")[0]
    return Package(
        manager="portage",
        name=f"{category}/{short}",
        version=version,
        purl=purl(
            "generic",
            short,
            version,
            f"portage/{category}",
            arch=architecture,
            distro=distribution.qualifier,
        ),
        upstream_version=upstream,
        release=revision[1:] or None if revision else None,
        architecture=architecture or None,
        vendor=facts.get("repository") or None,
        license=facts.get("LICENSE") or None,
        section=category or None,
        summary=facts.get("DESCRIPTION") or None,
        installed_size=number(facts.get("SIZE")),
    )
