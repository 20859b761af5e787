"""Package URLs, as https://github.com/package-url/purl-spec defines them.

Types that the specification does not register are ``generic``, their ecosystem being the
namespace.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_PLAIN = re.compile(r"[A-Za-z0-9.:_~-]*")  # what stands for itself; the rest is percent-encoded
_SAFE = ":"


@dataclass(frozen=True)
class Distribution:
    """What packages of a root's own package manager were made for.

    Attributes:
        id: os-release's ID; empty where it is not known.
        version: its VERSION_ID; empty where there is none.
    """

    id: str = ""
    version: str = ""

    @property
    def qualifier(self) -> str:
        """Value of the ``distro`` qualifier, such as ``debian-12``."""
        return "-".join(filter(None, (self.id, self.version)))


def purl(
    kind: str, name: str, version: str = "", namespace: str = "", **qualifiers: str | int | None
) -> str:
    """The package URL of these parts; empty parts are left out.

    Args:
        kind: the type, such as ``deb``.
        name: the name, folded as the type asks for.
        version: the version.
        namespace: one or more segments with slashes between them.
        qualifiers: further parts by key.

    >>> purl("deb", "attr", "1:2.4.47-2+b1", "debian", distro="debian-9", arch="amd64")
    'pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64&distro=debian-9'
    """
    segments = [_encode(segment) for segment in namespace.split("/") if segment]
    url = "/".join([f"pkg:{kind}", *segments, _encode(name)])
    if version:
        url += f"@{_encode(version)}"
    given = [f"{key}={_encode(str(value))}" for key, value in sorted(qualifiers.items()) if value]
    return f"{url}?{'&'.join(given)}" if given else url


def _encode(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, _SAFE, errors="surrogateescape")
