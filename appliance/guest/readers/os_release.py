"""os-release(5): which distribution a root is, as its own file says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleetscan.appliance.guest.root import Root

OS_RELEASE = (
    "/etc/os-release",
    "/usr/lib/os-release",
    "/nix/var/nix/profiles/system/etc/os-release",  # NixOS before it was first started
)
"""Places of os-release(5); the first that is there counts."""

LIMIT = 16 << 10
"""Most bytes of a release file; real ones take up to 4 KiB."""

_OS_RELEASE_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_ESCAPED_IN_DOUBLE_QUOTES = re.compile(r'\\(["\\$`])')
_ESCAPED = re.compile(r"\\(.)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Release:
    """What release files say of a distribution; fields as in the ``operating_systems`` table."""

    distro: str | None = None
    like: tuple[str, ...] = ()
    product: str | None = None
    version: str | None = None
    codename: str | None = None
    variant: str | None = None
    support_end: str | None = None


def read_os_release(root: Root) -> str | None:
    """A root's os-release(5); None when it has none.

    Raises:
        OSError: it cannot be read.
    """
    for path in OS_RELEASE:
        if (text := root.try_text(path, LIMIT)) is not None:
            return text
    return None


def parse_assignments(text: str) -> dict[str, str]:
    """Shell-like assignments of os-release(5), also used by lsb-release and sysconfig files.

    Values may stand in double or single quotes; ``$``, quotes, backslashes and backticks may be
    escaped with a backslash; nothing is expanded. Other lines are passed over.
    """
    assignments = {}
    for line in text.split("\n"):
        if match := _OS_RELEASE_LINE.fullmatch(line.strip()):
            assignments[match[1]] = _unquote(match[2])
    return assignments


def _unquote(value: str) -> str:
    quote = value[:1]
    if quote not in ('"', "'"):
        return _ESCAPED.sub(r"\1", value)
    inner = value[1:-1] if len(value) > 1 and value.endswith(quote) else value[1:]
    return inner if quote == "'" else _ESCAPED_IN_DOUBLE_QUOTES.sub(r"\1", inner)


def from_os_release(text: str) -> Release:
    """Read os-release(5) text."""
    fields = parse_assignments(text)
    stated = fields.get("VERSION", "")
    name = fields.get("NAME", "")
    end = fields.get("SUPPORT_END", "")
    return Release(
        distro=fields.get("ID", "").lower() or None,
        like=tuple(fields.get("ID_LIKE", "").split()),
        product=fields.get("PRETTY_NAME") or f"{name} {stated}".strip() or None,
        version=more_precise(
            fields.get("VERSION_ID") or None,
            fields.get("DEBIAN_VERSION_FULL", ""),
            (stated.split() or [""])[0],
        ),
        codename=fields.get("VERSION_CODENAME", _codename_in(stated)) or None,
        variant=fields.get("VARIANT_ID") or None,
        support_end=end if _DATE.fullmatch(end) else None,
    )


def _codename_in(version: str) -> str:
    # Before VERSION_CODENAME: "8 (jessie)", "14.04.6 LTS, Trusty Tahr" for trusty.
    if match := re.search(r"\((.*?)\)", version):
        return match[1]
    return version.partition(", ")[2].partition(" ")[0].lower()


def more_precise(version: str | None, *candidates: str) -> str | None:
    """A version, or the candidate that says the same and more: 12.11 for 12."""
    for candidate in candidates:
        if version and candidate.startswith(f"{version}."):
            version = candidate
    return version
