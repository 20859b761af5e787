"""What a tool found in a machine, in the terms that fleetscan and libguestfs are compared in."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = (
    "type",
    "distro",
    "product",
    "major version",
    "minor version",
    "architecture",
    "hostname",
    "package format",
    "package management",
    "mountpoints",
    "drive mappings",
    "filesystems",
    "applications",
)
"""What is compared of a system."""

System = dict[str, dict[str, str]]
"""Field to value by key; a field of one value has it under the empty key."""


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        opened: whether the tool could work on the machine at all.
        systems: operating systems, by the name of their root.
        filesystems: names of filesystems by device, whether a system mounts them or not.
    """

    opened: bool
    systems: dict[str, System]
    filesystems: dict[str, str]

    @property
    def told(self) -> bool:
        """Whether there is anything to compare."""
        return self.opened or bool(self.filesystems)


def names_of(kind: str | None, label: str | None, uuid: str | None) -> str:
    """A filesystem's type, label and UUID in one text."""
    words = [kind or "", f"LABEL={label}" if label else "", f"UUID={uuid}" if uuid else ""]
    return " ".join(filter(None, words))


def package(
    packages: dict[str, str], name: str, epoch: str, version: str, release: str, arch: str
) -> None:
    """Add a package; of those with several versions, all are the value of the one key.

    An epoch of 0 is none: ecosystems compare them so.
    """
    whole = f"{epoch}:{version}" if epoch not in ("", "0") else version
    whole = f"{whole}-{release}" if release else whole
    key = f"{name} {arch}".rstrip()
    known = packages[key].split(", ") if key in packages else []
    packages[key] = ", ".join(sorted([*known, whole]))
