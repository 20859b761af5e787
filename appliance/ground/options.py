"""The options that reach the appliance: which facts are gathered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.ground.option import option

FilesMode = Literal["all", "notable", "none"]
PackagesMode = Literal["known", "all"]

_REGISTRY_KEY = re.compile(r"(?:HKLM\\(?:SOFTWARE|SYSTEM)|HKU)(?:\\[^\\]+)+", re.IGNORECASE)


def _registry_key(text: str) -> str:
    if not _REGISTRY_KEY.fullmatch(text):
        raise UsageError(
            f"{text!r} is not a registry key that fleetscan can list",
            hint="keys begin with HKLM\\SOFTWARE\\, HKLM\\SYSTEM\\, or HKU\\ for every user",
        )
    return text


@dataclass(frozen=True)
class FactOptions:
    r"""Which facts are gathered; sent whole with the request to discover.

    Attributes:
        files: which directory entries the ``files`` table keeps.
        packages: where packages of programming languages are looked for: where their own tools
            put them, or everywhere.
        registry: keys that the ``registry`` table holds besides, as ``HKLM\...`` or ``HKU\...``.
        usage_depth: how deep directories have a row in ``directory_usage``.
    """

    files: FilesMode = option(
        "all",
        decides=True,
        help="Which directory entries to list; see `fleetscan tables files`.",
    )
    packages: PackagesMode = option(
        "known",
        decides=True,
        help="Search for packages of programming languages where their tools put them, or in all "
        "files (slow).",
    )
    registry: tuple[str, ...] = option(
        (),
        decides=True,
        metavar="KEY",
        read=_registry_key,
        help="Another Windows registry key to list, with everything below it; may be repeated.",
    )
    usage_depth: int = option(
        2,
        decides=True,
        metavar="N",
        minimum=0,
        maximum=16,
        help="Depth down to which directory sizes are listed; see `fleetscan tables "
        "directory_usage`.",
    )
