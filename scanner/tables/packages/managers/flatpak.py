"""Flatpaks installed for all users: /var/lib/flatpak/{app,runtime}/ID/ARCHITECTURE/BRANCH.

Format: flatpak's deploy directories; their ``deploy`` file is a GVariant whose dictionary has the
version that the application states.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.spec import Package

INSTALLATION = "/var/lib/flatpak"
LIMIT = 1 << 20
"""Largest ``deploy`` file that is read, in bytes; ordinary ones take 1 KiB."""

# A dictionary entry of GVariant: the key, padding, the value, and "s", its type.
_VERSION = re.compile(rb"appdata-version\0+([^\0]{1,200})\0\0s")


def is_present(root: Root) -> bool:
    """Whether the root has an installation of flatpaks."""
    return root.is_dir(INSTALLATION)


def collect(root: Root, _: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a deployed application or runtime; arguments as of every reader here."""
    for kind in ("app", "runtime"):
        for identifier in root.glob(f"{INSTALLATION}/{kind}"):
            for architecture in root.glob(identifier):
                for branch in root.glob(architecture):
                    if root.is_dir(branch) and not root.is_link(architecture):
                        yield _deployed(root, kind, branch, problems)


def _deployed(root: Root, kind: str, branch: str, problems: Problems) -> Package:
    commit = ""
    with contextlib.suppress(OSError):
        commit = root.readlink(f"{branch}/active")
    version = ""
    try:
        found = _VERSION.search(root.read_bytes(f"{branch}/active/deploy", LIMIT))
        version = found[1].decode("utf-8", "surrogateescape") if found else ""
    except OSError as error:
        problems.note(f"{branch}/active/deploy: {reason(error)}")
    name, architecture, release = branch.split("/")[-3:]
    return Package(
        manager="flatpak",
        name=name,
        version=version,
        purl=purl(
            "generic", name, version, "flatpak", arch=architecture, branch=release, commit=commit
        ),
        upstream_version=version,
        release=release or None,
        architecture=architecture or None,
        section=kind or None,
    )
